// namepub: rank 0 publishes a name, every other rank looks it up; after it is unpublished the lookup fails.
// The port is any text: whether the MPI can open ports is another question. Rank 0 prints "name publishing: ok".
#include <mpi.h>

#include "common.h"

static const char *PORT = "tag#0$description#somewhere$port#12345$";

int main(int argc, char **argv) {
    MPI_Init(&argc, &argv);
    MPI_Comm_set_errhandler(MPI_COMM_WORLD, MPI_ERRORS_RETURN);
    MPI_Comm_set_errhandler(MPI_COMM_SELF, MPI_ERRORS_RETURN);
    int rank;
    char found[MPI_MAX_PORT_NAME] = "";
    MPI_Comm_rank(MPI_COMM_WORLD, &rank);
    if (MPI_Lookup_name("muster-test-early", MPI_INFO_NULL, found) == MPI_SUCCESS) die("found what nobody published");
    if (rank == 0 && MPI_Publish_name("muster-test", MPI_INFO_NULL, PORT) != MPI_SUCCESS) die("cannot publish");
    MPI_Barrier(MPI_COMM_WORLD);
    if (MPI_Lookup_name("muster-test", MPI_INFO_NULL, found) != MPI_SUCCESS) die("rank %d finds no name", rank);
    if (strcmp(found, PORT)) die("rank %d found %s", rank, found);
    MPI_Barrier(MPI_COMM_WORLD);
    if (rank == 0 && MPI_Unpublish_name("muster-test", MPI_INFO_NULL, PORT) != MPI_SUCCESS) die("cannot unpublish");
    MPI_Barrier(MPI_COMM_WORLD);
    if (MPI_Lookup_name("muster-test", MPI_INFO_NULL, found) == MPI_SUCCESS) die("rank %d finds the dead name", rank);
    if (rank == 0) printf("name publishing: ok\n");
    MPI_Finalize();
    return 0;
}
