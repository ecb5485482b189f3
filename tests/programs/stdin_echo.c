// stdin_echo [copy]: reads standard input to its end and prints "rank R read N bytes hash H" (FNV-1a, 64 bits). With
// "copy" the bytes themselves go to standard output and the line goes to standard error.
#include <errno.h>
#include <stdint.h>

#include "common.h"

int main(int argc, char **argv) {
    int copy = argc > 1 && !strcmp(argv[1], "copy");
    uint64_t hash = 0xcbf29ce484222325u;
    long total = 0;
    static char buffer[65536];
    for (;;) {
        ssize_t n = read(0, buffer, sizeof buffer);
        if (n < 0 && errno == EINTR) continue;
        if (n < 0) die("read: %s", strerror(errno));
        if (n == 0) break;
        for (ssize_t i = 0; i < n; i++) hash = (hash ^ (unsigned char)buffer[i]) * 0x100000001b3u;
        total += n;
        if (copy && fwrite(buffer, 1, (size_t)n, stdout) != (size_t)n) die("write: %s", strerror(errno));
    }
    fprintf(copy ? stderr : stdout, "rank %ld read %ld bytes hash %016llx\n", launcher_rank(), total,
            (unsigned long long)hash);
    return fflush(stdout) ? 3 : 0;
}
