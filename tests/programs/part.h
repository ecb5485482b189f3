// Leaving MPI without hanging in it, for programs of more than a few ranks.
#ifndef MUSTER_TEST_PART_H
#define MUSTER_TEST_PART_H

#include <mpi.h>

#include "common.h"

// Lets every rank exchange a message with every other one. UCX 1.13 below MPICH 4.0 may wait for ever in MPI_Finalize, under
// any launcher, for a connection to a peer that is no longer listening; so all connections are made before. No collective
// operation would do: they save messages.
__attribute__((unused)) static void meet_everybody(void) {
    int rank, size;
    MPI_Comm_rank(MPI_COMM_WORLD, &rank);
    MPI_Comm_size(MPI_COMM_WORLD, &size);
    MPI_Request *requests = malloc(2 * (size_t)size * sizeof *requests);
    int *from = malloc((size_t)size * sizeof *from);
    for (int i = 0; i < size; i++) {
        MPI_Irecv(from + i, 1, MPI_INT, i, 4711, MPI_COMM_WORLD, requests + i);
        MPI_Isend(&rank, 1, MPI_INT, i, 4711, MPI_COMM_WORLD, requests + size + i);
    }
    MPI_Waitall(2 * size, requests, MPI_STATUSES_IGNORE);
    for (int i = 0; i < size; i++)
        if (from[i] != i) die("rank %d met %d in place of %d", rank, from[i], i);
    free(from);
    free(requests);
    MPI_Barrier(MPI_COMM_WORLD);
}

#endif
