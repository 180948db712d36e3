/* rights.h: whose the schema is, and who may what in it.
 *
 * Ours is a schema that belongs to the role that we are, or to one that we were made a
 * member of, in which no other role may create anything, and whose things all belong to
 * its owner: in any other a step's functions could be replaced, or overloaded, by whoever
 * may. The rights are those of sql/parts/grants.sql. Plain blocking libpq, within the
 * caller's transaction.
 */
#ifndef JOBQD_RIGHTS_H
#define JOBQD_RIGHTS_H

#include <jobq/error.h>
#include <libpq-fe.h>
#include <stdbool.h>
#include <stddef.h>

/* JOBQ_ESCHEMA: the schema is not ours; the message says why, and what to do. 0 also when
 * it is missing. but_grants: what rights_grant takes away is no reason. Nothing in the
 * schema is called. */
int rights_check_schema(PGconn *conn, const char *schema, bool but_grants,
                        jobq_error *err);

/* JOBQ_ESCHEMA: another role may have put there what it likes, so nothing in the schema
 * is read or called; the message says why, and what to do: with remedy (size bytes) not
 * NULL, that stands there and not in the message. Less is asked than of who migrates: the
 * role that we are need not own the schema. 0 also when it is missing. */
int rights_check_foreign(PGconn *conn, const char *schema, char *remedy, size_t size,
                         jobq_error *err);

/* JOBQ_ESCHEMA: something that jobq has made calls an operator or a function of
 * another's; the message names it, and what mends it, if there is room. */
int rights_check_bound(PGconn *conn, const char *schema, jobq_error *err);

/* Creates the roles that are missing, where we may: without them the rest works. */
int rights_make_roles(PGconn *conn, const char *schema, jobq_error *err);

/* Until the transaction's end we are the schema's owner: what is made belongs to it, too,
 * whichever of its members makes it. Nothing happens where we are, or it is missing. */
int rights_become_owner(PGconn *conn, const char *schema, jobq_error *err);

/* Gives jobq's roles their rights on what is there; takes the rest from them and PUBLIC.
 */
int rights_grant(PGconn *conn, const char *schema, jobq_error *err);

/* Where they are not right: rows of a role, how many it lacks, how many it has too many,
 * and one of them; a role that is missing has NULL there. Ownership: *out is the
 * caller's. */
int rights_wrong(PGconn *conn, const char *schema, PGresult **out, jobq_error *err);

#endif
