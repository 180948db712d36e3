/* session.h: what a command needs for its duration: the configuration, and a connection
 * to the right database with the right schema. An embedded database that is not running
 * runs for as long as the command does.
 */
#ifndef JOBQD_SESSION_H
#define JOBQD_SESSION_H

#include <libpq-fe.h>

#include "jobqd/cli/cli.h"
#include "jobqd/embedded/postgres.h"
#include "jobqd/config/config.h"
#include "jobqd/pool/launch.h"

enum session_need {
    SESSION_ANY_SCHEMA,        /* whatever is there, even nothing: for migrate */
    SESSION_NO_FOREIGN_SCHEMA, /* any version, even none, but not another's */
    SESSION_OUR_SCHEMA         /* the version that this jobqd knows */
};

struct session {
    struct config *config;
    struct embedded_session *embedded;
    PGconn *conn;
};

/* Reads the configuration as the command line says, and checks all of it. */
int session_read(struct config **out, const struct cli *cli, jobq_error *err);
/* The same for whoever is to start the queues' programs: what they are to be confined to
 * is tried out, which waits for a short-lived child process a queue; and the crons' time
 * zones are looked for. */
int session_read_queues(struct config **out, const struct cli *cli, enum launch_use use,
                        jobq_error *err);
/* The same for a command. Both return 0 or, having told on stderr, the exit code. */
int session_load(struct config **out, const struct cli *cli);
/* To start them it sets the log up, too. */
int session_load_queues(struct config **out, const struct cli *cli, enum launch_use use);
/* An embedded database that has no schema yet gets it: it is ours alone. session_close
 * also after a failure. */
int session_open(struct session *session, const struct cli *cli, enum session_need need);
void session_close(struct session *session);

/* query() on the session's connection and schema. */
int session_query(struct session *session, const char *sql, int n,
                  const char *const *params, PGresult **out, jobq_error *err);

#endif
