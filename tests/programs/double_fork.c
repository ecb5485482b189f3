// double_fork [stay|leave]: leaves a daemon behind: forked twice, in a session of its own, ignoring SIGTERM, its streams
// closed. The program itself then waits for SIGTERM (stay, the default) or ends with 0 (leave).
// Prints "daemon PID" once the daemon is on its own.
#include <fcntl.h>
#include <signal.h>
#include <sys/wait.h>

#include "common.h"

static void become_daemon(int ready) {
    if (setsid() < 0) die("setsid");
    pid_t second = fork();
    if (second < 0) die("second fork");
    if (second > 0) _exit(0);
    signal(SIGTERM, SIG_IGN);
    signal(SIGHUP, SIG_IGN);
    pid_t me = getpid();
    if (write(ready, &me, sizeof me) != sizeof me) _exit(3);
    int null = open("/dev/null", O_RDWR);
    for (int fd = 0; fd < 3; fd++) dup2(null, fd);
    close(ready);
    for (;;) pause();
}

int main(int argc, char **argv) {
    int ready[2];
    if (pipe(ready)) die("pipe");
    pid_t first = fork();
    if (first < 0) die("first fork");
    if (first == 0) become_daemon(ready[1]);
    pid_t daemon_pid;
    if (read(ready[0], &daemon_pid, sizeof daemon_pid) != sizeof daemon_pid) die("the daemon did not come up");
    waitpid(first, NULL, 0);
    printf("daemon %d\n", (int)daemon_pid);
    fflush(stdout);
    if (argc > 1 && !strcmp(argv[1], "leave")) return 0;
    for (;;) pause();
}
