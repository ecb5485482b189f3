// segv [RANK]: RANK (0 otherwise) ends by SIGSEGV; the others sleep, out of the library that may crash
// when a peer is gone, until they are ended.
#include <mpi.h>
#include <signal.h>

#include "common.h"

int main(int argc, char **argv) {
    MPI_Init(&argc, &argv);
    int rank;
    MPI_Comm_rank(MPI_COMM_WORLD, &rank);
    MPI_Barrier(MPI_COMM_WORLD);
    if (rank == number_arg(argc, argv, 1, 0)) {
        // A library's own handler would print a report instead of dying by the signal.
        signal(SIGSEGV, SIG_DFL);
        *(volatile int *)8 = 1;
    }
    for (;;) pause();
}
