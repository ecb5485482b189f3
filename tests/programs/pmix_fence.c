// pmix_fence [BYTES] [ROUNDS]: a PMIx client without MPI. In each of ROUNDS (1) rounds every rank puts BYTES (200)
// other bytes, waits in a fence without data for the others, and enters one that hands everybody's bytes to every host; in the end
// it gets and checks the last bytes of every rank. Rank 0 prints for each round
//   round R ranks N bytes B fence_us F
// how long the fence with data took, from its entry until it was let go.
#include <pmix.h>

#include "common.h"

static pmix_proc_t me, everybody;

static void must(pmix_status_t status, const char *what) {
    if (status != PMIX_SUCCESS) die("%s: %s", what, PMIx_Error_string(status));
}

static char letter(pmix_rank_t rank, long round) { return (char)('a' + (rank * 7 + (unsigned)round) % 26); }

static pmix_rank_t job_size(void) {
    pmix_value_t *value;
    must(PMIx_Get(&everybody, PMIX_JOB_SIZE, NULL, 0, &value), "the job's size");
    pmix_rank_t size = value->data.uint32;
    PMIX_VALUE_RELEASE(value);
    return size;
}

static void put(char *bytes, size_t count, long round) {
    memset(bytes, letter(me.rank, round), count);
    pmix_value_t value;
    PMIX_VALUE_CONSTRUCT(&value);
    value.type = PMIX_BYTE_OBJECT;
    value.data.bo.bytes = bytes;
    value.data.bo.size = count;
    must(PMIx_Put(PMIX_GLOBAL, "bytes", &value), "put");
    must(PMIx_Commit(), "commit");
}

static void check(pmix_rank_t rank, size_t count, long round) {
    pmix_proc_t other;
    pmix_value_t *value;
    PMIX_LOAD_PROCID(&other, me.nspace, rank);
    must(PMIx_Get(&other, "bytes", NULL, 0, &value), "get");
    if (value->type != PMIX_BYTE_OBJECT || value->data.bo.size != count) die("rank %u has put something else", rank);
    for (size_t i = 0; i < count; i++)
        if (value->data.bo.bytes[i] != letter(rank, round)) die("byte %zu of rank %u is wrong", i, rank);
    PMIX_VALUE_RELEASE(value);
}

int main(int argc, char **argv) {
    long bytes = number_arg(argc, argv, 1, 200), rounds = number_arg(argc, argv, 2, 1);
    if (bytes < 1 || bytes > 1 << 20) die("between 1 and 1048576 bytes can be put");
    must(PMIx_Init(&me, NULL, 0), "init");
    PMIX_LOAD_PROCID(&everybody, me.nspace, PMIX_RANK_WILDCARD);
    pmix_rank_t size = job_size();
    char *mine = malloc((size_t)bytes);
    bool yes = true;
    pmix_info_t collect;
    PMIX_INFO_CONSTRUCT(&collect);
    PMIX_INFO_LOAD(&collect, PMIX_COLLECT_DATA, &yes, PMIX_BOOL);
    for (long round = 0; round < rounds; round++) {
        put(mine, (size_t)bytes, round);
        must(PMIx_Fence(&everybody, 1, NULL, 0), "fence without data");
        double begun = now_seconds();
        must(PMIx_Fence(&everybody, 1, &collect, 1), "fence");
        if (me.rank == 0)
            printf("round %ld ranks %u bytes %ld fence_us %.0f\n", round, size, bytes, (now_seconds() - begun) * 1e6);
    }
    for (pmix_rank_t rank = 0; rank < size; rank++) check(rank, (size_t)bytes, rounds - 1);
    // PRRTE forgets what a rank has put when that rank has ended, and whoever asks for it later waits for ever.
    must(PMIx_Fence(&everybody, 1, NULL, 0), "last fence");
    free(mine);
    must(PMIx_Finalize(NULL, 0), "finalize");
    return 0;
}
