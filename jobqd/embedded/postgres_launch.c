/* postgres_launch.c: see postgres_launch.h. */
#include "jobqd/embedded/postgres_launch.h"

#include <signal.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "libjobq/error.h"

#define FIXED_ARGUMENTS                                                                  \
    24 /* room for all words but the caller's settings, and the NULL */

/* An argv as it grows. A failed allocation is remembered, and seen once, at the end. */
struct words {
    char **list;
    size_t n;
    bool failed;
};

static void
words_init(struct words *words, size_t more)
{
    words->list = calloc(FIXED_ARGUMENTS + more, sizeof *words->list);
    words->n = 0;
    words->failed = !words->list;
}

static void __attribute__((format(printf, 2, 3)))
add(struct words *words, const char *format, ...)
{
    if (words->failed)
        return;
    va_list arguments;
    va_start(arguments, format);
    words->failed = vasprintf(&words->list[words->n], format, arguments) < 0;
    va_end(arguments);
    if (!words->failed)
        words->n++;
}

static void
words_clear(struct words *words)
{
    for (size_t i = 0; words->list && i < words->n; i++)
        free(words->list[i]);
    free(words->list);
}

static int
launch(const struct postgres_launcher *launcher, struct words *words, int death_signal,
       struct postgres_launch *out, jobq_error *err)
{
    if (words->failed)
        return jobq__error(err, JOBQ_ENOMEM, "out of memory");
    struct postgres_launch launched;
    int log;
    int code = postgres_dir_open_log(launcher->dir, &log, &launched.log_from, err);
    if (code != 0)
        return code;
    const struct postgres_child_options options = {.argv = words->list,
                                                   .folder = launcher->dir->path,
                                                   .user = &launcher->dir->user,
                                                   .output = log,
                                                   .death_signal = death_signal};
    code = postgres_child_start(&launched.child, launcher->loop, &options,
                                launcher->on_exit, launcher->owner, err);
    close(log);
    if (code == 0)
        *out = launched;
    return code;
}

int
postgres_launch_initdb(const struct postgres_launcher *launcher,
                       struct postgres_launch *out, jobq_error *err)
{
    int code = postgres_dir_prepare_fresh(launcher->dir, err);
    if (code != 0)
        return code;
    struct words words;
    words_init(&words, 0);
    add(&words, "%s", launcher->binaries->initdb);
    add(&words, "-D");
    add(&words, "%s", launcher->dir->fresh);
    add(&words, "--username=jobq");
    add(&words, "--encoding=UTF8");
    add(&words, "--locale=C.UTF-8");
    add(&words, "--data-checksums");
    add(&words, "--auth-local=peer");
    add(&words, "--auth-host=reject");
    /* Not TERM: it would remove data.new, by its name, beside the next jobqd that makes
     * another one there. */
    code = launch(launcher, &words, SIGKILL, out, err);
    words_clear(&words);
    return code;
}

static size_t
count(char *const *settings)
{
    size_t n = 0;
    while (settings && settings[n])
        n++;
    return n;
}

int
postgres_launch_server(const struct postgres_launcher *launcher,
                       struct postgres_launch *out, jobq_error *err)
{
    const struct postgres_dir *dir = launcher->dir;
    int code = postgres_dir_write_files(dir, err);
    if (code != 0)
        return code;
    struct words words;
    words_init(&words, 2 * count(launcher->settings));
    add(&words, "%s", launcher->binaries->postgres);
    add(&words, "-D");
    add(&words, "%s", dir->data);
    for (char *const *setting = launcher->settings; setting && *setting; setting++) {
        add(&words, "-c");
        add(&words, "%s", *setting);
    }
    /* On the command line, so that no file and no ALTER SYSTEM overrides them. */
    add(&words, "-c");
    add(&words, "config_file=%s/postgresql.conf", dir->path);
    add(&words, "-c");
    add(&words, "hba_file=%s/pg_hba.conf", dir->path);
    add(&words, "-c");
    add(&words, "ident_file=%s/pg_ident.conf", dir->path);
    add(&words, "-c");
    add(&words, "unix_socket_directories=%s", dir->sockets);
    add(&words, "-c");
    add(&words, "listen_addresses=");
    add(&words, "-c");
    add(&words, "port=5432");
    /* INT: a fast shutdown, when we are killed. */
    code = launch(launcher, &words, SIGINT, out, err);
    words_clear(&words);
    return code;
}

int
postgres_settings_check(const char *const *settings, jobq_error *err)
{
    static const char *const ours[] = {
        "config_file",       "data_directory",   "hba_file", "ident_file",
        "external_pid_file", "listen_addresses", "port",     "unix_socket_directories"};
    for (; settings && *settings; settings++) {
        size_t len =
            strspn(*settings, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ"
                              "0123456789_.");
        if (len == 0 || (*settings)[len] != '=')
            return jobq__error(err, JOBQ_EINVAL,
                               "Postgres setting \"%s\": must be name=value", *settings);
        for (size_t i = 0; i < sizeof ours / sizeof *ours; i++)
            if (strlen(ours[i]) == len && strncasecmp(*settings, ours[i], len) == 0)
                return jobq__error(err, JOBQ_EINVAL,
                                   "Postgres setting \"%s\": jobqd sets %s itself",
                                   *settings, ours[i]);
    }
    return 0;
}
