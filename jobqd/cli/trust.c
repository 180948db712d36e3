/* trust.c: see trust.h. Looks at modes and owners; changes nothing. */
#include "jobqd/cli/trust.h"

#include <grp.h>
#include <limits.h>
#include <pwd.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "jobqd/cli/doubts.h"
#include "jobqd/base/log.h"
#include "jobqd/proc/limits.h"
#include "libjobq/buf.h"

enum { NAME = 64, TEXT = 2 * PATH_MAX + 512, MAX_FRIENDS = 4 };
/* As many links as the kernel follows, and more folders than a sane path has. */
enum { MAX_LINKS = 40, MAX_STEPS = 512 };

/* What is looked for in one file. */
struct look {
    uid_t friends[MAX_FRIENDS]; /* who may own it, and its folders; root always may */
    size_t n_friends;
    trust_say say;
    void *data;
    const char *why; /* what follows from a change: "who may change it ..." */
    /* What to do where a folder on the way belongs to another user: giving that folder to
     * root would take his home from him. */
    const char *elsewhere;
};

/* ---- names ---- */

static void
name_user(uid_t uid, char *out)
{
    const struct passwd *entry = getpwuid(uid);
    if (entry)
        snprintf(out, NAME, "user %.40s", entry->pw_name);
    else
        snprintf(out, NAME, "user %u", (unsigned)uid);
}

static void
name_group(gid_t gid, char *out)
{
    const struct group *entry = getgrgid(gid);
    if (entry)
        snprintf(out, NAME, "group %.40s", entry->gr_name);
    else
        snprintf(out, NAME, "group %u", (unsigned)gid);
}

/* A group of the owner's name without other members, as many systems give to each user.
 */
static bool
is_private_group(const struct stat *info)
{
    char owner[NAME];
    const struct passwd *user = info->st_uid != 0 ? getpwuid(info->st_uid) : NULL;
    if (!user || user->pw_gid != info->st_gid)
        return false;
    snprintf(owner, sizeof owner, "%.60s", user->pw_name);
    const struct group *group = getgrgid(info->st_gid);
    return group && strcmp(group->gr_name, owner) == 0 && !group->gr_mem[0];
}

static bool
is_friend(const struct look *look, uid_t uid)
{
    bool found = uid == 0;
    for (size_t i = 0; i < look->n_friends; i++)
        found = found || look->friends[i] == uid;
    return found;
}

/* ---- one file ---- */

/* Who else may write the file or folder; how a remedy begins. false: no other
 * user. In a folder with the sticky bit a file can only be replaced by its owner. */
static bool
find_writer(const struct look *look, const struct stat *info, char who[NAME],
            const char **remedy)
{
    bool shared = !S_ISDIR(info->st_mode) || !(info->st_mode & S_ISVTX);
    if (!is_friend(look, info->st_uid)) {
        name_user(info->st_uid, who);
        *remedy = "chown root";
        return true;
    }
    bool all = shared && (info->st_mode & S_IWOTH);
    bool group = shared && (info->st_mode & S_IWGRP) && !is_private_group(info);
    if (all)
        strcpy(who, "everybody");
    else if (group)
        name_group(info->st_gid, who);
    *remedy = all && group ? "chmod go-w" : all ? "chmod o-w" : "chmod g-w";
    return all || group;
}

/* The path as a word of the shell's. */
static void
quote(const char *path, char out[TEXT])
{
    static const char plain[] = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ"
                                "0123456789/._-+:@%,";
    size_t n = 0;
    if (*path != '-' && *path && path[strspn(path, plain)] == '\0') {
        snprintf(out, TEXT, "%s", path);
        return;
    }
    out[n++] = '\'';
    for (; *path && n + 6 < TEXT; path++) {
        if (*path == '\'') {
            memcpy(out + n, "'\\''", 4);
            n += 4;
        } else {
            out[n++] = *path;
        }
    }
    out[n++] = '\'';
    out[n] = '\0';
}

/* path: the file, or a folder above it. Returns whether there was something to say. */
static bool
look_at(const struct look *look, const char *file, const char *path, bool is_file)
{
    char who[NAME], what[TEXT], remedy[TEXT + 32], word[TEXT];
    const char *cure;
    struct stat info;
    if (stat(path, &info) != 0 || !find_writer(look, &info, who, &cure))
        return false;
    if (is_file)
        snprintf(what, sizeof what, "%s can be changed by %s (mode %04o): %s", file, who,
                 (unsigned)info.st_mode & 07777, look->why);
    else
        snprintf(what, sizeof what,
                 "%s can be replaced by %s, who may write %s (mode %04o): %s", file, who,
                 path, (unsigned)info.st_mode & 07777, look->why);
    quote(path, word);
    if (S_ISDIR(info.st_mode) && !is_friend(look, info.st_uid))
        snprintf(remedy, sizeof remedy, "%s", look->elsewhere);
    else
        snprintf(remedy, sizeof remedy, "%s %s", cure, word);
    look->say(look->data, what, remedy);
    return true;
}

/* In a folder with the sticky bit that others may write, a link is its owner's to
 * replace; in any other it is the folder that counts. */
static bool
look_at_link(const struct look *look, const char *file, const char *path)
{
    char who[NAME], what[TEXT], remedy[TEXT + 32], word[TEXT], folder[PATH_MAX];
    struct stat info, above;
    snprintf(folder, sizeof folder, "%s", path);
    char *slash = strrchr(folder, '/');
    slash[slash == folder ? 1 : 0] = '\0';
    if (lstat(path, &info) != 0 || stat(folder, &above) != 0 ||
        is_friend(look, info.st_uid) || !(above.st_mode & S_ISVTX) ||
        !(above.st_mode & (S_IWGRP | S_IWOTH)))
        return false;
    name_user(info.st_uid, who);
    quote(path, word);
    snprintf(what, sizeof what, "%s can be replaced by %s, who owns the link %s: %s",
             file, who, path, look->why);
    snprintf(remedy, sizeof remedy, "chown -h root %s", word);
    look->say(look->data, what, remedy);
    return true;
}

/* Each thing by which a path leads to its file: folders, links, and what they lead
 * through in turn, the file last. */
struct way {
    struct {
        char *path;
        bool is_link;
    } steps[MAX_STEPS];
    size_t n;
};

static bool
add_step(struct way *way, const char *path, bool is_link)
{
    char *copy = way->n < MAX_STEPS ? strdup(path) : NULL;
    if (!copy)
        return false;
    way->steps[way->n].path = copy; /* way's, until clear_way */
    way->steps[way->n++].is_link = is_link;
    return true;
}

static void
clear_way(struct way *way)
{
    while (way->n > 0)
        free(way->steps[--way->n].path);
}

/* Takes the first name off rest. false: there is none. */
static bool
take_name(char rest[PATH_MAX], char name[PATH_MAX])
{
    size_t slashes = strspn(rest, "/");
    size_t len = strcspn(rest + slashes, "/");
    memcpy(name, rest + slashes, len);
    name[len] = '\0';
    memmove(rest, rest + slashes + len, strlen(rest + slashes + len) + 1);
    return len > 0;
}

/* Puts what the link says before rest. */
static bool
put_target(const char *link, char rest[PATH_MAX], char at[PATH_MAX])
{
    char target[PATH_MAX], both[2 * PATH_MAX];
    ssize_t len = readlink(link, target, sizeof target - 1);
    if (len < 0)
        return false;
    target[len] = '\0';
    int n = snprintf(both, sizeof both, "%s/%s", target, rest);
    if (n < 0 || n >= PATH_MAX)
        return false;
    strcpy(rest, both);
    if (*target == '/')
        strcpy(at, "/");
    return true;
}

/* Like realpath, and remembers. path is absolute. false: it leads nowhere. */
static bool
find_way(struct way *way, const char *path)
{
    char at[PATH_MAX] = "/", next[2 * PATH_MAX], rest[PATH_MAX], name[PATH_MAX];
    struct stat info;
    size_t links = 0;
    if (strlen(path) >= sizeof rest || !add_step(way, at, false))
        return false;
    strcpy(rest, path);
    while (take_name(rest, name)) {
        if (strcmp(name, ".") == 0)
            continue;
        if (strcmp(name, "..") == 0) {
            char *slash = strrchr(at, '/');
            slash[slash == at ? 1 : 0] = '\0';
            continue;
        }
        snprintf(next, sizeof next, "%s/%s", at[1] ? at : "", name);
        if (strlen(next) >= sizeof at || lstat(next, &info) != 0 ||
            !add_step(way, next, S_ISLNK(info.st_mode)))
            return false;
        if (!S_ISLNK(info.st_mode))
            strcpy(at, next);
        else if (++links > MAX_LINKS || !put_target(next, rest, at))
            return false;
    }
    return true;
}

/* From the file upwards, by each name on the way. One finding is enough: with it mended
 * the next look says the next. */
static void
look_at_file(const struct look *look, const char *file)
{
    struct way way = {.n = 0};
    char absolute[2 * PATH_MAX], folder[PATH_MAX] = "";
    if (*file != '/' && !getcwd(folder, sizeof folder))
        return;
    snprintf(absolute, sizeof absolute, "%s%s%s", folder, *file == '/' ? "" : "/", file);
    bool whole = find_way(&way, absolute);
    bool said = false;
    for (size_t i = way.n; i-- > 0 && !said;)
        said = way.steps[i].is_link
                   ? look_at_link(look, file, way.steps[i].path)
                   : look_at(look, file, way.steps[i].path, whole && i == way.n - 1);
    clear_way(&way);
}

/* ---- the configuration ---- */

static void
look_at_config(const struct config *config, trust_say say, void *data)
{
    char what[TEXT], remedy[TEXT + 32], word[TEXT];
    struct stat info;
    struct look look = {
        .say = say,
        .data = data,
        .why = geteuid() == 0 ? "it decides what jobqd runs as root"
                              : "it decides what jobqd runs",
        .elsewhere = geteuid() == 0
                         ? "move it into a folder owned by root, such as /etc/jobq"
                         : "move it into a folder owned by you or by root",
    };
    if (!config->file)
        return;
    if (geteuid() != 0)
        look.friends[look.n_friends++] = geteuid();
    if (stat(config->file, &info) == 0 && geteuid() != 0)
        look.friends[look.n_friends++] = info.st_uid; /* who deploys it, say */
    look_at_file(&look, config->file);
    if (stat(config->file, &info) == 0 && (info.st_mode & S_IROTH) &&
        config_has_secret(config)) {
        snprintf(what, sizeof what,
                 "%s holds a password, and everybody may read it (mode %04o)",
                 config->file, (unsigned)info.st_mode & 07777);
        quote(config->file, word);
        snprintf(remedy, sizeof remedy, "chmod o-r %s", word);
        say(data, what, remedy);
    }
}

/* ---- programs ---- */

/* Whether the queue's programs are root's. */
static bool
runs_as_root(const struct queue_config *queue)
{
    struct limits limits;
    enum limits_step step;
    if (geteuid() != 0)
        return false;
    bool resolved = limits_resolve(&limits, queue, &step, NULL) == 0;
    bool root = resolved && (!limits.changes_user || limits.uid == 0);
    limits_clear(&limits);
    return root;
}

/* A program, and the files among its arguments: the script of an interpreter. argv NULL:
 * there is none. */
static void
look_at_program(const char *whose, char *const *argv, trust_say say, void *data)
{
    char why[200];
    struct stat info;
    struct look look = {.say = say,
                        .data = data,
                        .why = why,
                        .elsewhere = "move it into a folder owned by root, or give the "
                                     "queue a user of its own: user = NAME"};
    snprintf(why, sizeof why, "%.140s runs it as root", whose);
    for (char *const *word = argv; word && *word; word++)
        if (**word == '/' && stat(*word, &info) == 0 && S_ISREG(info.st_mode))
            look_at_file(&look, *word);
}

static void
look_at_queues(const struct config *config, trust_say say, void *data)
{
    struct jobq__buf names = {0};
    size_t n = 0;
    if (geteuid() == 0) {
        look_at_program("jobqd", config->on_failure, say, data);
        look_at_program("jobqd", config->on_discard, say, data);
    }
    for (size_t i = 0; i < config->n_queues; i++) {
        const struct queue_config *queue = &config->queues[i];
        if (!runs_as_root(queue))
            continue;
        char whose[160];
        snprintf(whose, sizeof whose, "queue %.120s", queue->name);
        look_at_program(whose, queue->argv, say, data);
        look_at_program(whose, queue->on_failure, say, data);
        look_at_program(whose, queue->on_discard, say, data);
        jobq__buf_adds(&names, n++ > 0 ? ", " : "");
        jobq__buf_adds(&names, queue->name);
    }
    char what[TEXT];
    snprintf(what, sizeof what, "programs run as root in queue%s %s", n == 1 ? "" : "s",
             jobq__buf_cstr(&names) ? names.data : "");
    if (n > 0)
        say(data, what, "set a dedicated user for each queue: user = NAME");
    jobq__buf_clear(&names);
}

/* ---- the embedded database ---- */

static void
look_at_embedded(const struct config *config, trust_say say, void *data)
{
    static const char *const users[] = {"jobq", "postgres"};
    struct look look = {
        .say = say,
        .data = data,
        .why = "the embedded database is in it",
        .elsewhere = "name another folder with embedded, or run jobqd as that user"};
    const char *caller = getenv("SUDO_UID");
    struct stat info;
    if (!config->embedded || stat(config->embedded, &info) != 0)
        return;
    look.friends[look.n_friends++] = geteuid();
    for (size_t i = 0; i < sizeof users / sizeof *users && geteuid() == 0; i++) {
        const struct passwd *entry = getpwnam(users[i]);
        if (entry)
            look.friends[look.n_friends++] = entry->pw_uid;
    }
    if (caller && geteuid() == 0)
        look.friends[look.n_friends++] = (uid_t)strtoul(caller, NULL, 10);
    look_at_file(&look, config->embedded);
}

void
trust_look(const struct config *config, trust_say say, void *data)
{
    look_at_config(config, say, data);
    look_at_queues(config, say, data);
    look_at_embedded(config, say, data);
    doubts_look(config, say, data);
}

void
trust_log(void *data, const char *what, const char *remedy)
{
    (void)data;
    log_warning("jobqd", "%s; %s", what, remedy);
}
