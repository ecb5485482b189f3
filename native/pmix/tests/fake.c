/* A library that says what it is told and fails as it is told; see fake.rs. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

typedef void (*op_done)(int, void *);
struct info { char key[512]; unsigned flags; __attribute__((aligned(8))) unsigned short kind; char *first; size_t size, more; };
_Static_assert(sizeof(struct info) == 552, "as in every release");

const char *PMIx_Get_version(void) { return "OpenPMIx " VERSION; }
const char *PMIx_Error_string(int status) { return "FAKE"; }
int PMIx_server_init(void *table, struct info *infos, size_t length)
{
    if (getenv("FAKE_HANGS")) pause();
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
