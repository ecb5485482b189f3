// writer BYTES [out|err] [WRITE_SIZE]: writes BYTES bytes as lines of 128 (the last one may be shorter), newline
// included, WRITE_SIZE (65536) bytes at a time. A line is "<rank> <number of the line> <filling>", so that a reader can
// tell whether a line is missing, doubled, torn or another rank's.
#include <errno.h>

#include "common.h"

enum { LINE = 128 };

static void write_all(int fd, const char *bytes, size_t count) {
    while (count > 0) {
        ssize_t n = write(fd, bytes, count);
        if (n < 0 && errno == EINTR) continue;
        if (n < 0) exit(errno == EPIPE ? 4 : 3);
        bytes += n;
        count -= (size_t)n;
    }
}

int main(int argc, char **argv) {
    long total = number_arg(argc, argv, 1, 0), chunk = number_arg(argc, argv, 3, 65536), rank = launcher_rank();
    int fd = argc > 2 && !strcmp(argv[2], "err") ? 2 : 1;
    if (total < 0 || chunk < 1) die("usage: writer BYTES [out|err] [WRITE_SIZE]");
    size_t capacity = (size_t)chunk + LINE, used = 0;
    char *buffer = malloc(capacity);
    long made = 0;
    for (long number = 0; made < total; number++) {
        char *line = buffer + used;
        int head = snprintf(line, LINE, "%ld %ld ", rank, number);
        for (int i = head; i < LINE - 1; i++) line[i] = (char)('A' + (number + i) % 26);
        line[LINE - 1] = '\n';
        long length = total - made < LINE ? total - made : LINE;
        made += length;
        used += (size_t)length;
        size_t done = 0;
        for (; used - done >= (size_t)chunk; done += (size_t)chunk) write_all(fd, buffer + done, (size_t)chunk);
        memmove(buffer, buffer + done, used - done);
        used -= done;
    }
    write_all(fd, buffer, used);
    free(buffer);
    return 0;
}
