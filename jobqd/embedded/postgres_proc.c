/* postgres_proc.c: what runs in a cluster's data directory. See postgres_dir.h.
 *
 * A process belongs to the cluster when it is called postgres and its working directory
 * is PGDATA: every process of a server keeps both for life, and a pid that was used again
 * by another program has neither.
 */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "jobqd/embedded/postgres_dir.h"
#include "jobqd/base/log.h"
#include "libjobq/error.h"

#define PIDFILE_STATUS_LINE 8

static void
pidfile_path(const struct postgres_dir *dir, char path[PATH_MAX])
{
    snprintf(path, PATH_MAX, "%s/postmaster.pid", dir->data);
}

int
postgres_dir_read_pidfile(const struct postgres_dir *dir, struct postgres_pidfile *out,
                          jobq_error *err)
{
    char path[PATH_MAX];
    pidfile_path(dir, path);
    int fd = open(path, O_RDONLY | O_CLOEXEC | O_NOFOLLOW);
    if (fd < 0) {
        if (errno == ENOENT)
            return jobq__error(err, JOBQ_ENOTFOUND, "no postgres is running in %s",
                               dir->data);
        return jobq__error(err, JOBQ_EIO, "cannot read %s: %s", path, strerror(errno));
    }
    char text[PATH_MAX + 512];
    ssize_t len = read(fd, text, sizeof text - 1);
    close(fd);
    text[len > 0 ? len : 0] = '\0';
    long pid = strtol(text, NULL, 10);
    if (pid <= 0 || pid > INT_MAX)
        return jobq__error(err, JOBQ_ENOTFOUND, "no postgres is running in %s",
                           dir->data);
    const char *line = text;
    for (int number = 1; line && number < PIDFILE_STATUS_LINE; number++) {
        line = strchr(line, '\n');
        line = line ? line + 1 : NULL;
    }
    out->pid = (pid_t)pid;
    /* Padded with blanks, and never the beginning of another status. */
    out->ready = line && strncmp(line, "ready", strlen("ready")) == 0;
    return 0;
}

/* Its name, with a newline. false: there is no such process, or it is hidden from us. */
static bool
read_name(pid_t pid, char name[32])
{
    char path[64];
    snprintf(path, sizeof path, "/proc/%d/comm", (int)pid);
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0)
        return false;
    ssize_t len = read(fd, name, 31);
    close(fd);
    name[len > 0 ? len : 0] = '\0';
    return len > 0;
}

static bool
is_postgres(const char *name)
{
    return strcmp(name, "postgres\n") == 0 || strcmp(name, "postmaster\n") == 0;
}

static bool
belongs(pid_t pid, const struct stat *data)
{
    char path[64], name[32];
    struct stat folder;
    snprintf(path, sizeof path, "/proc/%d/cwd", (int)pid);
    return stat(path, &folder) == 0 && folder.st_dev == data->st_dev &&
           folder.st_ino == data->st_ino && read_name(pid, name) && is_postgres(name);
}

/* Calls each for every process of the cluster. */
static void
walk(const struct postgres_dir *dir, void (*each)(pid_t pid, void *data), void *data)
{
    struct stat info;
    DIR *proc = stat(dir->data, &info) == 0 ? opendir("/proc") : NULL;
    if (!proc)
        return;
    for (struct dirent *entry; (entry = readdir(proc));) {
        char *end;
        long pid = strtol(entry->d_name, &end, 10);
        if (pid > 0 && pid <= INT_MAX && *end == '\0' && belongs((pid_t)pid, &info))
            each((pid_t)pid, data);
    }
    closedir(proc);
}

struct census {
    struct postgres_processes found;
    pid_t postmaster; /* who postmaster.pid says it is; 0: nobody */
};

static void
count_one(pid_t pid, void *data)
{
    struct census *census = data;
    census->found.count++;
    if (pid == census->postmaster)
        census->found.postmaster = pid;
}

void
postgres_dir_processes(const struct postgres_dir *dir, struct postgres_processes *out)
{
    struct census census = {0};
    struct postgres_pidfile file;
    if (postgres_dir_read_pidfile(dir, &file, NULL) == 0)
        census.postmaster = file.pid;
    walk(dir, count_one, &census);
    *out = census.found;
}

static void
quit_one(pid_t pid, void *data)
{
    const struct stat *info = data;
    int fd = (int)syscall(SYS_pidfd_open, pid, 0);
    if (fd < 0)
        return;
    /* Asked again now that the pid is pinned. */
    if (belongs(pid, info) && syscall(SYS_pidfd_send_signal, fd, SIGQUIT, NULL, 0U) == 0)
        log_warning("postgres", "asked process %d, left by a killed server, to quit",
                    (int)pid);
    close(fd);
}

void
postgres_dir_quit_orphans(const struct postgres_dir *dir)
{
    struct stat info;
    if (stat(dir->data, &info) == 0)
        walk(dir, quit_one, &info);
}

/* A live process that is somewhere else; or one that keeps from us where it is, as jobqd
 * and its guard do, and is no postgres by its name. */
static bool
is_another_program(pid_t pid, const struct stat *data)
{
    char path[64], name[32];
    struct stat folder;
    snprintf(path, sizeof path, "/proc/%d/cwd", (int)pid);
    if (stat(path, &folder) == 0)
        return folder.st_dev != data->st_dev || folder.st_ino != data->st_ino;
    return errno == EACCES && read_name(pid, name) && !is_postgres(name);
}

void
postgres_dir_remove_stale_pidfile(const struct postgres_dir *dir)
{
    struct postgres_pidfile file;
    struct stat info;
    if (postgres_dir_read_pidfile(dir, &file, NULL) != 0 || stat(dir->data, &info) != 0)
        return;
    /* Dead, or not ours to look at: postgres itself knows what to do. */
    if (!is_another_program(file.pid, &info))
        return;
    char pidfile[PATH_MAX];
    pidfile_path(dir, pidfile);
    if (unlink(pidfile) == 0)
        log_info("postgres", "removed %s: its process %d is now another program", pidfile,
                 (int)file.pid);
}
