// spawn_child: what spawn_parent spawns. Each rank checks its arguments, joins the sum, and says where it ran.
// Where SPAWN_WDIR is set, it is the working directory. Where CHILD_DIES is set, rank 0 ends by SIGSEGV once it knows its parent.
// Where CHILD_STAYS is set, it ends without leaving its parent.
#include <mpi.h>
#include <signal.h>
#include <unistd.h>

#include "common.h"

int main(int argc, char **argv) {
    MPI_Init(&argc, &argv);
    if (argc != 3 || strcmp(argv[1], "one") || strcmp(argv[2], "two words")) die("wrong arguments, %d of them", argc);
    char here[4096];
    const char *wanted = getenv("SPAWN_WDIR");
    if (wanted && (!getcwd(here, sizeof here) || strcmp(here, wanted))) die("in %s, not in %s", here, wanted);
    MPI_Comm parent, all;
    MPI_Comm_get_parent(&parent);
    if (parent == MPI_COMM_NULL) die("no parent");
    int rank, length, one = 1, sum = 0;
    char host[MPI_MAX_PROCESSOR_NAME];
    MPI_Comm_rank(MPI_COMM_WORLD, &rank);
    MPI_Get_processor_name(host, &length);
    if (rank == 0 && getenv("CHILD_DIES")) {
        signal(SIGSEGV, SIG_DFL);
        raise(SIGSEGV);
    }
    MPI_Intercomm_merge(parent, 1, &all);
    MPI_Allreduce(&one, &sum, 1, MPI_INT, MPI_SUM, all);
    printf("child %d on %s among %d\n", rank, host, sum);
    MPI_Comm_free(&all);
    if (!getenv("CHILD_STAYS")) MPI_Comm_disconnect(&parent);
    MPI_Finalize();
    return 0;
}
