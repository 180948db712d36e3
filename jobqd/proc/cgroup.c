/* cgroup.c: see cgroup.h. Each file of a group is a question or an answer of one line;
 * none of them blocks. */
#include "jobqd/proc/cgroup.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/xattr.h>
#include <unistd.h>

#include "jobqd/proc/smallfile.h"
#include "libjobq/error.h"

#define OWN_GROUP "jobqd"
#define WORKER_GROUP "worker-"

enum { FILE_SIZE = 4096, MAX_LEFT = 256 };

struct cgroup {
    char folder[PATH_MAX / 2];
    uint64_t next;           /* serial */
    uint64_t left[MAX_LEFT]; /* groups that could not be removed yet */
    size_t n_left;
};

/* ---- files ---- */

static bool
path_of(char *out, size_t size, const char *folder, const char *name)
{
    int n = snprintf(out, size, "%s/%s", folder, name);
    return n > 0 && (size_t)n < size;
}

/* Never creates: a file that is not there is a feature that this kernel has not. */
static bool
write_file(const char *folder, const char *name, const char *text)
{
    char path[PATH_MAX];
    if (!path_of(path, sizeof path, folder, name))
        return false;
    int fd = open(path, O_WRONLY | O_CLOEXEC);
    if (fd < 0)
        return false;
    bool done = write(fd, text, strlen(text)) == (ssize_t)strlen(text);
    int why = errno;
    close(fd);
    errno = why;
    return done;
}

static bool
has_word(const char *text, const char *word)
{
    size_t len = strlen(word);
    for (const char *at = text; (at = strstr(at, word)) != NULL; at += len) {
        bool begins = at == text || strchr(" \n", at[-1]);
        if (begins && strchr(" \n", at[len]))
            return true;
    }
    return false;
}

/* ---- where we are ---- */

/* "0::/system.slice/jobqd.service" of /proc/self/cgroup. */
static bool
own_path(char *out, size_t size)
{
    char text[FILE_SIZE];
    if (!smallfile_read("/proc/self/cgroup", text, sizeof text))
        return false;
    const char *line = strncmp(text, "0::", 3) == 0 ? text : strstr(text, "\n0::");
    if (!line)
        return false;
    line = strchr(line, '/');
    if (!line)
        return false;
    int n = snprintf(out, size, "%.*s", (int)strcspn(line, "\n"), line);
    return n > 0 && (size_t)n < size;
}

/* Where cgroup2 is mounted: the line of /proc/self/mountinfo with " - cgroup2 ". Its
 * fourth word is what of the tree is mounted, its fifth where. */
static bool
find_mount(char *root, char *mount, size_t size)
{
    char line[PATH_MAX];
    bool found = false;
    FILE *file = fopen("/proc/self/mountinfo", "re");
    while (file && !found && fgets(line, sizeof line, file)) {
        char *words[5] = {NULL}, *rest = line;
        if (!strstr(line, " - cgroup2 "))
            continue;
        for (size_t i = 0; i < 5; i++)
            words[i] = strsep(&rest, " ");
        found = words[4] && strlen(words[3]) < size && strlen(words[4]) < size;
        if (found) {
            strcpy(root, words[3]);
            strcpy(mount, words[4]);
        }
    }
    if (file)
        fclose(file);
    return found;
}

/* The folder of the group that jobqd was given: the one above, if it is in its own
 * already (it has executed itself anew). */
static bool
find_folder(char *out, size_t size)
{
    char path[PATH_MAX / 4], root[PATH_MAX / 8], mount[PATH_MAX / 8];
    if (!own_path(path, sizeof path) || !find_mount(root, mount, sizeof mount))
        return false;
    size_t above = strcmp(root, "/") == 0 ? 0 : strlen(root);
    const char *below = strncmp(path, root, above) == 0 ? path + above : path;
    int n = snprintf(out, size, "%s%s", mount, strcmp(below, "/") == 0 ? "" : below);
    char *last = strrchr(out, '/');
    if (n > 0 && (size_t)n < size && last && strcmp(last, "/" OWN_GROUP) == 0)
        *last = '\0';
    return n > 0 && (size_t)n < size;
}

/* ---- taking it over ---- */

static pid_t
parent_of(pid_t pid)
{
    char path[64], text[FILE_SIZE];
    int ppid = 0;
    snprintf(path, sizeof path, "/proc/%ld/stat", (long)pid);
    if (!smallfile_read(path, text, sizeof text))
        return 0;
    const char *rest = strrchr(text, ')');
    return rest && sscanf(rest, ") %*c %d", &ppid) == 1 ? (pid_t)ppid : 0;
}

static bool
is_ours(pid_t pid)
{
    pid_t self = getpid();
    for (int depth = 0; pid > 1 && depth < 64; depth++) {
        if (pid == self)
            return true;
        pid = parent_of(pid);
    }
    return false;
}

/* Calls act for each process of the group itself; false as soon as act does. */
static bool
each_member(const char *folder, bool (*act)(pid_t pid, const char *folder))
{
    char path[PATH_MAX], line[32];
    bool fine = path_of(path, sizeof path, folder, "cgroup.procs");
    FILE *file = fine ? fopen(path, "re") : NULL;
    while (file && fine && fgets(line, sizeof line, file))
        fine = act((pid_t)strtol(line, NULL, 10), folder);
    if (file)
        fclose(file);
    return file && fine;
}

static bool
belongs_to_us(pid_t pid, const char *folder)
{
    (void)folder;
    return is_ours(pid);
}

static bool
move_down(pid_t pid, const char *folder)
{
    char own[PATH_MAX], text[32];
    snprintf(text, sizeof text, "%ld\n", (long)pid);
    if (!path_of(own, sizeof own, folder, OWN_GROUP))
        return false;
    /* One that has ended in the meantime needs no place. */
    return write_file(own, "cgroup.procs", text) || errno == ESRCH;
}

static bool
is_marked(const char *folder)
{
    char value[8] = "";
    if (getxattr(folder, "trusted.delegate", value, sizeof value - 1) <= 0 &&
        getxattr(folder, "user.delegate", value, sizeof value - 1) <= 0)
        return false;
    return strcmp(value, "1") == 0;
}

/* Why the group cannot be used; NULL: it can. */
static const char *
why_not(const char *folder, bool systemd)
{
    char path[PATH_MAX], text[FILE_SIZE];
    if (!path_of(path, sizeof path, folder, "cgroup.controllers") ||
        !smallfile_read(path, text, sizeof text))
        return "cannot be read";
    if (!has_word(text, "memory"))
        return "has no memory controller";
    if (!path_of(path, sizeof path, folder, "cgroup.subtree_control") ||
        access(path, W_OK) < 0)
        return "is not writable for jobqd";
    if (systemd && !is_marked(folder))
        return "belongs to systemd (the unit needs Delegate=memory)";
    if (!each_member(folder, belongs_to_us))
        return "also has processes that are not ours";
    return NULL;
}

/* What a jobqd that was killed here has left. */
static void
sweep(const char *folder)
{
    DIR *dir = opendir(folder);
    struct dirent *entry;
    while (dir && (entry = readdir(dir)) != NULL) {
        char path[PATH_MAX];
        if (strncmp(entry->d_name, WORKER_GROUP, strlen(WORKER_GROUP)) == 0 &&
            path_of(path, sizeof path, folder, entry->d_name))
            rmdir(path);
    }
    if (dir)
        closedir(dir);
}

static bool
take_over(const char *folder)
{
    char own[PATH_MAX], path[PATH_MAX], text[FILE_SIZE];
    if (!path_of(own, sizeof own, folder, OWN_GROUP) ||
        !path_of(path, sizeof path, folder, "cgroup.subtree_control") ||
        !smallfile_read(path, text, sizeof text))
        return false;
    if (has_word(text, "memory"))
        return true;
    if (mkdir(own, 0755) < 0 && errno != EEXIST)
        return false;
    /* What is forked in the meantime is found in the second round. */
    if (!each_member(folder, move_down) || !each_member(folder, move_down))
        return false;
    return write_file(folder, "cgroup.subtree_control", "+memory");
}

int
cgroup_open_at(struct cgroup **out, const char *folder, bool systemd, jobq_error *err)
{
    const char *why = why_not(folder, systemd);
    if (why)
        return jobq__error(err, JOBQ_ESTATE, "the control group %s %s", folder, why);
    if (!take_over(folder))
        return jobq__error(err, JOBQ_ESTATE, "cannot divide the control group %s: %s",
                           folder, strerror(errno));
    struct cgroup *cgroup = calloc(1, sizeof *cgroup);
    if (!cgroup)
        return jobq__error(err, JOBQ_ENOMEM, "no memory for a control group");
    snprintf(cgroup->folder, sizeof cgroup->folder, "%s", folder);
    sweep(folder);
    *out = cgroup;
    return 0;
}

int
cgroup_open(struct cgroup **out, jobq_error *err)
{
    char folder[PATH_MAX / 2];
    if (!find_folder(folder, sizeof folder))
        return jobq__error(err, JOBQ_ESTATE, "no cgroup v2 is mounted");
    return cgroup_open_at(out, folder, access("/run/systemd/system", F_OK) == 0, err);
}

const char *
cgroup_folder(const struct cgroup *cgroup)
{
    return cgroup->folder;
}

/* ---- groups of workers ---- */

static void
group_path(const struct cgroup *cgroup, struct cgroup_group group, char *out, size_t size)
{
    snprintf(out, size, "%s/" WORKER_GROUP "%" PRIu64, cgroup->folder, group.serial);
}

static bool
remove_folder(const struct cgroup *cgroup, uint64_t serial)
{
    char path[PATH_MAX];
    group_path(cgroup, (struct cgroup_group){serial}, path, sizeof path);
    return rmdir(path) == 0 || errno == ENOENT;
}

void
cgroup_tidy(struct cgroup *cgroup)
{
    size_t kept = 0;
    for (size_t i = 0; i < cgroup->n_left; i++) {
        if (!remove_folder(cgroup, cgroup->left[i]))
            cgroup->left[kept++] = cgroup->left[i];
    }
    cgroup->n_left = kept;
}

void
cgroup_free(struct cgroup *cgroup)
{
    if (!cgroup)
        return;
    cgroup_tidy(cgroup);
    free(cgroup);
}

int
cgroup_make(struct cgroup *cgroup, struct cgroup_group *out, size_t max_memory,
            jobq_error *err)
{
    char path[PATH_MAX], text[32];
    struct cgroup_group group;
    cgroup_tidy(cgroup);
    do { /* one that could not be swept away is passed by */
        group.serial = ++cgroup->next;
        group_path(cgroup, group, path, sizeof path);
    } while (mkdir(path, 0755) < 0 && errno == EEXIST && cgroup->next < UINT32_MAX);
    snprintf(text, sizeof text, "%zu\n", max_memory);
    if (!write_file(path, "memory.max", text)) {
        int why = errno;
        rmdir(path);
        return jobq__error(err, JOBQ_EIO, "cannot limit the memory of %s: %s", path,
                           strerror(why));
    }
    /* The group ends as one: half a worker is of no use. Without swap, since a worker
     * that pages is not limited but slow. Either may be missing in an older or smaller
     * kernel. */
    write_file(path, "memory.oom.group", "1");
    write_file(path, "memory.swap.max", "0");
    *out = group;
    return 0;
}

int
cgroup_entrance(struct cgroup *cgroup, struct cgroup_group group)
{
    char folder[PATH_MAX], path[PATH_MAX];
    group_path(cgroup, group, folder, sizeof folder);
    if (!path_of(path, sizeof path, folder, "cgroup.procs"))
        return -1;
    return open(path, O_WRONLY | O_CLOEXEC);
}

bool
cgroup_enter(int entrance)
{
    return write(entrance, "0\n", 2) == 2;
}

int
cgroup_place(struct cgroup *cgroup, struct cgroup_group group, pid_t pid, jobq_error *err)
{
    char folder[PATH_MAX], text[32];
    group_path(cgroup, group, folder, sizeof folder);
    snprintf(text, sizeof text, "%ld\n", (long)pid);
    if (write_file(folder, "cgroup.procs", text))
        return 0;
    return jobq__error(err, JOBQ_EIO, "cannot move process %ld into %s: %s", (long)pid,
                       folder, strerror(errno));
}

int64_t
cgroup_oom_kills(struct cgroup *cgroup, struct cgroup_group group)
{
    char folder[PATH_MAX], path[PATH_MAX], text[FILE_SIZE];
    group_path(cgroup, group, folder, sizeof folder);
    if (!path_of(path, sizeof path, folder, "memory.events") ||
        !smallfile_read(path, text, sizeof text))
        return 0;
    int64_t kills = smallfile_number(text, "oom_kill ");
    return kills > 0 ? kills : 0;
}

int64_t
cgroup_peak_kb(struct cgroup *cgroup, struct cgroup_group group)
{
    char folder[PATH_MAX], path[PATH_MAX], text[FILE_SIZE];
    group_path(cgroup, group, folder, sizeof folder);
    if (!path_of(path, sizeof path, folder, "memory.peak") ||
        !smallfile_read(path, text, sizeof text))
        return -1;
    return strtoll(text, NULL, 10) / 1024;
}

void
cgroup_remove(struct cgroup *cgroup, struct cgroup_group group)
{
    char path[PATH_MAX];
    group_path(cgroup, group, path, sizeof path);
    write_file(path, "cgroup.kill", "1"); /* since Linux 5.14 */
    if (remove_folder(cgroup, group.serial))
        return;
    /* Beyond the bound they stay, empty, until the next start sweeps them away. */
    if (cgroup->n_left < MAX_LEFT)
        cgroup->left[cgroup->n_left++] = group.serial;
}
