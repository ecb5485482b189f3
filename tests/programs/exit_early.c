// exit_early WHEN [RANK] [CODE]: RANK (0 otherwise) leaves with CODE (5 otherwise) at a point where others wait for it:
//   before-init       it never calls MPI_Init
//   without-finalize  it leaves between MPI_Init and MPI_Finalize
//   sleep             it sleeps instead of entering MPI_Init (a stuck fence)
// Before MPI_Init the rank is what the launcher's environment says.
#include <mpi.h>

#include "common.h"

int main(int argc, char **argv) {
    if (argc < 2) die("usage: exit_early before-init|without-finalize|sleep [RANK] [CODE]");
    const char *when = argv[1];
    int chosen = launcher_rank() == number_arg(argc, argv, 2, 0);
    int code = (int)number_arg(argc, argv, 3, 5);
    if (chosen && !strcmp(when, "before-init")) return code;
    if (chosen && !strcmp(when, "sleep"))
        for (;;) pause();
    MPI_Init(&argc, &argv);
    if (!strcmp(when, "without-finalize")) {
        // The others stay out of the library, which may crash when a peer is gone: then it were a race who is first.
        MPI_Barrier(MPI_COMM_WORLD);
        if (chosen) _exit(code);
        for (;;) pause();
    }
    MPI_Barrier(MPI_COMM_WORLD);
    MPI_Finalize();
    return 0;
}
