// spawn_parent CHILD [N] [multiple]: all ranks together spawn N ranks (2 otherwise) of CHILD, add up over both groups,
// and disconnect. With "multiple" the N ranks come as two commands. SPAWN_HOST and SPAWN_WDIR, where they are set, are
// the info keys "host" and "wdir" of the request. Rank 0 prints "spawned N: ok". SPAWN_ROUNDS, where it is set, is how
// often all of this is done, and SPAWN_GATE a file that rank 0 waits for before it ends, and before it disconnects if
// CHILD_STAYS is set.
#include <mpi.h>

#include "common.h"

static MPI_Info request_info(void) {
    const char *keys[] = {"host", "wdir"}, *values[] = {getenv("SPAWN_HOST"), getenv("SPAWN_WDIR")};
    if (!values[0] && !values[1]) return MPI_INFO_NULL;
    MPI_Info info;
    MPI_Info_create(&info);
    for (int i = 0; i < 2; i++)
        if (values[i]) MPI_Info_set(info, keys[i], values[i]);
    return info;
}

static MPI_Comm spawn(char *child, int n, int multiple) {
    MPI_Comm children;
    int codes[n];
    char *args[] = {"one", "two words", NULL};
    MPI_Info info = request_info();
    if (!multiple) {
        MPI_Comm_spawn(child, args, n, info, 0, MPI_COMM_WORLD, &children, codes);
    } else {
        char *commands[] = {child, child};
        char **argvs[] = {args, args};
        int counts[] = {1, n - 1};
        MPI_Info infos[] = {info, info};
        MPI_Comm_spawn_multiple(2, commands, argvs, counts, infos, 0, MPI_COMM_WORLD, &children, codes);
    }
    if (info != MPI_INFO_NULL) MPI_Info_free(&info);
    for (int i = 0; i < n; i++)
        if (codes[i] != MPI_SUCCESS) die("child %d: error code %d", i, codes[i]);
    return children;
}

static void wait_for_gate(void) {
    const char *gate = getenv("SPAWN_GATE");
    while (gate && access(gate, F_OK)) usleep(20000);
}

static void add_up(char *child, int n, int multiple) {
    int rank, size, children_size;
    MPI_Comm_rank(MPI_COMM_WORLD, &rank);
    MPI_Comm_size(MPI_COMM_WORLD, &size);
    MPI_Comm children = spawn(child, n, multiple), all;
    MPI_Comm_remote_size(children, &children_size);
    if (children_size != n) die("%d children, not %d", children_size, n);
    MPI_Intercomm_merge(children, 0, &all);
    int one = 1, sum = 0;
    MPI_Allreduce(&one, &sum, 1, MPI_INT, MPI_SUM, all);
    if (sum != size + n) die("%d ranks in the merged group, not %d", sum, size + n);
    MPI_Comm_free(&all);
    if (getenv("CHILD_STAYS") && rank == 0) wait_for_gate();
    MPI_Comm_disconnect(&children);
    if (rank == 0) printf("spawned %d: ok\n", n);
}

int main(int argc, char **argv) {
    MPI_Init(&argc, &argv);
    if (argc < 2) die("usage: spawn_parent CHILD [N] [multiple]");
    int rank, n = (int)number_arg(argc, argv, 2, 2);
    int multiple = argc > 3 && !strcmp(argv[3], "multiple");
    if (n < 1 + multiple) die("too few children: %d", n);
    MPI_Comm_rank(MPI_COMM_WORLD, &rank);
    const char *rounds = getenv("SPAWN_ROUNDS");
    for (int left = rounds ? atoi(rounds) : 1; left > 0; left--) add_up(argv[1], n, multiple);
    if (rank == 0 && rounds) printf("%s rounds are over\n", rounds);
    fflush(stdout);
    if (rank == 0) wait_for_gate();
    MPI_Finalize();
    return 0;
}
