/* embedded.h: the .sql files of migrations/ and jobqd/sql/, compiled in by embed.cmake.
 *
 * The texts hold @schema@ (the schema's name) and @channel@ (the NOTIFY channel): see
 * base/sqltext.h.
 */
#ifndef JOBQD_EMBEDDED_H
#define JOBQD_EMBEDDED_H

struct embedded_file {
    const char *name; /* "0001_schema.up.sql" */
    const char *text;
};

extern const struct embedded_file embedded_migrations[];
extern const unsigned embedded_migrations_count;

#endif
