/* bench_cluster.c: see bench_cluster.h. Knows no measurement. */
#include "jobqd/bench/bench_cluster.h"

#include <errno.h>
#include <fcntl.h>
#include <ftw.h>
#include <inttypes.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sysexits.h>
#include <time.h>
#include <unistd.h>

#include "jobqd/db/migrate.h"
#include "jobqd/db/query.h"
#include "jobqd/base/log.h"
#include "libjobq/error.h"

#define SCHEMA "jobq_bench"

extern const char sql_bench_preload[];

/* ---- Being told to stop ---- */

static volatile sig_atomic_t told_to_stop;

static void
on_stop(int number)
{
    (void)number;
    told_to_stop = 1;
}

/* No SA_RESTART: a pause ends at once. */
static void
catch_signals(void)
{
    struct sigaction action = {.sa_handler = on_stop};
    sigaction(SIGINT, &action, NULL);
    sigaction(SIGTERM, &action, NULL);
    sigaction(SIGHUP, &action, NULL);
}

int
bench_pause_us(int64_t us, jobq_error *err)
{
    const struct timespec pause = {.tv_sec = us / 1000000,
                                   .tv_nsec = (us % 1000000) * 1000};
    if (!told_to_stop && us > 0)
        nanosleep(&pause, NULL);
    return told_to_stop ? jobq__error(err, JOBQ_ESTATE, "stopped by a signal") : 0;
}

/* ---- The temporary directory ---- */

static int
remove_entry(const char *path, const struct stat *info, int type, struct FTW *where)
{
    (void)info;
    (void)type;
    (void)where;
    return remove(path) == 0 || errno == ENOENT ? 0 : -1;
}

static int
make_dir(struct bench *bench, jobq_error *err)
{
    const char *base = getenv("TMPDIR");
    char path[sizeof bench->dir];
    int len = snprintf(path, sizeof path, "%s/jobqd-bench-XXXXXX",
                       base != NULL && *base == '/' ? base : "/tmp");
    if (len < 0 || (size_t)len >= sizeof path)
        return jobq__error(err, JOBQ_EINVAL, "TMPDIR: the path is too long");
    /* The private cluster's user has to get through. */
    if (mkdtemp(path) == NULL || chmod(path, 0755) != 0)
        return jobq__error(err, JOBQ_EIO, "cannot make a directory %s: %s", path,
                           strerror(errno));
    memcpy(bench->dir, path, sizeof path);
    return 0;
}

/* ---- The database ---- */

/* The name's flag on the command line, NULL when it was not given. */
static const char *
flag(const struct cli *cli, const char *name)
{
    for (size_t i = 0; i < cli->n_flags; i++) {
        if (strcmp(cli->flags[i].name, name) == 0)
            return cli->flags[i].value;
    }
    return NULL;
}

/* Bench works on its own database unless the command line itself names another: what the
 * environment names may be in use. */
static bool
is_private(const struct cli *cli)
{
    return cli->file == NULL && flag(cli, "database") == NULL &&
           flag(cli, "embedded") == NULL;
}

static int
put_file(const char *dir, const char *name, const char *text, jobq_error *err)
{
    char path[PATH_MAX];
    snprintf(path, sizeof path, "%s/%s", dir, name);
    FILE *file = fopen(path, "wxe");
    bool failed = !file || fputs(text, file) == EOF;
    if (file != NULL)
        failed = fclose(file) != 0 || failed;
    return failed
               ? jobq__error(err, JOBQ_EIO, "cannot write %s: %s", path, strerror(errno))
               : 0;
}

/* Postgres' defaults but for these two, so that it is not the cache or the checkpoints
 * that are measured. jobq.lock marks the directory as one of ours. */
static int
start_private(struct bench *bench, const char **uri, jobq_error *err)
{
    char dir[PATH_MAX];
    snprintf(dir, sizeof dir, "%s/cluster", bench->dir);
    if (mkdir(dir, 0755) != 0)
        return jobq__error(err, JOBQ_EIO, "cannot make %s: %s", dir, strerror(errno));
    int rc = put_file(dir, "jobq.lock", "", err);
    if (rc == 0)
        rc = put_file(dir, "custom.conf", "shared_buffers = 1GB\nmax_wal_size = 4GB\n",
                      err);
    if (rc == 0)
        rc = embedded_run_for_command(dir, &bench->embedded, uri, err);
    return rc;
}

static int
copy_uri(struct bench *bench, const char *uri, jobq_error *err)
{
    if (uri != NULL && (bench->uri = strdup(uri)) == NULL)
        return jobq__error(err, JOBQ_ENOMEM, "out of memory");
    return 0;
}

int
bench_connect(const struct bench *bench, PGconn **out, jobq_error *err)
{
    return query_connect(bench->uri, out, err);
}

static int
open_private(struct bench *bench, jobq_error *err)
{
    const char *uri = NULL;
    int rc = start_private(bench, &uri, err);
    if (rc == 0)
        rc = copy_uri(bench, uri, err);
    return rc == 0 ? bench_connect(bench, &bench->conn, err) : rc;
}

/* The session's own connection is bench's. */
static int
open_named(struct bench *bench, jobq_error *err)
{
    const struct config *config = bench->session.config;
    bench->conn = bench->session.conn;
    bench->session.conn = NULL;
    return config->embedded != NULL ? embedded_uri(config->embedded, &bench->uri, err)
                                    : copy_uri(bench, config->database, err);
}

/* ---- The schema ---- */

static int
drop_schema(struct bench *bench, jobq_error *err)
{
    return query(bench->conn, bench->schema, "DROP SCHEMA IF EXISTS @schema@ CASCADE", 0,
                 NULL, NULL, err);
}

int
bench_fresh_schema(struct bench *bench, jobq_error *err)
{
    int rc = drop_schema(bench, err);
    if (rc != 0)
        return rc;
    bench->owns_schema = true;
    return migrate_apply(bench->conn, bench->schema, 0, MIGRATE_LOCK_WAIT_MS, NULL, NULL,
                         err);
}

/* Dropping is what bench does: so it touches no schema but those of its own name. */
static int
make_schema(struct bench *bench, jobq_error *err)
{
    const char *name = flag(bench->cli, "schema");
    bench->schema = name != NULL ? name : SCHEMA;
    if (strncmp(bench->schema, SCHEMA, strlen(SCHEMA)) != 0)
        return jobq__error(err, JOBQ_EINVAL,
                           "--schema: \"%s\" is not allowed: it must begin with %s, "
                           "since bench drops it",
                           bench->schema, SCHEMA);
    int64_t exists = 0;
    int rc = bench_value(
        bench, "SELECT count(*) FROM pg_namespace n WHERE n.nspname = '@channel@'", NULL,
        &exists, err);
    if (rc != 0)
        return rc;
    if (exists > 0 && !cli_has(bench->cli, "force"))
        return jobq__error(err, JOBQ_ESTATE,
                           "the schema %s exists: another bench is running, or one was "
                           "killed; --force drops it",
                           bench->schema);
    return bench_fresh_schema(bench, err);
}

/* ---- Statements ---- */

int
bench_run(struct bench *bench, const char *sql, const int64_t *param, PGresult **out,
          jobq_error *err)
{
    char text[24] = "";
    const char *const params[] = {text};
    if (param != NULL)
        snprintf(text, sizeof text, "%" PRId64, *param);
    return query(bench->conn, bench->schema, sql, param != NULL ? 1 : 0, params, out,
                 err);
}

int
bench_value(struct bench *bench, const char *sql, const int64_t *param, int64_t *out,
            jobq_error *err)
{
    PGresult *rows = NULL;
    int rc = bench_run(bench, sql, param, &rows, err);
    if (rc != 0)
        return rc;
    if (PQntuples(rows) > 0)
        *out = strtoll(PQgetvalue(rows, 0, 0), NULL, 10);
    else
        rc = jobq__error(err, JOBQ_ENOTFOUND, "no row came back");
    PQclear(rows);
    return rc;
}

int
bench_preload(struct bench *bench, int64_t n, jobq_error *err)
{
    int rc = bench_run(bench, sql_bench_preload, &n, NULL, err);
    return rc == 0 ? bench_run(bench, "ANALYZE @schema@.jobs", NULL, NULL, err) : rc;
}

int
bench_wal(struct bench *bench, int64_t *out, jobq_error *err)
{
    return bench_value(bench, "SELECT (pg_current_wal_insert_lsn() - '0/0')::bigint",
                       NULL, out, err);
}

/* ---- All of it ---- */

static int
open_all(struct bench *bench, jobq_error *err)
{
    char path[PATH_MAX];
    int rc = make_dir(bench, err);
    snprintf(path, sizeof path, "%s/shared", bench->dir);
    if (rc == 0)
        rc = bench_shared_create(path, &bench->shared, err);
    if (rc == 0)
        rc = is_private(bench->cli) ? open_private(bench, err) : open_named(bench, err);
    return rc == 0 ? make_schema(bench, err) : rc;
}

int
bench_open(struct bench *bench, const struct cli *cli)
{
    jobq_error err = {0};
    memset(bench, 0, sizeof *bench);
    bench->cli = cli;
    catch_signals();
    signal(SIGPIPE, SIG_IGN);
    if (!is_private(cli)) {
        int code = session_open(&bench->session, cli, SESSION_ANY_SCHEMA);
        if (code != EX_OK)
            return code;
    }
    log_setup(&(struct log_options){.level = LOG_LEVEL_WARNING});
    int rc = open_all(bench, &err);
    if (rc != 0)
        return cli_fail(cli, &err);
    report_begin(&bench->report, cli->json);
    return EX_OK;
}

int
bench_close(struct bench *bench, int code)
{
    jobq_error err = {0};
    report_end(&bench->report, code == EX_OK);
    if (bench->owns_schema && bench->embedded == NULL && drop_schema(bench, &err) != 0)
        cli_fail(bench->cli, &err);
    PQfinish(bench->conn);
    embedded_end_for_command(bench->embedded);
    session_close(&bench->session);
    bench_shared_unmap(bench->shared);
    free(bench->uri);
    if (bench->dir[0] != '\0' &&
        nftw(bench->dir, remove_entry, 16, FTW_DEPTH | FTW_PHYS) != 0)
        fprintf(stderr, "jobqd bench: cannot remove %s: %s\n", bench->dir,
                strerror(errno));
    return code;
}
