/* pgroute.h: where to connect to. Reads what a connection string, the environment and the
 * service file say together, looks host names up without blocking the loop, and starts
 * libpq's connection with the addresses that were found.
 *
 * It does not wait for the connection, retry, or keep time: that is pgconn's.
 */
#ifndef JOBQD_PGROUTE_H
#define JOBQD_PGROUTE_H

#include <jobq/error.h>
#include <libpq-fe.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <uv.h>

struct pgroute;

/* conninfo (NULL: the environment alone) and application are copied. JOBQ_EINVAL: libpq
 * cannot read the connection string; err says why. */
int pgroute_new(struct pgroute **out, uv_loop_t *loop, const char *conninfo,
                const char *application, jobq_error *err);
void pgroute_free(struct pgroute *route); /* abandons a look-up that is under way */

/* Reads the settings anew and looks up what has to be looked up; then pgroute_connect.
 * When *waiting is set, that is when on_found is called, from the loop; otherwise at
 * once. Returns 0 or a negative JOBQ_E… with err. */
typedef void (*pgroute_found)(void *owner);
int pgroute_look_up(struct pgroute *route, pgroute_found on_found, void *owner,
                    bool *waiting, jobq_error *err);
/* on_found will not be called. */
void pgroute_abandon(struct pgroute *route);

/* Starts to connect: *out is a connection to drive with PQconnectPoll, the caller's to
 * PQfinish. JOBQ_ECONN: no host was found. */
int pgroute_connect(struct pgroute *route, PGconn **out, jobq_error *err);

/* The connection hangs at the host that it is trying: the next pgroute_connect begins
 * with the host behind that one. (libpq moves on by itself when a host refuses, but only
 * its blocking functions give up on a silent one.) True when there is another host. */
bool pgroute_pass_by(struct pgroute *route, const PGconn *pg);

/* For how long to wait for one host: libpq's connect_timeout, by default 10 s; 0: for
 * ever. */
int64_t pgroute_timeout_ms(const struct pgroute *route);

#endif
