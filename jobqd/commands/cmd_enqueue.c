/* cmd_enqueue.c: `enqueue`: one job from the command line, or many from lines of JSON.
 *
 * Many are all or nothing: they are inserted in batches, in one transaction, which begins
 * with the first full batch or at the end of the input. So a wrong line leaves nothing
 * behind and the whole input can be sent again.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sysexits.h>

#include "jobqd/base/jsontree.h"
#include "jobqd/commands/commands.h"
#include "jobqd/db/query.h"
#include "jobqd/cli/session.h"
#include "libjobq/backoff.h"
#include "libjobq/buf.h"
#include "libjobq/error.h"
#include "libjobq/json.h"

#define BATCH_JOBS 1000
#define BATCH_BYTES ((size_t)8 * 1024 * 1024)
#define MAX_LINE_BYTES ((size_t)16 * 1024 * 1024)
#define MAX_DELAY_MS ((int64_t)36500 * 24 * 3600 * 1000)
#define MAX_TIMEOUT_MS INT32_MAX

extern const char sql_job_enqueue[], sql_job_enqueue_many[];

/* ---- One ---- */

enum {
    P_KIND,
    P_ARGS,
    P_QUEUE,
    P_PRIORITY,
    P_AT,
    P_IN,
    P_MAX_ATTEMPTS,
    P_KEY,
    P_UNIQUE,
    P_TAGS,
    P_META,
    P_TIMEOUT,
    P_UNIQUE_BY,
    P_ON_CONFLICT,
    P_REPLACE,
    P_EXPIRES_AT,
    P_EXPIRES_IN,
    N_PARAMS
};

/* The parameters of job_enqueue (jobs.sql); numbers and durations as text in `texts`. */
struct job_params {
    const char *values[N_PARAMS];
    char texts[N_PARAMS][32];
};

static int
set_number(struct job_params *params, int nth, const struct cli *cli, const char *option,
           int64_t min, int64_t max, jobq_error *err)
{
    int64_t number = 0;
    if (!cli_has(cli, option))
        return 0;
    int rc = cli_get_int(cli, option, min, max, &number, err);
    if (rc != 0)
        return rc;
    snprintf(params->texts[nth], sizeof params->texts[nth], "%lld", (long long)number);
    params->values[nth] = params->texts[nth];
    return 0;
}

static int
set_duration(struct job_params *params, int nth, const struct cli *cli,
             const char *option, int64_t min, int64_t max, jobq_error *err)
{
    const char *text = cli_get(cli, option);
    jobq_error why = {0};
    int64_t ms = 0;
    if (!text)
        return 0;
    int rc = jobq__duration_parse(text, &ms, &why);
    if (rc != 0)
        return jobq__error(err, rc, "--%s: %s", option, why.message);
    if (ms < min || ms > max)
        return jobq__error(err, JOBQ_EINVAL,
                           "--%s: \"%s\" is not allowed: %lldms to %lldd", option, text,
                           (long long)min, (long long)(max / (24 * 3600 * 1000)));
    snprintf(params->texts[nth], sizeof params->texts[nth], "%lld", (long long)ms);
    params->values[nth] = params->texts[nth];
    return 0;
}

static int
set_json(struct job_params *params, int nth, const char *text, const char *what,
         jobq_error *err)
{
    params->values[nth] = text;
    return text == NULL ? 0 : jobq__json_check_object(text, strlen(text), what, err);
}

/* A kind that looks like JSON is the args of a job whose kind was forgotten. */
static int
check_kind(const char *kind, jobq_error *err)
{
    kind += strspn(kind, " \t\r\n");
    if (*kind != '{' && *kind != '[' && *kind != '"')
        return 0;
    return jobq__error(err, JOBQ_EINVAL,
                       "the kind \"%.40s%s\" looks like JSON: the kind comes first, then "
                       "the args, as in: jobqd enqueue resize '{\"photo\": 7}'",
                       kind, strlen(kind) > 40 ? "..." : "");
}

/* Everything that can be known to be wrong without asking the database. */
static int
fill_params(struct job_params *params, const struct cli *cli, jobq_error *err)
{
    memset(params, 0, sizeof *params);
    params->values[P_KIND] = cli->args[0];
    params->values[P_QUEUE] = cli_get(cli, "queue");
    params->values[P_AT] = cli_get(cli, "at");
    params->values[P_KEY] = cli_get(cli, "key");
    params->values[P_UNIQUE] = cli_get(cli, "unique");
    params->values[P_TAGS] = cli_get(cli, "tags");
    params->values[P_ON_CONFLICT] = cli_get(cli, "on-conflict");
    params->values[P_REPLACE] = cli_get(cli, "replace");
    params->values[P_EXPIRES_AT] = cli_get(cli, "expires-at");
    if (cli_has(cli, "at") && cli_has(cli, "in"))
        return jobq__error(err, JOBQ_EINVAL,
                           "--at and --in exclude each other: give only one");
    if (cli_has(cli, "expires-at") && cli_has(cli, "expires-in"))
        return jobq__error(
            err, JOBQ_EINVAL,
            "--expires-at and --expires-in exclude each other: give only one");
    int rc = check_kind(cli->args[0], err);
    if (rc == 0)
        rc = cli_check_time("at", params->values[P_AT], err);
    if (rc == 0)
        rc = cli_check_time("expires-at", params->values[P_EXPIRES_AT], err);
    if (rc == 0)
        rc = set_json(params, P_ARGS, cli->n_args > 1 ? cli->args[1] : NULL, "args", err);
    if (rc == 0)
        rc = set_json(params, P_META, cli_get(cli, "meta"), "--meta", err);
    if (rc == 0)
        rc = set_number(params, P_PRIORITY, cli, "priority", 0, 9, err);
    if (rc == 0)
        rc = set_number(params, P_MAX_ATTEMPTS, cli, "max-attempts", 1, 1000, err);
    if (rc == 0)
        rc = set_duration(params, P_IN, cli, "in", 0, MAX_DELAY_MS, err);
    if (rc == 0)
        rc = set_duration(params, P_TIMEOUT, cli, "timeout", 1, MAX_TIMEOUT_MS, err);
    if (rc == 0)
        rc = set_duration(params, P_EXPIRES_IN, cli, "expires-in", 1, MAX_DELAY_MS, err);
    if (rc == 0)
        rc = set_json(params, P_UNIQUE_BY, cli_get(cli, "unique-by"), "--unique-by", err);
    if (rc == 0 && params->values[P_REPLACE] != NULL)
        rc = jobq__json_check(params->values[P_REPLACE],
                              strlen(params->values[P_REPLACE]), "--replace", err);
    return rc;
}

static int
enqueue_one(struct session *session, const struct cli *cli,
            const struct job_params *params, jobq_error *err)
{
    PGresult *result = NULL;
    jobq_error why = {0};
    int rc =
        session_query(session, sql_job_enqueue, N_PARAMS, params->values, &result, &why);
    if (rc == 0) {
        const char *id = PQgetvalue(result, 0, 0), *was = PQgetvalue(result, 0, 1);
        if (cli->json) {
            cJSON *answer = cJSON_CreateObject();
            tree_add_raw(answer, "id", id);
            if (*was != '\0')
                tree_add_text(answer, "conflict", was);
            tree_print(answer);
        } else {
            printf("%s%s%s\n", id, *was != '\0' ? " " : "", was);
        }
        PQclear(result);
        return 0;
    }
    /* 22007 and 22008: the texts that Postgres reads as times are --at's and
     * --expires-at's. */
    if (strcmp(why.sqlstate, "22007") == 0 || strcmp(why.sqlstate, "22008") == 0) {
        const char *at = params->values[P_AT];
        bool is_at = at != NULL && strstr(why.message, at) != NULL;
        return jobq__error(err, JOBQ_EINVAL,
                           "--%s: \"%s\" is not a time: write it as 2026-11-22T10:11:12Z",
                           is_at ? "at" : "expires-at",
                           is_at ? at : params->values[P_EXPIRES_AT]);
    }
    if (err != NULL)
        *err = why;
    return rc;
}

/* ---- Many ---- */

struct many {
    struct session *session;
    struct jobq__buf array;     /* the batch as a JSON array, without its ] */
    int lines[BATCH_JOBS];      /* the line of each of its jobs */
    size_t n;                   /* jobs in it */
    struct jobq__buf ids;       /* what is printed once all is committed */
    struct jobq__buf conflicts; /* with --json, as are ids then: the members of a list,
                                   null where a job is new. No trees: millions may come */
    bool conflicted;            /* some job was there already */
    long long total;
    bool json;
    bool begun;
};

/* `jobq.enqueue_many: jobs[17].priority must be …`: the element is a line of the input.
 */
static int
name_the_line(const struct many *many, const jobq_error *why, jobq_error *err)
{
    const char *at = strstr(why->message, "jobs[");
    char *end = NULL;
    unsigned long nth = at != NULL ? strtoul(at + 5, &end, 10) : many->n;
    if (end != NULL && *end == ']' && nth < many->n) {
        end += end[1] == '.' || end[1] == ' ' ? 2 : 1;
        jobq__error(err, why->code, "line %d: %s; nothing was enqueued", many->lines[nth],
                    end);
    } else {
        jobq__error(err, why->code, "lines %d to %d: %s; nothing was enqueued",
                    many->lines[0], many->lines[many->n - 1], why->message);
    }
    memcpy(err->sqlstate, why->sqlstate, sizeof err->sqlstate);
    return why->code;
}

/* was: empty, or what came of a job that was there already. */
static void
note_id(struct many *many, bool first, const char *id, const char *was)
{
    bool new = *was == '\0';
    many->conflicted |= !new;
    if (many->json) {
        const char *quote = new ? "" : "\"";
        jobq__buf_adds(&many->ids, first ? "" : ",");
        jobq__buf_adds(&many->ids, id);
        jobq__buf_adds(&many->conflicts, first ? "" : ",");
        jobq__buf_adds(&many->conflicts, quote);
        jobq__buf_adds(&many->conflicts, new ? "null" : was);
        jobq__buf_adds(&many->conflicts, quote);
        return;
    }
    jobq__buf_adds(&many->ids, id);
    jobq__buf_adds(&many->ids, new ? "" : " ");
    jobq__buf_adds(&many->ids, was);
    jobq__buf_addc(&many->ids, '\n');
}

static int
send_batch(struct many *many, jobq_error *err)
{
    PGresult *result = NULL;
    jobq_error why = {0};
    if (many->n == 0)
        return 0;
    jobq__buf_addc(&many->array, ']');
    const char *array = jobq__buf_cstr(&many->array);
    if (!array)
        return jobq__error(err, JOBQ_ENOMEM, "out of memory");
    int rc = many->begun ? 0
                         : query_begin(many->session->conn,
                                       "ISOLATION LEVEL READ COMMITTED", err);
    if (rc != 0)
        return rc;
    many->begun = true;
    if (session_query(many->session, sql_job_enqueue_many, 1, &array, &result, &why) != 0)
        return name_the_line(many, &why, err);
    for (int row = 0; row < PQntuples(result); row++)
        note_id(many, many->total + row == 0, PQgetvalue(result, row, 0),
                PQgetvalue(result, row, 1));
    many->total += PQntuples(result);
    PQclear(result);
    jobq__buf_reset(&many->array);
    many->n = 0;
    return 0;
}

static int
take_line(struct many *many, const char *line, size_t len, int number, jobq_error *err)
{
    jobq_error why = {0};
    while (len > 0 && strchr(" \t\r\n", line[len - 1]) != NULL)
        len--;
    if (len == 0)
        return 0; /* an empty line is none */
    if (len > MAX_LINE_BYTES)
        return jobq__error(err, JOBQ_EINVAL,
                           "line %d: longer than %zu MiB; nothing was enqueued", number,
                           MAX_LINE_BYTES >> 20);
    if (jobq__json_check_object(line, len, "the job", &why) != 0)
        return jobq__error(err, JOBQ_EINVAL, "line %d: %s; nothing was enqueued", number,
                           why.message);
    jobq__buf_addc(&many->array, many->n == 0 ? '[' : ',');
    jobq__buf_add(&many->array, line, len);
    many->lines[many->n++] = number;
    return many->n == BATCH_JOBS || many->array.len >= BATCH_BYTES ? send_batch(many, err)
                                                                   : 0;
}

static int
enqueue_lines(struct many *many, FILE *input, jobq_error *err)
{
    char *line = NULL;
    size_t cap = 0;
    ssize_t len;
    int rc = 0, number = 0;
    while (rc == 0 && (len = getline(&line, &cap, input)) >= 0)
        rc = take_line(many, line, (size_t)len, ++number, err);
    if (rc == 0 && !feof(input))
        rc = jobq__error(err, JOBQ_EIO, "standard input: %s", strerror(errno));
    free(line);
    if (rc == 0)
        rc = send_batch(many, err);
    if (rc == 0 && many->begun)
        rc = session_query(many->session, "COMMIT", 0, NULL, NULL, err);
    jobq__buf_adds(&many->ids, many->json ? "]" : "");
    jobq__buf_adds(&many->conflicts, "]");
    if (rc == 0 && (!jobq__buf_cstr(&many->ids) || !jobq__buf_cstr(&many->conflicts)))
        return jobq__error(
            err, JOBQ_ENOMEM,
            "%lld jobs were enqueued, but there is no memory for their ids", many->total);
    return rc;
}

static int
enqueue_many(struct session *session, const struct cli *cli, jobq_error *err)
{
    struct many *many = calloc(1, sizeof *many);
    if (!many)
        return jobq__error(err, JOBQ_ENOMEM, "out of memory");
    many->session = session;
    many->json = cli->json;
    jobq__buf_adds(&many->ids, cli->json ? "[" : "");
    jobq__buf_adds(&many->conflicts, "[");
    int rc = enqueue_lines(many, stdin, err);
    if (rc == 0 && cli->json) {
        cJSON *answer = cJSON_CreateObject();
        tree_add_raw(answer, "ids", many->ids.data);
        tree_add_raw(answer, "conflicts", many->conflicted ? many->conflicts.data : NULL);
        tree_print(answer);
    } else if (rc == 0) {
        fputs(many->ids.data, stdout);
    }
    jobq__buf_clear(&many->ids);
    jobq__buf_clear(&many->conflicts);
    jobq__buf_clear(&many->array);
    free(many);
    return rc;
}

/* ---- The command ---- */

static int
run(struct cli *cli)
{
    struct session session = {0};
    struct job_params params;
    jobq_error err = {0};
    bool from_stdin = strcmp(cli->args[0], "-") == 0;
    int rc = 0;
    for (size_t i = 0; from_stdin && rc == 0 && cli->command->options[i].name != NULL;
         i++) {
        if (cli->values[i] != NULL)
            rc = jobq__error(&err, JOBQ_EINVAL,
                             "--%s cannot be used with -: each line has its own",
                             cli->command->options[i].name);
    }
    if (rc == 0 && from_stdin && cli->n_args > 1)
        rc = jobq__error(&err, JOBQ_EINVAL, "unexpected argument %s after -",
                         cli->args[1]);
    if (rc == 0 && !from_stdin)
        rc = fill_params(&params, cli, &err);
    if (rc != 0)
        return cli_fail_as(cli, EX_USAGE, &err);
    int code = session_open(&session, cli, SESSION_OUR_SCHEMA);
    if (code == EX_OK) {
        rc = from_stdin ? enqueue_many(&session, cli, &err)
                        : enqueue_one(&session, cli, &params, &err);
        if (rc != 0)
            code = cli_fail(cli, &err);
    }
    session_close(&session);
    return code;
}

static const struct cli_option options[] = {
    {"queue", "QUEUE", "the queue (default: default)"},
    {"priority", "N", "0 to 9; 0 runs first (default: 0)"},
    {"in", "TIME", "run it after this delay: 90s, 5m, 1h30m"},
    {"at", "TIME",
     "run it at this time or later: 2026-11-22T10:11:12Z, or with an offset, "
     "2026-11-22T11:11:12+01:00"},
    {"max-attempts", "N",
     "how many attempts it gets (1 to 1000; default: the queue's, else 20)"},
    {"key", "KEY", "a key to find the job by; it need not be unique"},
    {"unique", "KEY",
     "a unique key: if an unfinished job has it, enqueue nothing and print that job's id "
     "and `existing`"},
    {"unique-by", "JSON",
     "an object that defines which jobs count as equal, with the optional members "
     "fields, keys, period and states; if an equal job exists, enqueue nothing and print "
     "its id and `existing`"},
    {"on-conflict", "WORD",
     "what to do with an existing job: ignore (leave it as it is, the default), replace "
     "(see --replace) or raise (fail)"},
    {"replace", "JSON",
     "the fields to copy to the existing job: a list such as [\"args\",\"priority\"], or "
     "an object with a list for each state; prints that job's id and `replaced`"},
    {"expires-at", "TIME",
     "cancel it if it has not started by this time: 2026-11-22T10:11:12Z"},
    {"expires-in", "TIME", "cancel it if it has not started within this time: 10m"},
    {"tags", "A,B,C", "tags, separated by commas"},
    {"meta", "JSON", "a JSON object to store with the job"},
    {"timeout", "TIME",
     "how long each attempt may run (1ms to 24d; default: the queue's timeout)"},
    {0}};

const struct command command_enqueue = {
    .name = "enqueue",
    .role = "jobq_enqueuer",
    .args = "KIND [JSON] | -",
    .summary = "Enqueue a job, or with -, one per line of standard input; print the ids",
    .details =
        "JSON is an object, the job's args (default: {}). With - each line is an object "
        "with the keys kind, args, queue, priority, scheduled_at, max_attempts, key, "
        "unique_key, tags, meta, timeout_ms, unique_by, on_conflict, replace and "
        "expires_at, of which only kind is required; empty lines are skipped. All lines "
        "are enqueued in one transaction at the end of the input: if one is invalid, the "
        "error names it and nothing is enqueued. A time needs a time zone: "
        "2026-11-22T10:11:12Z or 2026-11-22T11:11:12+01:00.",
    .examples = "jobqd enqueue resize '{\"photo\": 7}'\n"
                "jobqd enqueue mail '{\"to\": \"a@example.org\"}' --queue mail --in 5m\n"
                "jobqd enqueue report --unique-by '{\"period\": 3600}'\n"
                "jobqd enqueue - < jobs.ndjson",
    .options = options,
    .flags = CLI_DATABASE_FLAGS,
    .json = true,
    .min_args = 1,
    .max_args = 2,
    .run = run};
