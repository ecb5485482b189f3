// placement: rank 0 prints one line for each rank, in order: "rank R of N on HOST, local L of M, program A". Local ranks and
// their number are those of MPI_Comm_split_type, that is, of the ranks that the MPI believes to share memory.
#include <mpi.h>

#include "common.h"

enum { LINE = 512 };

int main(int argc, char **argv) {
    MPI_Init(&argc, &argv);
    int rank, size, length, local, locals, found, *program;
    char host[MPI_MAX_PROCESSOR_NAME], line[LINE] = "";
    MPI_Comm near;
    MPI_Comm_rank(MPI_COMM_WORLD, &rank);
    MPI_Comm_size(MPI_COMM_WORLD, &size);
    MPI_Get_processor_name(host, &length);
    MPI_Comm_split_type(MPI_COMM_WORLD, MPI_COMM_TYPE_SHARED, 0, MPI_INFO_NULL, &near);
    MPI_Comm_rank(near, &local);
    MPI_Comm_size(near, &locals);
    MPI_Comm_get_attr(MPI_COMM_WORLD, MPI_APPNUM, &program, &found);
    snprintf(line, LINE, "rank %d of %d on %s, local %d of %d, program %d", rank, size, host, local, locals,
             found ? *program : -1);
    char *all = rank == 0 ? malloc((size_t)size * LINE) : NULL;
    MPI_Gather(line, LINE, MPI_CHAR, all, LINE, MPI_CHAR, 0, MPI_COMM_WORLD);
    for (int i = 0; rank == 0 && i < size; i++) puts(all + (size_t)i * LINE);
    free(all);
    MPI_Comm_free(&near);
    MPI_Finalize();
    return 0;
}
