// sessions_sum: no MPI_Init: a session, a communicator made of a group of all ranks, and a checked sum over it. For Open MPI 5.
// Rank 0 prints "sessions of N ranks: ok".
#include <mpi.h>
#include <mpi-ext.h>

#include "common.h"

int main(void) {
    MPI_Session session;
    MPI_Group group;
    MPI_Comm all;
    if (MPI_Session_init(MPI_INFO_NULL, MPI_ERRORS_RETURN, &session) != MPI_SUCCESS) die("no session");
    if (MPI_Group_from_session_pset(session, "mpi://WORLD", &group) != MPI_SUCCESS) die("no group");
    if (MPI_Comm_create_from_group(group, "sum", MPI_INFO_NULL, MPI_ERRORS_RETURN, &all) != MPI_SUCCESS) die("no communicator");
    MPI_Group_free(&group);
    int rank, size, one = 1, sum = 0;
    MPI_Comm_rank(all, &rank);
    MPI_Comm_size(all, &size);
    MPI_Allreduce(&one, &sum, 1, MPI_INT, MPI_SUM, all);
    if (sum != size) die("a sum of %d, not %d", sum, size);
    MPI_Barrier(all);
    if (rank == 0) printf("sessions of %d ranks: ok\n", size);
    MPI_Comm_free(&all);
    MPI_Session_finalize(&session);
    return 0;
}
