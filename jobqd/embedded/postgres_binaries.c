/* postgres_binaries.c: see postgres_binaries.h. Several major versions may be installed
 * side by side (Debian's layout), and a cluster can be run by its own major version
 * alone, so each place is asked for its version. */
#include "jobqd/embedded/postgres_binaries.h"

#include <errno.h>
#include <glob.h>
#include <limits.h>
#include <poll.h>
#include <signal.h>
#include <spawn.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <fcntl.h>
#include <unistd.h>

#include "jobqd/proc/reaper.h"
#include "libjobq/error.h"

extern char **environ;

/* What the places that were looked at had to offer. */
struct search {
    int wanted;
    int best;              /* major version of the best so far; 0: none */
    char bindir[PATH_MAX]; /* of the best */
    char others[160];      /* "14 in /usr/lib/postgresql/14/bin, …": what did not fit */
};

/* The first line that the program prints on stdout. false when it does not run or prints
 * nothing. A program that hangs is killed after 5 seconds. */
static bool
first_line(const char *program, const char *argument, char *line, size_t size)
{
    int ends[2];
    if (pipe2(ends, O_CLOEXEC) != 0)
        return false;
    posix_spawn_file_actions_t actions;
    if (posix_spawn_file_actions_init(&actions) != 0) {
        close(ends[0]);
        close(ends[1]);
        return false;
    }
    pid_t pid = -1;
    char *argv[] = {strdup(program), strdup(argument), NULL};
    bool started =
        argv[0] && argv[1] &&
        posix_spawn_file_actions_addopen(&actions, 0, "/dev/null", O_RDONLY, 0) == 0 &&
        posix_spawn_file_actions_adddup2(&actions, ends[1], 1) == 0 &&
        posix_spawn_file_actions_addopen(&actions, 2, "/dev/null", O_WRONLY, 0) == 0 &&
        posix_spawn(&pid, program, &actions, NULL, argv, environ) == 0;
    posix_spawn_file_actions_destroy(&actions);
    free(argv[0]);
    free(argv[1]);
    close(ends[1]);
    size_t len = 0;
    while (started && len < size - 1) {
        struct pollfd readable = {.fd = ends[0], .events = POLLIN};
        int ready = poll(&readable, 1, 5000);
        ssize_t got = ready > 0 ? read(ends[0], line + len, size - 1 - len) : -1;
        if (got > 0)
            len += (size_t)got;
        else if (ready == 0 || got == 0 || errno != EINTR)
            break;
    }
    close(ends[0]);
    line[len] = '\0';
    line[strcspn(line, "\n")] = '\0';
    if (started) {
        reaper_note(pid);
        if (len == 0)
            kill(pid, SIGKILL);
        while (waitpid(pid, NULL, 0) < 0 && errno == EINTR)
            ;
        reaper_forget(pid);
    }
    return line[0] != '\0';
}

/* "postgres (PostgreSQL) 15.20 (Debian …)" or "18beta1": 15, 18. 0 when there are no
 * server binaries. */
static int
major_version(const char *bindir)
{
    char program[PATH_MAX];
    int len = snprintf(program, sizeof program, "%s/initdb", bindir);
    if (len < 0 || (size_t)len >= sizeof program || access(program, X_OK) != 0)
        return 0;
    len = snprintf(program, sizeof program, "%s/postgres", bindir);
    if (len < 0 || (size_t)len >= sizeof program || access(program, X_OK) != 0)
        return 0;
    char line[256];
    if (!first_line(program, "--version", line, sizeof line))
        return 0;
    const char *version = strstr(line, "(PostgreSQL) ");
    long major = version ? strtol(version + strlen("(PostgreSQL) "), NULL, 10) : 0;
    return major > 0 && major < 1000 ? (int)major : 0;
}

static void
consider(struct search *search, const char *bindir)
{
    char absolute[PATH_MAX];
    if (!realpath(bindir, absolute))
        return;
    /* PATH may lead to the same folder many times. */
    if (strcmp(search->bindir, absolute) == 0 || strstr(search->others, absolute))
        return;
    int major = major_version(absolute);
    if (major == 0)
        return;
    bool fits = search->wanted ? major == search->wanted : major >= POSTGRES_OLDEST_MAJOR;
    if (!fits) {
        size_t used = strlen(search->others);
        snprintf(search->others + used, sizeof search->others - used, "%s%d in %s",
                 used ? ", " : "", major, absolute);
    } else if (major > search->best) {
        search->best = major;
        memcpy(search->bindir, absolute, sizeof absolute);
    }
}

static void
consider_debian(struct search *search)
{
    glob_t found;
    if (glob("/usr/lib/postgresql/*/bin", 0, NULL, &found) != 0)
        return;
    for (size_t i = 0; i < found.gl_pathc; i++)
        consider(search, found.gl_pathv[i]);
    globfree(&found);
}

/* The folders of PATH that hold a program, asked through `what`. */
static void
consider_path(struct search *search, const char *program,
              void (*what)(struct search *, const char *folder))
{
    const char *path = getenv("PATH");
    for (const char *at = path; at && *at;) {
        size_t len = strcspn(at, ":");
        char folder[PATH_MAX];
        char file[PATH_MAX];
        int folder_len = snprintf(folder, sizeof folder, "%.*s", (int)len, at);
        int file_len = snprintf(file, sizeof file, "%.*s/%s", (int)len, at, program);
        if (folder_len > 0 && (size_t)folder_len < sizeof folder &&
            (size_t)file_len < sizeof file && access(file, X_OK) == 0)
            what(search, folder);
        at += len + (at[len] == ':');
    }
}

static void
consider_pg_config(struct search *search, const char *folder)
{
    char program[PATH_MAX];
    char bindir[PATH_MAX];
    int len = snprintf(program, sizeof program, "%s/pg_config", folder);
    if (len > 0 && (size_t)len < sizeof program &&
        first_line(program, "--bindir", bindir, sizeof bindir))
        consider(search, bindir);
}

static int
not_found(const struct search *search, const char *forced, jobq_error *err)
{
    char wanted[48];
    if (search->wanted)
        snprintf(wanted, sizeof wanted, "PostgreSQL %d", search->wanted);
    else
        snprintf(wanted, sizeof wanted, "PostgreSQL %d or later", POSTGRES_OLDEST_MAJOR);
    const char *others = search->others[0] ? search->others : "none";
    if (forced)
        return jobq__error(err, JOBQ_ESTATE,
                           "JOBQ_PG_BINDIR=%s does not contain initdb and postgres of %s "
                           "(found there: %s)",
                           forced, wanted, others);
    if (search->wanted)
        return jobq__error(
            err, JOBQ_ESTATE,
            "no server binaries of %s, which the cluster needs (found: %s): install "
            "postgresql-%d, set JOBQ_PG_BINDIR, or dump with the old version and restore "
            "into a new directory; jobqd never upgrades a cluster by itself",
            wanted, others, search->wanted);
    return jobq__error(
        err, JOBQ_ESTATE,
        "no server binaries of %s in /usr/lib/postgresql/*/bin, pg_config --bindir or "
        "PATH (found: %s): install the package postgresql, or set JOBQ_PG_BINDIR to the "
        "folder that contains initdb and postgres",
        wanted, others);
}

int
postgres_binaries_find(struct postgres_binaries *out, int wanted_major, jobq_error *err)
{
    struct search search = {.wanted = wanted_major};
    const char *forced = getenv("JOBQ_PG_BINDIR");
    if (forced && !*forced)
        forced = NULL;
    if (forced) {
        consider(&search, forced);
    } else {
        consider_debian(&search);
        if (!search.best)
            consider_path(&search, "pg_config", consider_pg_config);
        if (!search.best)
            consider_path(&search, "postgres", consider);
    }
    if (!search.best)
        return not_found(&search, forced, err);
    struct postgres_binaries found = {.major = search.best};
    if (asprintf(&found.initdb, "%s/initdb", search.bindir) < 0)
        found.initdb = NULL;
    if (asprintf(&found.postgres, "%s/postgres", search.bindir) < 0)
        found.postgres = NULL;
    if (!found.initdb || !found.postgres) {
        postgres_binaries_clear(&found);
        return jobq__error(err, JOBQ_ENOMEM, "out of memory");
    }
    *out = found;
    return 0;
}

void
postgres_binaries_clear(struct postgres_binaries *binaries)
{
    free(binaries->initdb);
    free(binaries->postgres);
    *binaries = (struct postgres_binaries){0};
}
