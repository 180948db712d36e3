/* query.h: a blocking connection, and one statement on it: schema filled in, parameters
 * bound, and what went wrong as a jobq_error. For commands and migrations; nothing of
 * this may run on the daemon's loop. */
#ifndef JOBQD_QUERY_H
#define JOBQD_QUERY_H

#include <jobq/error.h>
#include <libpq-fe.h>

/* Connects, waiting at most 10 s unless the string or PGCONNECT_TIMEOUT says otherwise.
 * conninfo: a URI, a keyword string or the name of a database; NULL or "": libpq's own
 * environment. The caller's to PQfinish. JOBQ_EINVAL when libpq cannot read it,
 * JOBQ_ECONN when nobody answers, or not in time, or the server refuses. No message holds
 * the password. */
int query_connect(const char *conninfo, PGconn **out, jobq_error *err);

/* Whether libpq can read the string: JOBQ_EINVAL when not, and err begins with label. */
int query_check_conninfo(const char *label, const char *conninfo, jobq_error *err);

/* Runs sql (with @schema@ and @channel@) with n text parameters (NULL: SQL null). *out,
 * if not NULL, is the caller's to PQclear. Without parameters sql may hold several
 * statements; then the last one's result counts. Names are looked up in pg_catalog only,
 * on each connection of query_connect's. So BEGIN is query_begin's, COMMIT and ROLLBACK
 * are statements like others; behind a pooler what stands in no transaction is one.
 *
 * JOBQ_ECONN: the connection is gone. JOBQ_EINVAL, JOBQ_ENOTFOUND, JOBQ_ESTATE: as jobq's
 * functions say by SQLSTATE. JOBQ_EDB: any other error; sqlstate is set and the message
 * is the server's. */
int query(PGconn *conn, const char *schema, const char *sql, int n,
          const char *const *params, PGresult **out, jobq_error *err);

/* BEGIN with its modes ("READ ONLY", "": the database's), and what transaction_setup
 * sets in it. */
int query_begin(PGconn *conn, const char *modes, jobq_error *err);

#endif
