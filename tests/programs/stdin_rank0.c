// stdin_rank0: rank 0 reads standard input to its end and tells the others how much it was. All agree, and rank 0 prints
// "rank 0 of N read B bytes hash H" (FNV-1a, 64 bits). The others do not touch theirs, which differs between launchers.
#include <errno.h>
#include <mpi.h>
#include <stdint.h>

#include "common.h"

int main(int argc, char **argv) {
    MPI_Init(&argc, &argv);
    int rank, size;
    MPI_Comm_rank(MPI_COMM_WORLD, &rank);
    MPI_Comm_size(MPI_COMM_WORLD, &size);
    uint64_t hash = 0xcbf29ce484222325u;
    long total = 0;
    static char buffer[65536];
    while (rank == 0) {
        ssize_t n = read(0, buffer, sizeof buffer);
        if (n < 0 && errno == EINTR) continue;
        if (n <= 0) break;
        for (ssize_t i = 0; i < n; i++) hash = (hash ^ (uint8_t)buffer[i]) * 0x100000001b3u;
        total += n;
    }
    long seen = total;
    MPI_Bcast(&seen, 1, MPI_LONG, 0, MPI_COMM_WORLD);
    if (rank == 0) printf("rank 0 of %d read %ld bytes hash %016llx\n", size, seen, (unsigned long long)hash);
    fflush(stdout);
    MPI_Finalize();
    return 0;
}
