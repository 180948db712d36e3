/* jobs_filter.h: the flags that say which jobs a command is for (--queue, --state …), as
 * the parameters of jobs_list.sql and jobs_many.sql. */
#ifndef JOBQD_JOBS_FILTER_H
#define JOBQD_JOBS_FILTER_H

#include <jobq/error.h>
#include <stdbool.h>

#include "jobqd/cli/cli.h"
#include "jobqd/cli/session.h"

/* The rows of a command's table of options, but for --limit. */
#define JOBS_FILTER_OPTIONS                                                              \
    {"queue", "QUEUE", "only jobs in this queue"},                                       \
        {"kind", "KIND", "only jobs of this kind"},                                      \
        {"state", "STATE,...",                                                           \
         "only jobs in any of these states; allowed are scheduled, available, "          \
         "executing, "                                                                   \
         "retryable, suspended, completed, cancelled, discarded"},                       \
        {"tags", "TAG,...", "only jobs with this tag, or with all of these"},            \
        {"key", "KEY", "only jobs with this key"},                                       \
        {"args", "JSON", "only jobs whose args contain this object"},                    \
        {"before", "TIME", "only jobs inserted before this time: 2026-11-22T10:11:12Z"}, \
    {                                                                                    \
        "older-than", "TIME", "only jobs inserted at least this long ago: 90s, 5m, 30d"  \
    }

enum jobs_filter_param {
    JOBS_FILTER_QUEUE,
    JOBS_FILTER_KIND,
    JOBS_FILTER_STATE,
    JOBS_FILTER_TAGS,
    JOBS_FILTER_KEY,
    JOBS_FILTER_ARGS,
    JOBS_FILTER_BEFORE,
    JOBS_FILTER_OLDER_MS,
    JOBS_FILTER_LIMIT,
    JOBS_FILTER_PARAMS
};

struct jobs_filter {
    const char *values[JOBS_FILTER_PARAMS]; /* NULL: any */
    char older_ms[32];
    char limit[32];
    bool given; /* at least one of them, --limit aside */
};

/* Everything that can be known to be wrong without asking the database; the command has
 * --limit, too. */
int jobs_filter_read(struct jobs_filter *filter, const struct cli *cli, int64_t max_limit,
                     jobq_error *err);
/* A state that is none is told with the list of those that are. */
int jobs_filter_check_state(const struct jobs_filter *filter, struct session *session,
                            jobq_error *err);
/* What the database's rc and err mean: an error that names --before, if that was it. */
int jobs_filter_time_fault(const struct jobs_filter *filter, int rc, jobq_error *err);

#endif
