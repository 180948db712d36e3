/* job.c: a job and its texts in one piece of memory; the names of verdicts, from the one
 * list in job.h. */
#include "jobqd/pure/job.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static char *
put_text(char *at, const char **where, const char *text, size_t len)
{
    memcpy(at, text, len);
    at[len] = '\0';
    *where = at;
    return at + len + 1;
}

struct job *
job_new(const char *kind, size_t kind_len, const char *args, size_t args_len,
        const char *meta, size_t meta_len)
{
    size_t texts = kind_len + 1 + (args ? args_len + meta_len + 2 : 0);
    struct job *job = malloc(sizeof *job + texts);
    if (!job)
        return NULL;
    memset(job, 0, sizeof *job);
    list_init(&job->link);
    list_init(&job->held);
    char *at = put_text((char *)(job + 1), &job->kind, kind, kind_len);
    if (args) {
        job->args_len = args_len;
        job->meta_len = meta_len;
        at = put_text(at, &job->args, args, args_len);
        put_text(at, &job->meta, meta, meta_len);
    }
    return job;
}

void
verdict_of_cancelled(const struct verdict *said, struct verdict *out,
                     char text[VERDICT_TEXT])
{
    *out = *said;
    if (said->kind == VERDICT_OK)
        return;
    bool more = said->error && said->kind != VERDICT_CANCELLED;
    snprintf(text, VERDICT_TEXT, "cancelled by request%s%s", more ? ": " : "",
             more ? said->error : "");
    out->kind = VERDICT_ABORTED;
    out->error = text;
    out->delay_ms = -1;
}

const char *
verdict_name(enum verdict_kind kind)
{
    switch (kind) {
#define X(name, label)                                                                   \
    case name:                                                                           \
        return &#name[sizeof "VERDICT_" - 1];
        VERDICTS(X)
#undef X
    }
    return "?";
}

const char *
verdict_error_kind(enum verdict_kind kind)
{
    switch (kind) {
#define X(name, label)                                                                   \
    case name:                                                                           \
        return label;
        VERDICTS(X)
#undef X
    }
    return NULL;
}
