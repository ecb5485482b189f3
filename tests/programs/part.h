// Meeting before the work, so that leaving does not hang, for programs of more than a few ranks.
#ifndef MUSTER_TEST_PART_H
#define MUSTER_TEST_PART_H

#include <mpi.h>

#include "common.h"

// To be called first after MPI_Init: every two ranks exchange a message, the lower one first. Where two ranks connect to each
// other at the same time, UCX 1.13 below MPICH 4.0 keeps two connections, and may wait in MPI_Finalize for ever, under any
// launcher, when the peer has closed one of them already.
__attribute__((unused)) static void meet_everybody(void) {
    int rank, size, other;
    MPI_Comm_rank(MPI_COMM_WORLD, &rank);
    MPI_Comm_size(MPI_COMM_WORLD, &size);
    for (int i = 0; i < size; i++) {
        if (i > rank) MPI_Send(&rank, 1, MPI_INT, i, 4711, MPI_COMM_WORLD);
        if (i != rank) MPI_Recv(&other, 1, MPI_INT, i, 4711, MPI_COMM_WORLD, MPI_STATUS_IGNORE);
        if (i < rank) MPI_Send(&rank, 1, MPI_INT, i, 4711, MPI_COMM_WORLD);
        if (i != rank && other != i) die("rank %d met %d in place of %d", rank, other, i);
    }
}

#endif
