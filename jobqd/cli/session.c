/* session.c: see session.h. */
#include "jobqd/cli/session.h"

#include <stdbool.h>
#include <string.h>
#include <sysexits.h>
#include <unistd.h>

#include "jobqd/db/migrate.h"
#include "jobqd/db/query.h"
#include "jobqd/db/rights.h"
#include "jobqd/base/log.h"
#include "libjobq/error.h"

int
session_read(struct config **out, const struct cli *cli, jobq_error *err)
{
    struct config *config = NULL;
    int rc = config_load(&config, cli->file, environ, cli->flags, cli->n_flags, err);
    if (rc == 0 && config->database != NULL)
        rc = query_check_conninfo(config->database_from, config->database, err);
    if (rc == 0)
        *out = config; /* the caller's */
    else
        config_free(config);
    return rc;
}

/* log_first: what is no error is logged, and in the way that the configuration says. */
static int
read_queues(struct config **out, const struct cli *cli, enum launch_use use,
            bool log_first, jobq_error *err)
{
    struct config *config = NULL;
    int rc = session_read(&config, cli, err);
    if (rc == 0 && log_first)
        log_setup(&config->log);
    if (rc == 0 && config->replaced != NULL)
        rc = jobq__error(err, JOBQ_EINVAL, "%s", config->replaced);
    if (rc == 0)
        rc = config_check_zones(config, err);
    if (rc == 0)
        rc = launch_check(config, use, err);
    if (rc == 0)
        *out = config; /* the caller's */
    else
        config_free(config);
    return rc;
}

int
session_read_queues(struct config **out, const struct cli *cli, enum launch_use use,
                    jobq_error *err)
{
    return read_queues(out, cli, use, false, err);
}

static int
tell(const struct cli *cli, int rc, const jobq_error *err)
{
    if (rc == 0)
        return EX_OK;
    if (rc == JOBQ_ENOMEM)
        return cli_fail(cli, err);
    /* A wrong flag is the user's slip, a wrong file or variable the configuration's. */
    return cli_fail_as(cli, strncmp(err->message, "--", 2) == 0 ? EX_USAGE : EX_CONFIG,
                       err);
}

int
session_load(struct config **out, const struct cli *cli)
{
    jobq_error err = {0};
    int rc = session_read(out, cli, &err);
    return tell(cli, rc, &err);
}

int
session_load_queues(struct config **out, const struct cli *cli, enum launch_use use)
{
    jobq_error err = {0};
    int rc = read_queues(out, cli, use, use == LAUNCH_STARTS, &err);
    return tell(cli, rc, &err);
}

static int
connect_session(struct session *session, enum session_need need, jobq_error *err)
{
    const struct config *config = session->config;
    const char *conninfo = config->database;
    int rc = 0, found = 0;
    if (config->embedded != NULL)
        rc = embedded_run_for_command(config->embedded, &session->embedded, &conninfo,
                                      err);
    if (rc == 0)
        rc = query_connect(conninfo, &session->conn, err);
    if (rc == 0 && need == SESSION_NO_FOREIGN_SCHEMA)
        return rights_check_foreign(session->conn, config->schema, NULL, 0, err);
    if (rc != 0 || need == SESSION_ANY_SCHEMA)
        return rc;
    rc = migrate_check(session->conn, config->schema, &found, err);
    if (rc == JOBQ_ESCHEMA && found == 0 && config->embedded != NULL)
        rc = migrate_apply(session->conn, config->schema, 0, MIGRATE_LOCK_WAIT_MS, NULL,
                           NULL, err);
    return rc;
}

int
session_open(struct session *session, const struct cli *cli, enum session_need need)
{
    jobq_error err = {0};
    memset(session, 0, sizeof *session);
    int code = session_load(&session->config, cli);
    if (code != EX_OK)
        return code;
    log_setup(&session->config->log);
    return connect_session(session, need, &err) == 0 ? EX_OK : cli_fail(cli, &err);
}

void
session_close(struct session *session)
{
    PQfinish(session->conn);
    embedded_end_for_command(session->embedded);
    config_free(session->config);
    memset(session, 0, sizeof *session);
}

int
session_query(struct session *session, const char *sql, int n, const char *const *params,
              PGresult **out, jobq_error *err)
{
    return query(session->conn, session->config->schema, sql, n, params, out, err);
}
