// ulfm_shrink [RANK]: RANK (1 otherwise) kills itself; the others are told, leave it behind, and add up once more without it. For
// Open MPI 5 with fault tolerance. Rank 0 says when all are at work. Every survivor prints "survivor R of N: ok", with its rank among them.
#include <mpi.h>
#include <mpi-ext.h>
#include <signal.h>

#include "common.h"

int main(int argc, char **argv) {
    MPI_Init(&argc, &argv);
    int rank, size, left, one = 1, sum = 0, rc, class;
    MPI_Comm survivors;
    MPI_Comm_rank(MPI_COMM_WORLD, &rank);
    MPI_Comm_size(MPI_COMM_WORLD, &size);
    MPI_Comm_set_errhandler(MPI_COMM_WORLD, MPI_ERRORS_RETURN);
    MPI_Barrier(MPI_COMM_WORLD);
    if (rank == 0) puts("all are at work");
    fflush(stdout);
    if (rank == number_arg(argc, argv, 1, 1)) raise(SIGKILL);
    do rc = MPI_Allreduce(&one, &sum, 1, MPI_INT, MPI_SUM, MPI_COMM_WORLD);
    while (rc == MPI_SUCCESS);
    MPI_Error_class(rc, &class);
    if (class != MPIX_ERR_PROC_FAILED && class != MPIX_ERR_REVOKED) die("rank %d: error class %d", rank, class);
    MPIX_Comm_revoke(MPI_COMM_WORLD);
    if ((rc = MPIX_Comm_shrink(MPI_COMM_WORLD, &survivors)) != MPI_SUCCESS) die("rank %d cannot shrink: %d", rank, rc);
    MPI_Comm_rank(survivors, &rank);
    MPI_Comm_size(survivors, &left);
    if ((rc = MPI_Allreduce(&one, &sum, 1, MPI_INT, MPI_SUM, survivors)) != MPI_SUCCESS) die("no sum: %d", rc);
    if (sum != left || left >= size) die("a sum of %d over %d of %d", sum, left, size);
    printf("survivor %d of %d: ok\n", rank, left);
    fflush(stdout);
    MPI_Comm_free(&survivors);
    MPI_Finalize();
    return 0;
}
