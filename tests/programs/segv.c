// segv [RANK]: RANK (0 otherwise) ends by SIGSEGV; the others sleep until they are ended, out of the library, which
// aborts or crashes with a status of its own when a peer is gone.
#include <mpi.h>
#include <signal.h>

#include "common.h"

int main(int argc, char **argv) {
    MPI_Init(&argc, &argv);
    int rank;
    MPI_Comm_rank(MPI_COMM_WORLD, &rank);
    MPI_Barrier(MPI_COMM_WORLD);
    if (rank == number_arg(argc, argv, 1, 0)) {
        // Whoever leaves a barrier first knows only that the others have entered it. They get a moment to leave it, and the
        // library here, which answers only while it is called, goes on to answer.
        int flag;
        for (double until = now_seconds() + 1; now_seconds() < until; usleep(1000))
            MPI_Iprobe(MPI_ANY_SOURCE, 1, MPI_COMM_WORLD, &flag, MPI_STATUS_IGNORE);
        // A library's own handler would print a report instead of dying by the signal.
        signal(SIGSEGV, SIG_DFL);
        *(volatile int *)8 = 1;
    }
    for (;;) pause();
}
