// fence_bench [KEYS] [BYTES] [ROUNDS]: a PMI-1 client without MPI. Every round each rank puts KEYS (10) values of BYTES
// (450) bytes, enters the barrier, and gets and checks the values of every other rank. Rank 0 prints for each round
//   round R ranks N keys K bytes B put_us P fence_us F get_us G
// where F runs from a rank's entry into the barrier until it is let go. An empty barrier goes before the puts of a round,
// so that the measured one does not wait for ranks that are still starting or getting. It must not stand between puts
// and fence: it would carry the values, and the measured fence nothing.
#include <errno.h>

#include "common.h"

static int pmi_fd;
static char kvs_name[257], line[2048];

static void exchange(const char *wanted, const char *format, ...) {
    va_list args;
    va_start(args, format);
    int length = vsnprintf(line, sizeof line, format, args);
    va_end(args);
    if (length >= (int)sizeof line) die("message too long");
    for (int done = 0; done < length;) {
        ssize_t n = write(pmi_fd, line + done, (size_t)(length - done));
        if (n < 0 && errno != EINTR) die("write to the process manager: %s", strerror(errno));
        if (n > 0) done += (int)n;
    }
    size_t used = 0;
    do {
        ssize_t n = read(pmi_fd, line + used, sizeof line - 1 - used);
        if (n == 0) die("the process manager closed the connection before %s", wanted);
        if (n < 0 && errno != EINTR) die("read from the process manager: %s", strerror(errno));
        if (n > 0) used += (size_t)n;
        if (used == sizeof line - 1) die("answer too long");
    } while (used == 0 || line[used - 1] != '\n');
    line[used - 1] = 0;
    if (strncmp(line, "cmd=", 4) || strncmp(line + 4, wanted, strlen(wanted))) die("wanted %s, got: %s", wanted, line);
    const char *rc = strstr(line, "rc=");
    if (rc && atoi(rc + 3)) die("refused: %s", line);
}

static char letter(long rank, long key, long round) { return (char)('a' + (rank * 7 + key * 3 + round) % 26); }

static void put_all(long rank, long keys, long bytes, long round) {
    static char value[1024];
    for (long key = 0; key < keys; key++) {
        memset(value, letter(rank, key, round), (size_t)bytes);
        value[bytes] = 0;
        exchange("put_result", "cmd=put kvsname=%s key=r%ld-k%ld-n%ld value=%s\n", kvs_name, rank, key, round, value);
    }
}

static void get_all(long rank, long size, long keys, long bytes, long round) {
    for (long other = 0; other < size; other++)
        for (long key = 0; key < keys && other != rank; key++) {
            exchange("get_result", "cmd=get kvsname=%s key=r%ld-k%ld-n%ld\n", kvs_name, other, key, round);
            const char *value = strstr(line, "value=");
            if (!value) die("no value: %s", line);
            value += 6;
            char wanted = letter(other, key, round);
            if ((long)strspn(value, (char[]){wanted, 0}) < bytes) die("rank %ld key %ld: %s", other, key, value);
        }
}

int main(int argc, char **argv) {
    long keys = number_arg(argc, argv, 1, 10), bytes = number_arg(argc, argv, 2, 450);
    long rounds = number_arg(argc, argv, 3, 1);
    if (bytes < 1 || bytes > 1000) die("between 1 and 1000 bytes fit into a value");
    if (!getenv("PMI_FD") || !getenv("PMI_RANK") || !getenv("PMI_SIZE")) die("no PMI-1 process manager here");
    pmi_fd = atoi(getenv("PMI_FD"));
    long rank = atol(getenv("PMI_RANK")), size = atol(getenv("PMI_SIZE"));
    exchange("response_to_init", "cmd=init pmi_version=1 pmi_subversion=1\n");
    exchange("maxes", "cmd=get_maxes\n");
    exchange("my_kvsname", "cmd=get_my_kvsname\n");
    const char *name = strstr(line, "kvsname=");
    if (!name) die("no kvsname: %s", line);
    snprintf(kvs_name, sizeof kvs_name, "%.*s", (int)strcspn(name + 8, " "), name + 8);
    for (long round = 0; round < rounds; round++) {
        exchange("barrier_out", "cmd=barrier_in\n");
        double begun = now_seconds();
        put_all(rank, keys, bytes, round);
        double put = now_seconds();
        exchange("barrier_out", "cmd=barrier_in\n");
        double left = now_seconds();
        get_all(rank, size, keys, bytes, round);
        double got = now_seconds();
        if (rank == 0)
            printf("round %ld ranks %ld keys %ld bytes %ld put_us %.0f fence_us %.0f get_us %.0f\n", round, size, keys,
                   bytes, (put - begun) * 1e6, (left - put) * 1e6, (got - left) * 1e6);
    }
    exchange("finalize_ack", "cmd=finalize\n");
    return 0;
}
