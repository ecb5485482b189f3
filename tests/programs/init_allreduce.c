// init_allreduce [COUNT]: a checked sum over COUNT doubles (1 otherwise), then every rank says where it ran.
// Rank 0 prints "allreduce of N ranks: ok" last.
#include <mpi.h>

#include "common.h"

int main(int argc, char **argv) {
    MPI_Init(&argc, &argv);
    int rank, size, length;
    char host[MPI_MAX_PROCESSOR_NAME];
    MPI_Comm_rank(MPI_COMM_WORLD, &rank);
    MPI_Comm_size(MPI_COMM_WORLD, &size);
    MPI_Get_processor_name(host, &length);
    long count = number_arg(argc, argv, 1, 1);
    double *in = malloc((size_t)count * sizeof *in), *out = malloc((size_t)count * sizeof *out);
    for (long i = 0; i < count; i++) in[i] = (double)rank + (double)(i % 7);
    MPI_Allreduce(in, out, (int)count, MPI_DOUBLE, MPI_SUM, MPI_COMM_WORLD);
    for (long i = 0; i < count; i++) {
        double wanted = (double)size * (size - 1) / 2 + (double)size * (double)(i % 7);
        if (out[i] != wanted) die("element %ld is %g, not %g", i, out[i], wanted);
    }
    printf("rank %d of %d on %s\n", rank, size, host);
    fflush(stdout);
    MPI_Barrier(MPI_COMM_WORLD);
    if (rank == 0) printf("allreduce of %d ranks: ok\n", size);
    free(in);
    free(out);
    MPI_Finalize();
    return 0;
}
