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

static int put_number(char *to, long number) {
    char digits[24];
    int length = 0;
    do digits[length++] = (char)('0' + number % 10);
    while (number /= 10);
    for (int i = 0; i < length; i++) to[i] = digits[length - 1 - i];
    return length;
}

int main(int argc, char **argv) {
    long total = number_arg(argc, argv, 1, 0), chunk = number_arg(argc, argv, 3, 65536), rank = launcher_rank();
    int fd = argc > 2 && !strcmp(argv[2], "err") ? 2 : 1;
    if (total < 0 || chunk < 1) die("usage: writer BYTES [out|err] [WRITE_SIZE]");
    // The alphabet over and over: the filling of any line is a part of it, so that making lines costs next to nothing.
    static char alphabet[LINE + 26];
    for (int i = 0; i < LINE + 26; i++) alphabet[i] = (char)('A' + i % 26);
    char prefix[32];
    int prefix_length = snprintf(prefix, sizeof prefix, "%ld ", rank);
    size_t capacity = (size_t)chunk + LINE, used = 0;
    char *buffer = malloc(capacity);
    long made = 0;
    for (long number = 0; made < total; number++) {
        char *line = buffer + used;
        memcpy(line, prefix, (size_t)prefix_length);
        int head = prefix_length + put_number(line + prefix_length, number);
        line[head++] = ' ';
        memcpy(line + head, alphabet + (number + head) % 26, (size_t)(LINE - 1 - head));
        line[LINE - 1] = '\n';
        long length = total - made < LINE ? total - made : LINE;
        made += length;
        used += (size_t)length;
        size_t done = 0;
        for (; used - done >= (size_t)chunk; done += (size_t)chunk) write_all(fd, buffer + done, (size_t)chunk);
        if (done > 0) {
            memmove(buffer, buffer + done, used - done);
            used -= done;
        }
    }
    write_all(fd, buffer, used);
    free(buffer);
    return 0;
}
