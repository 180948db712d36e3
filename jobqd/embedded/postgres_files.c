/* postgres_files.c: the files around PGDATA: settings, who may connect, the log. See
 * postgres_dir.h. */
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <pwd.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "jobqd/embedded/postgres_dir.h"
#include "jobqd/base/log.h"
#include "libjobq/buf.h"
#include "libjobq/error.h"

#define LOG_LIMIT ((off_t)64 * 1024 * 1024)
#define LOG_KEPT ((size_t)1024 * 1024)
#define LOG_TAIL 3 /* lines that an error quotes */

/* Durability (fsync, full_page_writes, synchronous_commit) stays as Postgres has it: on.
 * archive_mode is on from the beginning, since changing it needs a restart; nothing is archived
 * until somebody sets archive_command. */
static const char settings[] =
    "# Written by jobqd at each start. Put your own settings into custom.conf, beside\n# "
    "this file: it is read last. (ALTER SYSTEM works, too.)\ninclude "
    "'data/postgresql.conf'\nunix_socket_permissions = %s\narchive_mode = "
    "on\narchive_command = 'true'\njit = off\ncluster_name = 'jobq'\nlog_line_prefix = "
    "'%%m [%%p] '\ninclude_if_exists 'custom.conf'\n";

static const char access_rules[] =
    "# Written by jobqd at each start. Connections are by Unix socket only, for the "
    "operating\n# system users in pg_ident.conf.\nlocal all all peer map=jobq\nlocal "
    "replication all peer map=jobq\n";

/* Writes a new file and renames it into place, so that a reader sees the old one or the
 * new one, whole. */
static int
put_file(const struct postgres_dir *dir, const char *name, const char *text,
         jobq_error *err)
{
    char path[PATH_MAX];
    char draft[PATH_MAX];
    snprintf(path, sizeof path, "%s/%s", dir->path, name);
    snprintf(draft, sizeof draft, "%s/%s.new", dir->path, name);
    unlink(draft);
    int fd = open(draft, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC | O_NOFOLLOW, 0644);
    size_t len = strlen(text);
    /* Not by the umask: the cluster's user has to read it. */
    bool failed = fd < 0 || fchmod(fd, 0644) != 0 ||
                  write(fd, text, len) != (ssize_t)len || rename(draft, path) != 0;
    int number = errno;
    if (fd >= 0)
        close(fd);
    if (failed)
        return jobq__error(err, JOBQ_EIO, "cannot write %s: %s", path, strerror(number));
    return 0;
}

/* Who has called sudo could not open the socket otherwise. The directory around it keeps
 * others away, and the server asks everybody who he is. */
static int
put_settings(const struct postgres_dir *dir, jobq_error *err)
{
    char text[sizeof settings + 8];
    snprintf(text, sizeof text, settings, dir->invoker.uid ? "0777" : "0700");
    return put_file(dir, "postgresql.conf", text, err);
}

/* A user name in quotes: they may hold blanks and '#', and a leading '/' would make it a
 * pattern. */
static void
add_identity(struct jobq__buf *text, const char *name)
{
    jobq__buf_adds(text, "jobq \"");
    jobq__buf_adds(text, name);
    jobq__buf_adds(text, "\" jobq\n");
}

static int
put_identities(const struct postgres_dir *dir, jobq_error *err)
{
    struct jobq__buf text = {0};
    jobq__buf_adds(
        &text,
        "# Written by jobqd at each start: who may connect as jobq, the superuser.\n");
    add_identity(&text, dir->user.name);
    const uid_t others[] = {0, getuid(), dir->invoker.uid};
    for (size_t i = 0; i < sizeof others / sizeof *others; i++) {
        const struct passwd *entry = getpwuid(others[i]);
        bool listed = others[i] == dir->user.uid;
        for (size_t before = 0; before < i; before++)
            listed = listed || others[before] == others[i];
        if (entry && !listed)
            add_identity(&text, entry->pw_name);
    }
    const char *whole = jobq__buf_cstr(&text);
    int code = whole ? put_file(dir, "pg_ident.conf", whole, err)
                     : jobq__error(err, JOBQ_ENOMEM, "out of memory");
    jobq__buf_clear(&text);
    return code;
}

/* Who may pass to the socket: the cluster's user and root; the group of who has called
 * sudo, too, of which the server then lets in that user alone. As root: gives the
 * directory to them. */
static int
open_sockets(const struct postgres_dir *dir, jobq_error *err)
{
    bool shared = dir->invoker.uid != 0;
    if (!dir->user.drop)
        return 0;
    int fd = open(dir->sockets, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
    gid_t group = shared ? dir->invoker.gid : dir->user.gid;
    bool failed = fd < 0 || fchown(fd, dir->user.uid, group) != 0 ||
                  fchmod(fd, shared ? 0710 : 0700) != 0;
    int number = errno;
    if (fd >= 0)
        close(fd);
    return failed ? jobq__error(err, JOBQ_EIO, "cannot give %s to user %s: %s",
                                dir->sockets, dir->user.name, strerror(number))
                  : 0;
}

/* In /tmp anybody could have made it first: then it is refused unless it is exactly what
 * we would have made, now or when somebody else had called sudo. */
static int
make_sockets(const struct postgres_dir *dir, jobq_error *err)
{
    if (mkdir(dir->sockets, 0700) == 0)
        return open_sockets(dir, err);
    struct stat info;
    if (errno != EEXIST || lstat(dir->sockets, &info) != 0)
        return jobq__error(err, JOBQ_EIO, "cannot make %s: %s", dir->sockets,
                           strerror(errno));
    mode_t others = info.st_mode & 077;
    if (!S_ISDIR(info.st_mode) || info.st_uid != dir->user.uid ||
        (others != 0 && !(dir->user.drop && others == 010)))
        return jobq__error(err, JOBQ_ESTATE,
                           "%s, the folder for the socket, must be a directory of user "
                           "%s with mode 0700: remove it",
                           dir->sockets, dir->user.name);
    return open_sockets(dir, err);
}

int
postgres_dir_write_files(const struct postgres_dir *dir, jobq_error *err)
{
    char line[PATH_MAX];
    snprintf(line, sizeof line, "%s\n", dir->uri);
    int code = make_sockets(dir, err);
    if (code == 0)
        code = put_settings(dir, err);
    if (code == 0)
        code = put_file(dir, "pg_hba.conf", access_rules, err);
    if (code == 0)
        code = put_identities(dir, err);
    if (code == 0)
        code = put_file(dir, "uri", line, err);
    return code;
}

/* ---- the log ---- */

int
postgres_dir_open_log(const struct postgres_dir *dir, int *fd, off_t *size,
                      jobq_error *err)
{
    int opened =
        open(dir->log, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC | O_NOFOLLOW, 0640);
    struct stat info;
    if (opened < 0 || fstat(opened, &info) != 0) {
        int code =
            jobq__error(err, JOBQ_EIO, "cannot open %s: %s", dir->log, strerror(errno));
        if (opened >= 0)
            close(opened);
        return code;
    }
    *fd = opened;
    if (size)
        *size = info.st_size;
    return 0;
}

/* Reads the end of the log, at most size - 1 bytes of it and nothing before `from`.
 * NUL-terminates. */
static size_t
read_end(const struct postgres_dir *dir, off_t from, char *buffer, size_t size)
{
    int fd = open(dir->log, O_RDONLY | O_CLOEXEC | O_NOFOLLOW);
    struct stat info;
    size_t len = 0;
    if (fd >= 0 && fstat(fd, &info) == 0 && info.st_size > 0) {
        off_t start = info.st_size - (off_t)(size - 1);
        if (start < from)
            start = from < info.st_size ? from : info.st_size;
        ssize_t got = pread(fd, buffer, size - 1, start);
        len = got > 0 ? (size_t)got : 0;
    }
    if (fd >= 0)
        close(fd);
    buffer[len] = '\0';
    return len;
}

void
postgres_dir_log_tail(const struct postgres_dir *dir, off_t from, char *text, size_t size)
{
    char buffer[2048];
    size_t len = read_end(dir, from, buffer, sizeof buffer);
    while (len > 0 && buffer[len - 1] == '\n')
        buffer[--len] = '\0';
    const char *start = buffer + len;
    for (int lines = 0; start > buffer; start--)
        if (start[-1] == '\n' && ++lines == LOG_TAIL)
            break;
    size_t used = 0;
    text[0] = '\0';
    for (const char *line = start; *line && used + 4 < size;) {
        size_t line_len = strcspn(line, "\n");
        int put = snprintf(text + used, size - used, "%s%.*s", used ? " | " : "",
                           (int)line_len, line);
        used = put < 0 || (size_t)put >= size - used ? size : used + (size_t)put;
        line += line_len + (line[line_len] == '\n');
    }
}

void
postgres_dir_trim_log(const struct postgres_dir *dir)
{
    struct stat info;
    if (lstat(dir->log, &info) != 0 || info.st_size <= LOG_LIMIT)
        return;
    char *end = malloc(LOG_KEPT + 1);
    if (!end)
        return; /* next time */
    read_end(dir, 0, end, LOG_KEPT + 1);
    jobq_error err;
    /* The server appends to this very file: it is emptied, not replaced. */
    if (put_file(dir, "postgres.log.1", end, &err) != 0)
        log_warning("postgres", "%s", err.message);
    if (truncate(dir->log, 0) != 0)
        log_warning("postgres", "cannot empty %s: %s", dir->log, strerror(errno));
    free(end);
}
