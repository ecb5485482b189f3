// abort7 [RANK] [CODE]: RANK (0 otherwise) calls MPI_Abort(CODE) (7 otherwise); the others wait in a barrier for it.
#include <mpi.h>

#include "common.h"

int main(int argc, char **argv) {
    MPI_Init(&argc, &argv);
    int rank;
    MPI_Comm_rank(MPI_COMM_WORLD, &rank);
    // All are up before one aborts.
    MPI_Barrier(MPI_COMM_WORLD);
    if (rank == number_arg(argc, argv, 1, 0)) MPI_Abort(MPI_COMM_WORLD, (int)number_arg(argc, argv, 2, 7));
    MPI_Barrier(MPI_COMM_WORLD);
    MPI_Finalize();
    return 0;
}
