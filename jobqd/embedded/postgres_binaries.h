/* postgres_binaries.h: finds the installed Postgres server binaries. Starts nothing but
 * `… --version`. */
#ifndef JOBQD_POSTGRES_BINARIES_H
#define JOBQD_POSTGRES_BINARIES_H

#include <jobq/error.h>

#define POSTGRES_OLDEST_MAJOR 14

struct postgres_binaries {
    char *initdb; /* absolute paths */
    char *postgres;
    int major; /* 15 */
};

/* Finds initdb and postgres of the wanted major version, or of the newest (wanted_major
 * 0: a new cluster). Looked for in this order: $JOBQ_PG_BINDIR (then nowhere else),
 * /usr/lib/postgresql/N/bin, `pg_config --bindir`, PATH. JOBQ_ESTATE when there are none
 * that fit; the message says what was found and what to install. Blocks for some 10 ms.
 * Ownership: clear *out with postgres_binaries_clear. */
int postgres_binaries_find(struct postgres_binaries *out, int wanted_major,
                           jobq_error *err);
void postgres_binaries_clear(struct postgres_binaries *binaries);

#endif
