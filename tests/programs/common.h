// Small things the test programs share.
#ifndef MUSTER_TEST_COMMON_H
#define MUSTER_TEST_COMMON_H

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

// Ends the program with status 3 and a message: 3 means that a check of the test program itself failed.
__attribute__((noreturn, format(printf, 1, 2), unused)) static void die(const char *format, ...) {
    va_list args;
    va_start(args, format);
    fprintf(stderr, "check failed: ");
    vfprintf(stderr, format, args);
    fprintf(stderr, "\n");
    va_end(args);
    exit(3);
}

// A whole number from the command line, or a default when the argument is absent.
__attribute__((unused)) static long number_arg(int argc, char **argv, int index, long otherwise) {
    if (index >= argc) return otherwise;
    char *end;
    long value = strtol(argv[index], &end, 10);
    if (end == argv[index] || *end) die("not a number: %s", argv[index]);
    return value;
}

// The rank as the launcher tells it, for programs that do not speak MPI; 0 when nobody tells.
__attribute__((unused)) static long launcher_rank(void) {
    const char *names[] = {"MUSTER_RANK", "PMI_RANK", NULL};
    for (int i = 0; names[i]; i++) {
        const char *value = getenv(names[i]);
        if (value) return atol(value);
    }
    return 0;
}

#if defined(MPICH_NUMVERSION) && MPICH_NUMVERSION < 40100000
// MPICH 4.0 closes its UCX connections in MPI_Finalize, and waits for ever, under any launcher, where a peer has closed its own
// ones and so answers no more; on two cores that is the rule. UCX's function is replaced by one that says "closed": the
// connections end with the process.
__attribute__((visibility("default"))) void *ucp_disconnect_nb(void *endpoint);
void *ucp_disconnect_nb(void *endpoint) {
    (void)endpoint;
    return NULL;
}
#endif

__attribute__((unused)) static double now_seconds(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + (double)t.tv_nsec * 1e-9;
}

#endif
