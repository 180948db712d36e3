/* jobs_filter.c: see jobs_filter.h. */
#include "jobqd/commands/jobs_filter.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "libjobq/backoff.h"
#include "libjobq/error.h"
#include "libjobq/json.h"

extern const char sql_job_states[];

static int
read_older(struct jobs_filter *filter, const char *text, jobq_error *err)
{
    jobq_error why = {0};
    int64_t ms = 0;
    if (!text)
        return 0;
    int rc = jobq__duration_parse(text, &ms, &why);
    if (rc != 0)
        return jobq__error(err, rc, "--older-than: %s", why.message);
    snprintf(filter->older_ms, sizeof filter->older_ms, "%" PRId64, ms);
    filter->values[JOBS_FILTER_OLDER_MS] = filter->older_ms;
    return 0;
}

static int
read_limit(struct jobs_filter *filter, const struct cli *cli, int64_t max,
           jobq_error *err)
{
    int64_t limit = 0;
    int rc = cli_get_int(cli, "limit", 1, max, &limit, err);
    if (rc == 0 && limit > 0) {
        snprintf(filter->limit, sizeof filter->limit, "%" PRId64, limit);
        filter->values[JOBS_FILTER_LIMIT] = filter->limit;
    }
    return rc;
}

/* Every job contains {}, and has all of no tags: whoever says that means something else.
 */
static int
check_contained(const struct jobs_filter *filter, jobq_error *err)
{
    const char *args = filter->values[JOBS_FILTER_ARGS];
    const char *tags = filter->values[JOBS_FILTER_TAGS];
    if (tags && *tags == '\0')
        return jobq__error(err, JOBQ_EINVAL, "--tags: needs at least one tag");
    if (!args)
        return 0;
    int rc = jobq__json_check_object(args, strlen(args), "--args", err);
    if (rc == 0 && strcspn(args, "\"") == strlen(args))
        rc = jobq__error(err, JOBQ_EINVAL, "--args: needs at least one member, got %s",
                         args);
    return rc;
}

int
jobs_filter_read(struct jobs_filter *filter, const struct cli *cli, int64_t max_limit,
                 jobq_error *err)
{
    static const struct {
        const char *option;
        enum jobs_filter_param param;
    } texts[] = {{"queue", JOBS_FILTER_QUEUE},  {"kind", JOBS_FILTER_KIND},
                 {"state", JOBS_FILTER_STATE},  {"tags", JOBS_FILTER_TAGS},
                 {"key", JOBS_FILTER_KEY},      {"args", JOBS_FILTER_ARGS},
                 {"before", JOBS_FILTER_BEFORE}};
    memset(filter, 0, sizeof *filter);
    filter->given = cli_has(cli, "older-than");
    for (size_t i = 0; i < sizeof texts / sizeof texts[0]; i++) {
        const char *text = cli_get(cli, texts[i].option);
        filter->values[texts[i].param] = text;
        filter->given = filter->given || text != NULL;
    }
    int rc = check_contained(filter, err);
    if (rc == 0 && cli_has(cli, "before") && cli_has(cli, "older-than"))
        rc = jobq__error(err, JOBQ_EINVAL,
                         "--before and --older-than exclude each other: give only one");
    if (rc == 0)
        rc = cli_check_time("before", filter->values[JOBS_FILTER_BEFORE], err);
    if (rc == 0)
        rc = read_older(filter, cli_get(cli, "older-than"), err);
    if (rc == 0)
        rc = read_limit(filter, cli, max_limit, err);
    return rc;
}

int
jobs_filter_time_fault(const struct jobs_filter *filter, int rc, jobq_error *err)
{
    if (strcmp(err->sqlstate, "22007") != 0 && strcmp(err->sqlstate, "22008") != 0)
        return rc;
    return jobq__error(err, JOBQ_EINVAL,
                       "--before: \"%s\" is not a time: write it as 2026-11-22T10:11:12Z",
                       filter->values[JOBS_FILTER_BEFORE]);
}

int
jobs_filter_check_state(const struct jobs_filter *filter, struct session *session,
                        jobq_error *err)
{
    const char *states = filter->values[JOBS_FILTER_STATE];
    PGresult *result = NULL;
    if (!states)
        return 0;
    int rc = session_query(session, sql_job_states, 1, &states, &result, err);
    if (rc != 0)
        return rc;
    if (*PQgetvalue(result, 0, 1) != 't')
        rc = jobq__error(err, JOBQ_EINVAL, "--state: \"%s\" is not allowed: %s", states,
                         PQgetvalue(result, 0, 0));
    PQclear(result);
    return rc;
}
