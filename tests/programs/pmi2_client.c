// pmi2_client [abort]: everything that a PMI-2 client asks for, by Slurm's library instead of an MPI's own client. Each rank
// prints "rank R of N: ok"; with "abort" rank 1 ends the job by PMI2_Abort while the others wait in a fence.
#include <slurm/pmi2.h>

#include "common.h"

// The value of a key, longer than most and with what PMI-2 uses to separate fields.
static const char *card(int rank, int round, char *text, size_t size) {
    snprintf(text, size, "round %d; rank %d = 1;;2, %0400d", round, rank, rank);
    return text;
}

static void fence(void) {
    if (PMI2_KVS_Fence() != PMI2_SUCCESS) die("fence failed");
}

// Every rank puts a key, and after the fence everybody finds all of them, whoever's it is.
static void exchange(const char *job, int rank, int size, int round) {
    char key[64], wanted[512], found[1024];
    snprintf(key, sizeof key, "card-%d-%d", round, rank);
    if (PMI2_KVS_Put(key, card(rank, round, wanted, sizeof wanted)) != PMI2_SUCCESS) die("rank %d cannot put", rank);
    fence();
    for (int from = 0; from < size; from++) {
        int length = 0;
        snprintf(key, sizeof key, "card-%d-%d", round, from);
        // With the job's name and without, with a hint whose key it is and without.
        int rc = PMI2_KVS_Get(from % 2 ? job : NULL, from % 2 ? from : PMI2_ID_NULL, key, found, sizeof found, &length);
        if (rc != PMI2_SUCCESS) die("rank %d cannot get %s", rank, key);
        if (strcmp(found, card(from, round, wanted, sizeof wanted))) die("rank %d: %s is %s", rank, key, found);
        if (length != (int)strlen(wanted)) die("rank %d: %s has length %d", rank, key, length);
    }
    if (PMI2_KVS_Get(job, PMI2_ID_NULL, "nobody's", found, sizeof found, &(int){0}) == PMI2_SUCCESS)
        die("rank %d finds what nobody put: %s", rank, found);
}

// Of the job, which the process manager sets, and of the node, which its ranks set for each other.
static void attributes(int rank) {
    char value[1024] = "";
    int found = 0;
    if (PMI2_Info_GetJobAttr("PMI_process_mapping", value, sizeof value, &found) != PMI2_SUCCESS || !found)
        die("rank %d: no process mapping", rank);
    if (strcmp(value, "(vector,(0,2,2))")) die("rank %d: the process mapping is %s", rank, value);
    found = 1;
    if (PMI2_Info_GetJobAttr("no-such-attribute", value, sizeof value, &found) != PMI2_SUCCESS || found)
        die("rank %d: an attribute that there is not", rank);

    const char *host = getenv("MUSTER_HOST"), *local = getenv("MUSTER_LOCAL_RANK");
    if (!host || !local) die("rank %d: not started by muster", rank);
    // Set by the node's second rank; the first one waits for it without a fence.
    if (atoi(local) == 1 && PMI2_Info_PutNodeAttr("segment", host) != PMI2_SUCCESS) die("rank %d: cannot set", rank);
    if (PMI2_Info_GetNodeAttr("segment", value, sizeof value, &found, 1) != PMI2_SUCCESS || !found || strcmp(value, host))
        die("rank %d: the node's attribute is %s", rank, value);
    found = 1;
    if (PMI2_Info_GetNodeAttr("no-such-attribute", value, sizeof value, &found, 0) != PMI2_SUCCESS || found)
        die("rank %d: an attribute that the node has not", rank);
}

static void names(int rank) {
    const char *port = "tcp://somewhere;12345 tag=0";
    char found[1024] = "";
    if (PMI2_Nameserv_lookup("service", NULL, found, sizeof found) == PMI2_SUCCESS) die("found what nobody published");
    fence();
    if (rank == 0 && PMI2_Nameserv_publish("service", NULL, port) != PMI2_SUCCESS) die("cannot publish");
    fence();
    if (PMI2_Nameserv_lookup("service", NULL, found, sizeof found) != PMI2_SUCCESS) die("rank %d finds no name", rank);
    if (strcmp(found, port)) die("rank %d: the port is %s", rank, found);
    fence();
    if (rank == 3 && PMI2_Nameserv_unpublish("service", NULL) != PMI2_SUCCESS) die("cannot unpublish");
    fence();
    if (PMI2_Nameserv_lookup("service", NULL, found, sizeof found) == PMI2_SUCCESS) die("the name is still there");
}

int main(int argc, char **argv) {
    int spawned = -1, size = -1, rank = -1, program = -1;
    if (PMI2_Init(&spawned, &size, &rank, &program) != PMI2_SUCCESS) die("PMI2_Init failed");
    if (spawned || program || rank != launcher_rank()) die("spawned %d, program %d, rank %d", spawned, program, rank);
    if (!PMI2_Initialized()) die("rank %d is not initialised", rank);
    char job[256] = "";
    if (PMI2_Job_GetId(job, sizeof job) != PMI2_SUCCESS || !*job) die("rank %d: no job id", rank);
    if (argc > 1 && !strcmp(argv[1], "abort")) {
        if (rank == 1) PMI2_Abort(1, "rank 1 has had enough");
        fence();
        die("rank %d has passed a fence that rank 1 never came to", rank);
    }
    for (int round = 0; round < 3; round++) exchange(job, rank, size, round);
    attributes(rank);
    names(rank);
    if (PMI2_Finalize() != PMI2_SUCCESS) die("rank %d: PMI2_Finalize failed", rank);
    printf("rank %d of %d: ok\n", rank, size);
    return 0;
}
