/* postgres_dir.c: whose a directory is, its lock, and the making of a cluster. See
 * postgres_dir.h. What lies in the files is in postgres_files.c, what runs there in
 * postgres_proc.c.
 *
 * When we are root, PGDATA belongs to a lesser user, who could put links there: so
 * nothing of ours is ever written inside it, and files in DIR are made anew and renamed
 * into place.
 */
#include "jobqd/embedded/postgres_dir.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <signal.h>
#include <pwd.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "jobqd/base/log.h"
#include "libjobq/buf.h"
#include "libjobq/error.h"

#define LOCK_FILE "jobq.lock"
/* A pass fails only when a file was made during it. */
#define MAX_REMOVALS 100
/* sockaddr_un holds 107 bytes and a NUL; "/.s.PGSQL.5432" takes 14 of them. */
#define MAX_SOCKET_DIR 93

static int
no_memory(jobq_error *err)
{
    return jobq__error(err, JOBQ_ENOMEM, "out of memory");
}

/* ---- whose it is ---- */

/* The absolute path. The last part need not exist yet, the folder above it must. */
static int
resolve(const char *path, char **out, jobq_error *err)
{
    if (!*path)
        return jobq__error(err, JOBQ_EINVAL, "embedded: an empty path; give a directory");
    char *whole = realpath(path, NULL);
    if (whole) {
        *out = whole;
        return 0;
    }
    if (errno != ENOENT)
        return jobq__error(err, JOBQ_EINVAL, "embedded = %s: %s", path, strerror(errno));
    char *copy = strdup(path);
    if (!copy)
        return no_memory(err);
    size_t len = strlen(copy);
    while (len > 1 && copy[len - 1] == '/')
        copy[--len] = '\0';
    char *slash = strrchr(copy, '/');
    const char *name = slash ? slash + 1 : copy;
    char *above = realpath(!slash          ? "."
                           : slash == copy ? "/"
                                           : (*slash = '\0', copy),
                           NULL);
    int code = 0;
    if (!above)
        code = jobq__error(err, JOBQ_EINVAL,
                           "embedded = %s: cannot use its parent folder: %s", path,
                           strerror(errno));
    else if (asprintf(out, "%s/%s", strcmp(above, "/") == 0 ? "" : above, name) < 0)
        code = no_memory(err);
    free(above);
    free(copy);
    return code;
}

static int
is_ours(struct postgres_dir *dir, jobq_error *err)
{
    struct stat info;
    if (lstat(dir->path, &info) != 0) {
        if (errno == ENOENT)
            return 0;
        return jobq__error(err, JOBQ_EIO, "embedded = %s: %s", dir->path,
                           strerror(errno));
    }
    dir->exists = true;
    if (!S_ISDIR(info.st_mode))
        return jobq__error(err, JOBQ_EINVAL, "embedded = %s: not a directory", dir->path);
    DIR *entries = opendir(dir->path);
    if (!entries)
        return jobq__error(err, JOBQ_EIO, "embedded = %s: %s", dir->path,
                           strerror(errno));
    bool marked = false;
    bool pgdata = false;
    char foreign[NAME_MAX + 1] = "";
    for (struct dirent *entry; (entry = readdir(entries));) {
        if (strcmp(entry->d_name, ".") == 0 || strcmp(entry->d_name, "..") == 0)
            continue;
        marked = marked || strcmp(entry->d_name, LOCK_FILE) == 0;
        pgdata = pgdata || strcmp(entry->d_name, "PG_VERSION") == 0;
        snprintf(foreign, sizeof foreign, "%s", entry->d_name);
    }
    closedir(entries);
    if (marked || !foreign[0])
        return 0;
    if (pgdata)
        return jobq__error(
            err, JOBQ_EINVAL,
            "embedded = %s: this is a Postgres data directory that jobqd did not create; "
            "nothing was changed. Use an empty or new directory, or run that server "
            "yourself and set database to its URI",
            dir->path);
    return jobq__error(err, JOBQ_EINVAL,
                       "embedded = %s: not empty (it holds %s) and not created by jobqd "
                       "(no %s); nothing was changed. Use an empty or new directory",
                       dir->path, foreign, LOCK_FILE);
}

/* Looks into DIR/data, which must be a whole cluster or not be there at all. */
static int
look_at_cluster(struct postgres_dir *dir, uid_t *owner, jobq_error *err)
{
    struct stat info;
    if (!dir->exists || lstat(dir->data, &info) != 0) {
        if (!dir->exists || errno == ENOENT)
            return 0;
        return jobq__error(err, JOBQ_EIO, "%s: %s", dir->data, strerror(errno));
    }
    *owner = info.st_uid;
    if (geteuid() != 0 && geteuid() != info.st_uid) {
        const struct passwd *entry = getpwuid(info.st_uid);
        return jobq__error(
            err, JOBQ_EINVAL,
            "%s belongs to user %s (uid %d); only that user and root can use "
            "it",
            dir->data, entry ? entry->pw_name : "?", (int)info.st_uid);
    }
    char path[PATH_MAX];
    snprintf(path, sizeof path, "%s/PG_VERSION", dir->data);
    char text[16] = "";
    FILE *file = fopen(path, "re");
    if (file) {
        if (!fgets(text, sizeof text, file))
            text[0] = '\0';
        fclose(file);
    }
    char *end;
    long major = strtol(text, &end, 10);
    if (major <= 0 || major > 999 || (*end != '\n' && *end != '\0'))
        return jobq__error(err, JOBQ_EINVAL,
                           "%s is not a complete cluster (PG_VERSION is missing or reads "
                           "%s%.10s%s); nothing was changed. Restore it from a backup, "
                           "or move it away to start afresh",
                           dir->data, *text ? "\"" : "nothing", *text ? text : "",
                           *text ? "\"" : "");
    snprintf(path, sizeof path, "%s/global/pg_control", dir->data);
    if (access(path, F_OK) != 0)
        return jobq__error(
            err, JOBQ_EINVAL,
            "%s is not a complete cluster (no global/pg_control); nothing was changed. "
            "Restore it from a backup, or move it away to start afresh",
            dir->data);
    dir->cluster = true;
    dir->major = (int)major;
    return 0;
}

static int
set_user(struct postgres_user *user, const struct passwd *entry, jobq_error *err)
{
    if (strlen(entry->pw_name) >= sizeof user->name)
        return jobq__error(err, JOBQ_ESTATE, "the user name %s is too long",
                           entry->pw_name);
    user->uid = entry->pw_uid;
    user->gid = entry->pw_gid;
    strcpy(user->name, entry->pw_name);
    return 0;
}

/* sudo says who has called it. Only to root's ear: anybody can set a variable. */
static void
choose_invoker(struct postgres_dir *dir)
{
    const char *text = getuid() == 0 ? getenv("SUDO_UID") : NULL;
    char *end;
    if (!text || *text < '0' || *text > '9')
        return;
    errno = 0;
    unsigned long uid = strtoul(text, &end, 10);
    if (errno != 0 || *end != '\0' || uid == 0 || uid >= (uid_t)-1 ||
        uid == dir->user.uid)
        return;
    const struct passwd *entry = getpwuid((uid_t)uid);
    jobq_error err;
    if (entry && set_user(&dir->invoker, entry, &err) < 0)
        log_warning("postgres", "the user who called sudo cannot connect: %s",
                    err.message);
}

/* Postgres refuses root: an existing cluster runs as its owner, a new one as jobq or else
 * postgres. */
static int
choose_user(struct postgres_dir *dir, uid_t owner, jobq_error *err)
{
    dir->user.drop = geteuid() == 0;
    if (!dir->user.drop || dir->cluster) {
        uid_t uid = dir->user.drop ? owner : geteuid();
        if (uid == 0)
            return jobq__error(err, JOBQ_EINVAL,
                               "%s belongs to root, but postgres refuses to run as root: "
                               "chown -R it to an unprivileged user",
                               dir->data);
        const struct passwd *entry = getpwuid(uid);
        if (!entry)
            return jobq__error(
                err, JOBQ_ESTATE,
                "uid %d has no entry in the user database, which initdb and "
                "postgres need",
                (int)uid);
        return set_user(&dir->user, entry, err);
    }
    const struct passwd *entry = getpwnam("jobq");
    if (!entry)
        entry = getpwnam("postgres");
    if (!entry || entry->pw_uid == 0)
        return jobq__error(err, JOBQ_ESTATE,
                           "an embedded database started by root runs as user jobq or "
                           "postgres, and neither exists: create one (useradd --system "
                           "jobq)");
    return set_user(&dir->user, entry, err);
}

/* The cluster, if there is one, and whom it runs as. */
static int
look_for_user(struct postgres_dir *dir, jobq_error *err)
{
    uid_t owner = 0;
    int code = look_at_cluster(dir, &owner, err);
    if (code == 0)
        code = choose_user(dir, owner, err);
    if (code == 0 && dir->user.drop)
        choose_invoker(dir);
    return code;
}

/* ---- where the socket goes ---- */

static bool
is_plain(const char *path)
{
    for (const char *c = path; *c; c++)
        if (!((*c >= 'a' && *c <= 'z') || (*c >= 'A' && *c <= 'Z') ||
              (*c >= '0' && *c <= '9') || strchr("/._-+", *c)))
            return false;
    return true;
}

/* With the socket's directory as an encoded host, so that it can be pasted into a shell
 * as it stands ("?host=…&port=…" cannot). The port and the user are named because PGPORT
 * and the login name would be taken otherwise. */
static char *
uri_of(const char *sockets)
{
    struct jobq__buf uri = {0};
    jobq__buf_adds(&uri, "postgresql://jobq@");
    for (const char *c = sockets; *c; c++)
        if (*c == '/')
            jobq__buf_adds(&uri, "%2F");
        else
            jobq__buf_addc(&uri, *c);
    jobq__buf_adds(&uri, ":5432/postgres");
    if (!jobq__buf_cstr(&uri))
        jobq__buf_clear(&uri);
    return uri.data; /* the caller's now */
}

/* DIR/run. If a socket cannot be named so (too long, or letters that the list of
 * directories or a URI would read otherwise), a name made from a hash of DIR, always the
 * same for the same DIR and user. */
static int
choose_sockets(struct postgres_dir *dir, jobq_error *err)
{
    int len = asprintf(&dir->sockets, "%s/run", dir->path);
    if (len >= 0 && (len > MAX_SOCKET_DIR || !is_plain(dir->sockets))) {
        free(dir->sockets);
        uint64_t hash = 14695981039346656037U; /* FNV-1a */
        for (const char *c = dir->path; *c; c++)
            hash = (hash ^ (unsigned char)*c) * 1099511628211U;
        const char *base = dir->user.drop && access("/run", W_OK) == 0 ? "/run" : "/tmp";
        len = asprintf(&dir->sockets, "%s/jobq-%u-%016llx", base, (unsigned)dir->user.uid,
                       (unsigned long long)hash);
    }
    if (len < 0) {
        dir->sockets = NULL;
        return no_memory(err);
    }
    dir->uri = uri_of(dir->sockets);
    return dir->uri ? 0 : no_memory(err);
}

int
postgres_dir_inspect(struct postgres_dir *dir, const char *path, jobq_error *err)
{
    *dir = (struct postgres_dir){.lock = -1};
    int code = resolve(path, &dir->path, err);
    if (code != 0)
        return code;
    if (strlen(dir->path) > PATH_MAX - 64)
        return jobq__error(err, JOBQ_EINVAL, "embedded: the path is too long");
    if (asprintf(&dir->data, "%s/data", dir->path) < 0 ||
        asprintf(&dir->fresh, "%s/data.new", dir->path) < 0 ||
        asprintf(&dir->log, "%s/postgres.log", dir->path) < 0)
        return no_memory(err);
    code = is_ours(dir, err);
    if (code == 0)
        code = look_for_user(dir, err);
    if (code == 0)
        code = choose_sockets(dir, err);
    return code;
}

void
postgres_dir_clear(struct postgres_dir *dir)
{
    if (dir->lock >= 0)
        close(dir->lock);
    free(dir->path);
    free(dir->data);
    free(dir->fresh);
    free(dir->log);
    free(dir->sockets);
    free(dir->uri);
    *dir = (struct postgres_dir){.lock = -1};
}

/* ---- who holds it ---- */

/* What the lock file says of its holder: "4711 run" or "4711 command". Whoever has just
 * taken the lock has not written it yet: then it is empty, or names somebody who is gone.
 * That passes in a moment, as a command does. */
static enum postgres_holder
read_holder(int fd, int *pid)
{
    char text[64] = "";
    ssize_t len = pread(fd, text, sizeof text - 1, 0);
    text[len > 0 ? len : 0] = '\0';
    *pid = atoi(text);
    if (*pid <= 0 || (kill(*pid, 0) != 0 && errno == ESRCH))
        return HOLDER_COMMAND;
    return strstr(text, "command") ? HOLDER_COMMAND : HOLDER_DAEMON;
}

/* An open file description's lock: like flock it ends with the process, however that
 * ends, and unlike flock it can be asked for without taking it. */
static struct flock
whole_file(void)
{
    return (struct flock){.l_type = F_WRLCK, .l_whence = SEEK_SET};
}

enum postgres_holder
postgres_dir_holder(const struct postgres_dir *dir)
{
    char path[PATH_MAX];
    snprintf(path, sizeof path, "%s/" LOCK_FILE, dir->path);
    int fd = open(path, O_RDONLY | O_CLOEXEC | O_NOFOLLOW);
    if (fd < 0)
        return HOLDER_NONE;
    struct flock lock = whole_file();
    int pid;
    enum postgres_holder holder = HOLDER_NONE;
    if (fcntl(fd, F_OFD_GETLK, &lock) == 0 && lock.l_type != F_UNLCK)
        holder = read_holder(fd, &pid);
    close(fd);
    return holder;
}

static int
refuse_held(const struct postgres_dir *dir, int fd, enum postgres_holder *held_by,
            jobq_error *err)
{
    int pid;
    enum postgres_holder holder = read_holder(fd, &pid);
    if (held_by)
        *held_by = holder;
    return jobq__error(
        err, JOBQ_ESTATE,
        "embedded = %s: another jobqd (process %d) is running this database%s", dir->path,
        pid, holder == HOLDER_COMMAND ? " for a command" : "");
}

static int
note_holder(int fd, enum postgres_holder as)
{
    char text[64];
    int len = snprintf(text, sizeof text, "%d %s\n", (int)getpid(),
                       as == HOLDER_COMMAND ? "command" : "run");
    return ftruncate(fd, 0) == 0 && pwrite(fd, text, (size_t)len, 0) == len ? 0 : -1;
}

int
postgres_dir_lock(struct postgres_dir *dir, enum postgres_holder as,
                  enum postgres_holder *held_by, jobq_error *err)
{
    /* Root's directory is entered by the cluster's user; a user's own is nobody else's
     * business. */
    if (!dir->exists && mkdir(dir->path, dir->user.drop ? 0755 : 0700) != 0 &&
        errno != EEXIST)
        return jobq__error(err, JOBQ_EIO, "cannot make %s: %s", dir->path,
                           strerror(errno));
    dir->exists = true;
    char path[PATH_MAX];
    snprintf(path, sizeof path, "%s/" LOCK_FILE, dir->path);
    int fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0644);
    if (fd < 0)
        return jobq__error(err, JOBQ_EIO, "cannot open %s: %s", path, strerror(errno));
    struct flock lock = whole_file();
    if (fcntl(fd, F_OFD_SETLK, &lock) == 0 && note_holder(fd, as) == 0) {
        dir->lock = fd;
        return dir->cluster ? 0 : look_for_user(dir, err);
    }
    int code =
        errno == EAGAIN || errno == EACCES
            ? refuse_held(dir, fd, held_by, err)
            : jobq__error(err, JOBQ_EIO, "cannot lock %s: %s", path, strerror(errno));
    close(fd);
    return code;
}

/* ---- a new cluster ---- */

/* Somebody else took it away: what was wanted. */
static int
gone_is_well(int result)
{
    return result != 0 && errno == ENOENT ? 0 : result;
}

/* Removes the entry `name` of the open folder `at` and what is below it, without ever
 * following a link. */
static int
remove_tree(int at, const char *name)
{
    int fd = openat(at, name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
    if (fd < 0)
        return gone_is_well(unlinkat(at, name, 0));
    DIR *entries = fdopendir(fd); /* owns fd from here on */
    if (!entries) {
        close(fd);
        return -1;
    }
    int failed = 0;
    for (struct dirent *entry; failed == 0 && (entry = readdir(entries));)
        if (strcmp(entry->d_name, ".") != 0 && strcmp(entry->d_name, "..") != 0)
            failed = remove_tree(dirfd(entries), entry->d_name);
    closedir(entries);
    return failed ? failed : gone_is_well(unlinkat(at, name, AT_REMOVEDIR));
}

/* What a killed initdb left may still have a server in it that is about to notice: it
 * removes files of its own and makes new ones as it ends. It is in the folder that goes,
 * not in the one that we make afterwards. */
static int
remove_leftover(const char *path)
{
    int failed = -1;
    for (int tries = 0; failed != 0 && tries < MAX_REMOVALS; tries++) {
        failed = remove_tree(AT_FDCWD, path);
        if (failed != 0 && errno != ENOTEMPTY && errno != EEXIST)
            break;
    }
    return failed;
}

int
postgres_dir_prepare_fresh(const struct postgres_dir *dir, jobq_error *err)
{
    if (remove_leftover(dir->fresh) != 0)
        return jobq__error(err, JOBQ_EIO,
                           "cannot remove %s, left by an interrupted initdb: %s",
                           dir->fresh, strerror(errno));
    if (mkdir(dir->fresh, 0700) != 0 ||
        (dir->user.drop && lchown(dir->fresh, dir->user.uid, dir->user.gid) != 0))
        return jobq__error(err, JOBQ_EIO, "cannot make %s: %s", dir->fresh,
                           strerror(errno));
    return 0;
}

int
postgres_dir_adopt_fresh(struct postgres_dir *dir, int major, jobq_error *err)
{
    /* Only a whole cluster is ever called data: initdb has synced its files, the rename
     * is synced here. */
    int folder = open(dir->path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    int failed = folder < 0 || rename(dir->fresh, dir->data) != 0 || fsync(folder) != 0;
    int number = errno;
    if (folder >= 0)
        close(folder);
    if (failed)
        return jobq__error(err, JOBQ_EIO, "cannot rename %s to %s: %s", dir->fresh,
                           dir->data, strerror(number));
    dir->cluster = true;
    dir->major = major;
    return 0;
}
