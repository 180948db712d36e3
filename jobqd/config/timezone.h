/* timezone.h: the time zones that this host's C library knows: its files, as tzdata
 * installs them. For checking a configuration and for `jobqd cron next`: when a cron
 * comes is up to the database, by its own. */
#ifndef JOBQD_TIMEZONE_H
#define JOBQD_TIMEZONE_H

#include <jobq/error.h>
#include <stdbool.h>
#include <stdint.h>

/* Whether it looks like a zone's name: letters, digits and _ + - between single slashes.
 */
bool timezone_is_name(const char *name);

/* Whether this host knows the zone. JOBQ_EINVAL says what was found and what is allowed;
 * JOBQ_ENOTFOUND: it knows none at all but UTC. */
int timezone_check(const char *name, jobq_error *err);

/* For a short-lived process: its own time zone, of which there is one for all, from now
 * on. The name has been checked: the C library takes an unknown one for UTC. */
int timezone_use(const char *name, jobq_error *err);
/* What is to be added to UTC there, at a moment in seconds since 1970; for cron_next. */
int64_t timezone_offset(void *data, int64_t at_s);

#endif
