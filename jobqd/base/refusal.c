/* refusal.c: see refusal.h. */
#include "jobqd/base/refusal.h"

#include <stdbool.h>
#include <stddef.h>
#include <string.h>
#include <sysexits.h>

#include "libjobq/buf.h"
#include "libjobq/error.h"

static bool
is_state(const char *text)
{
    return strspn(text, "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZ") == 5 && text[5] == ':';
}

void
refusal_read(const char *message, jobq_error *why)
{
    struct jobq__buf text = {0};
    char state[6] = "";
    for (const char *line = message; *line;) {
        const char *end = strchrnul(line, '\n');
        const char *colon = strstr(line, ":  ");
        if (strncmp(line, "LOCATION: ", 10) == 0) {
            line = *end ? end + 1 : end;
            continue;
        }
        jobq__buf_adds(&text, text.len > 0 ? "\n" : "");
        if (colon && colon < end && is_state(colon + 3)) {
            memcpy(state, colon + 3, 5);
            jobq__buf_add(&text, line, (size_t)(colon + 3 - line));
            line = colon + 3 + sizeof "28P01: " - 1;
        }
        jobq__buf_add(&text, line, (size_t)(end - line));
        line = *end ? end + 1 : end;
    }
    const char *known = jobq__buf_cstr(&text) ? text.data : message;
    bool read_only = strstr(known, "session is read-only") != NULL;
    jobq__error(why, JOBQ_ECONN, "%s%s", known,
                read_only ? ": it is a replica, or default_transaction_read_only is on "
                            "for the database or the role"
                          : "");
    memcpy(why->sqlstate, state, sizeof state);
    jobq__buf_clear(&text);
}

static const struct remedy remedies[] = {
    {"28P01", EX_NOPERM, "fix the password, in database = or in ~/.pgpass"},
    {"28000", EX_NOPERM, "fix the role in database = or the server's pg_hba.conf"},
    {"3D000", EX_UNAVAILABLE, "create it (createdb NAME), then: jobqd migrate up"},
    {"42501", EX_NOPERM, "as its owner: GRANT CONNECT ON DATABASE … TO the role"},
};

const struct remedy *
refusal_remedy(const char *sqlstate)
{
    for (size_t i = 0; i < sizeof remedies / sizeof remedies[0]; i++) {
        if (strcmp(sqlstate, remedies[i].sqlstate) == 0)
            return &remedies[i];
    }
    return NULL;
}
