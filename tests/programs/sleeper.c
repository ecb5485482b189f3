// sleeper [CODE]: ignores SIGTERM, SIGINT and SIGHUP and sleeps for ever; with CODE it ends with it on SIGTERM instead.
// Prints "rank R ready" when signals are as said, and "rank R got signal S" for SIGUSR1, SIGUSR2 and SIGCONT.
#include <errno.h>
#include <signal.h>

#include "common.h"

int main(int argc, char **argv) {
    long code = number_arg(argc, argv, 1, -1);
    sigset_t watched;
    sigemptyset(&watched);
    int signals[] = {SIGTERM, SIGINT, SIGHUP, SIGUSR1, SIGUSR2, SIGCONT};
    for (size_t i = 0; i < sizeof signals / sizeof *signals; i++) sigaddset(&watched, signals[i]);
    sigprocmask(SIG_BLOCK, &watched, NULL);
    printf("rank %ld ready\n", launcher_rank());
    fflush(stdout);
    for (;;) {
        int got = sigwaitinfo(&watched, NULL);
        if (got < 0) {
            if (errno == EINTR) continue;
            die("sigwaitinfo: %s", strerror(errno));
        }
        if (got == SIGTERM && code >= 0) return (int)code;
        if (got == SIGUSR1 || got == SIGUSR2 || got == SIGCONT) {
            printf("rank %ld got signal %d\n", launcher_rank(), got);
            fflush(stdout);
        }
    }
}
