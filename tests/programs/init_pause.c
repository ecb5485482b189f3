// init_pause: initialises MPI, rank 0 prints "all N ranks are up" when all have done so, and then everybody sleeps for
// ever without using the processor.
#include <mpi.h>

#include "common.h"

int main(int argc, char **argv) {
    MPI_Init(&argc, &argv);
    int rank, size;
    MPI_Comm_rank(MPI_COMM_WORLD, &rank);
    MPI_Comm_size(MPI_COMM_WORLD, &size);
    MPI_Barrier(MPI_COMM_WORLD);
    if (rank == 0) printf("all %d ranks are up\n", size);
    fflush(stdout);
    for (;;) pause();
}
