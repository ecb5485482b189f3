/* A library that says what it is told and fails as it is told; see fake.rs. */
#include <poll.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

typedef void (*op_done)(int, void *);
struct info { char key[512]; unsigned flags; __attribute__((aligned(8))) unsigned short kind; char *first; size_t size, more; };
_Static_assert(sizeof(struct info) == 552, "as in every release");

struct proc { char name[256]; unsigned rank; };
typedef void (*log_upcall)(struct proc *, struct info *, size_t, struct info *, size_t, op_done, void *);
static log_upcall say;

/* A library that is late: it reads what a rank has said some time after the rank has hung up, and hands it on. */
static void *read_late(void *socket)
{
    int fd = (int)(long)socket;
    char words[256] = "";
    struct pollfd ended = {fd, POLLRDHUP, 0};
    poll(&ended, 1, -1);
    usleep(300000);
    while (read(fd, words + strlen(words), sizeof words - 1 - strlen(words)) > 0);
    struct proc proc = {"late", 0};
    struct info info = {"pmix.log.stderr", 0, 3, words, 0, 0};
    say(&proc, &info, 1, NULL, 0, NULL, NULL);
    close(fd);
    return NULL;
}

static void listen_late(const char *path)
{
    struct sockaddr_un to = {AF_UNIX, ""};
    strncpy(to.sun_path, path, sizeof to.sun_path - 1);
    long fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    pthread_t thread;
    if (connect(fd, (struct sockaddr *)&to, sizeof to) || pthread_create(&thread, NULL, read_late, (void *)fd)) abort();
}

const char *PMIx_Get_version(void) { return "OpenPMIx " VERSION; }
const char *PMIx_Error_string(int status) { return "FAKE"; }
int PMIx_server_init(void *table, struct info *infos, size_t length)
{
    if (getenv("FAKE_HANGS")) pause();
    say = ((log_upcall *)table)[17];
    if (getenv("FAKE_RANK")) listen_late(getenv("FAKE_RANK"));
    return 0;
}
int PMIx_server_finalize(void) { return 0; }
int PMIx_generate_regex(const char *list, char **map) { return asprintf(map, "pmix[%s]", list) < 0; }
int PMIx_generate_ppn(const char *list, char **map) { return asprintf(map, "pmix[%s]", list) < 0; }
int PMIx_server_register_nspace(const char *name, int local, struct info *infos, size_t length, op_done done, void *mark)
{
    FILE *log = fopen(getenv("FAKE_LOG"), "a");
    for (size_t i = 0; i < length; i++)
        if (!strcmp(infos[i].key, "pmix.nmap") || !strcmp(infos[i].key, "pmix.pmap"))
            fprintf(log, "%s=%s\n", infos[i].key, infos[i].first);
    fclose(log);
    return strcmp(name, "bad") ? -157 : -1;
}
void PMIx_server_deregister_nspace(const char *name, op_done done, void *mark) { done(0, mark); }
int PMIx_server_register_client(void *proc, unsigned uid, unsigned gid, void *object, op_done done, void *mark)
{
    return -157;
}
int PMIx_server_setup_fork(void *proc, char ***environment) { return 0; }
int PMIx_server_dmodex_request(void *proc, void *fetched, void *mark) { return -1; }
int PMIx_Register_event_handler(void *codes, size_t n, void *infos, size_t m, void *handler, void *done, void *mark)
{
    return 0;
}
int PMIx_Notify_event(int code, void *source, unsigned char range, void *infos, size_t n, void *done, void *mark)
{
    return 0;
}
