// Leaving MPI without hanging in it, for programs of more than a few ranks.
#ifndef MUSTER_TEST_PART_H
#define MUSTER_TEST_PART_H

#include <mpi.h>

#include "common.h"

// Ends MPI one rank after the other, a few milliseconds apart. UCX 1.13 below MPICH 4.0 may wait for ever in MPI_Finalize,
// under any launcher, when a peer closes a connection while this rank is still flushing it; so nobody closes while others
// flush, and those whose turn has not come keep the library going.
__attribute__((unused)) static void part_one_by_one(void) {
    int rank, waiting;
    MPI_Comm_rank(MPI_COMM_WORLD, &rank);
    MPI_Barrier(MPI_COMM_WORLD);
    for (double turn = now_seconds() + 0.004 * (rank + 1); now_seconds() < turn; usleep(500))
        MPI_Iprobe(MPI_ANY_SOURCE, MPI_ANY_TAG, MPI_COMM_WORLD, &waiting, MPI_STATUS_IGNORE);
    MPI_Finalize();
}

#endif
