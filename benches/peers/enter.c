// enter [OPTION…] HOST COMMAND [ARGUMENT…]: stands where hydra wants a remote shell, and only enters HOST's namespaces.
// There is no network, no key and no shell in it, so it is the least that any remote shell could cost.
// BENCH_HOST_PIDS names a file with one "HOST PID" on each line: the first process of each host.
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

__attribute__((noreturn)) static void die(const char *what) {
    fprintf(stderr, "enter: %s: %s\n", what, strerror(errno));
    exit(255);
}

static int pid_of(const char *host) {
    const char *table = getenv("BENCH_HOST_PIDS");
    FILE *file = table ? fopen(table, "r") : NULL;
    if (!file) die("BENCH_HOST_PIDS");
    char name[256];
    int pid;
    while (fscanf(file, "%255s %d", name, &pid) == 2)
        if (!strcmp(name, host)) {
            fclose(file);
            return pid;
        }
    errno = ENOENT;
    die(host);
}

static void enter(int pid) {
    const char *kinds[] = {"net", "uts", "ipc", "pid", "mnt"};
    enum { KINDS = sizeof kinds / sizeof *kinds };
    int fds[KINDS];
    for (int i = 0; i < KINDS; i++) {
        char path[64];
        snprintf(path, sizeof path, "/proc/%d/ns/%s", pid, kinds[i]);
        fds[i] = open(path, O_RDONLY | O_CLOEXEC);
        if (fds[i] < 0) die(path);
    }
    for (int i = 0; i < KINDS; i++)
        if (setns(fds[i], 0)) die(kinds[i]);
}

// Open MPI sends lines that set variables first, and words that begin with blanks.
static int needs_shell(char **words) {
    for (; *words; words++)
        if (strpbrk(*words, ";$&|<>()` ")) return 1;
    return 0;
}

static char *joined(char **words) {
    size_t length = 1;
    for (char **word = words; *word; word++) length += strlen(*word) + 1;
    char *line = calloc(1, length);
    for (char **word = words; *word; word++) {
        strcat(line, *word);
        strcat(line, " ");
    }
    return line;
}

int main(int argc, char **argv) {
    int at = 1;
    while (at < argc && argv[at][0] == '-') at++;
    if (at + 1 >= argc) {
        errno = EINVAL;
        die("usage: enter [OPTION...] HOST COMMAND [ARGUMENT...]");
    }
    enter(pid_of(argv[at]));
    char **command = argv + at + 1;
    char *shell[] = {"/bin/sh", "-c", NULL, NULL};
    if (needs_shell(command)) {
        shell[2] = joined(command);
        command = shell;
    } else {
        // Hydra quotes some words for the shell that would read them at the other end.
        for (char **word = command; *word; word++) {
            size_t length = strlen(*word);
            if (length >= 2 && (*word)[0] == '"' && (*word)[length - 1] == '"') {
                (*word)[length - 1] = 0;
                (*word)++;
            }
        }
    }
    pid_t child = fork(); // The process namespace holds for children only.
    if (child < 0) die("fork");
    if (child == 0) {
        prctl(PR_SET_PDEATHSIG, SIGKILL);
        execvp(command[0], command);
        die(command[0]);
    }
    int status;
    while (waitpid(child, &status, 0) < 0 && errno == EINTR) {}
    return WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
}
