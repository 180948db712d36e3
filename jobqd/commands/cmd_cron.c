/* cmd_cron.c: `cron`: when a schedule comes (without a database), and the crons of the
 * database: to list them, set them, pause, resume and delete them, and to run one by
 * hand.
 */
#include <stdio.h>
#include <string.h>
#include <sysexits.h>
#include <time.h>

#include "jobqd/base/escape.h"
#include "jobqd/base/jsontree.h"
#include "jobqd/config/timezone.h"
#include "jobqd/config/unique_by.h"
#include "jobqd/base/wrap.h"
#include "jobqd/cli/session.h"
#include "jobqd/cli/table.h"
#include "jobqd/commands/commands.h"
#include "jobqd/pure/cron.h"
#include "jobqd/pure/nearest.h"
#include "jobqd/pure/rfc3339.h"
#include "libjobq/backoff.h"
#include "libjobq/buf.h"
#include "libjobq/error.h"
#include "libjobq/json.h"

#define MAX_TIMES 1000

extern const char sql_cron_list[], sql_cron_set[], sql_cron_pause[], sql_cron_resume[],
    sql_cron_delete[], sql_cron_run[];

/* ---- next ---- */

/* What `cron next` is asked. */
struct question {
    struct cron cron;
    int64_t from_ms;
    int64_t n;
    bool utc;
};

static int
read_question(struct question *question, const struct cli *cli, jobq_error *err)
{
    const char *from = cli_get(cli, "from"), *zone = cli_get(cli, "timezone");
    jobq_error why = {0};
    *question = (struct question){.from_ms = (int64_t)time(NULL) * 1000, .n = 5};
    int rc = cron_parse(cli->args[0], &question->cron, &why);
    if (rc == 0 && question->cron.kind == CRON_REBOOT)
        rc = jobq__error(&why, JOBQ_EINVAL,
                         "@reboot has no times: it comes when the first node starts");
    if (rc != 0)
        return jobq__error(err, rc, "schedule: %s", why.message);
    if (from != NULL && !rfc3339_parse(from, &question->from_ms))
        return jobq__error(err, JOBQ_EINVAL,
                           "--from: \"%s\" is not a time: write it as "
                           "2026-11-22T10:11:12Z or 2026-11-22T10:11:12+01:00",
                           from);
    rc = cli_get_int(cli, "n", 1, MAX_TIMES, &question->n, err);
    if (rc != 0)
        return rc;
    question->utc = !zone || strcmp(zone, "UTC") == 0;
    rc = question->utc ? 0 : timezone_check(zone, &why);
    if (rc != 0)
        return jobq__error(err, rc, "--timezone: %s", why.message);
    return question->utc ? 0 : timezone_use(zone, err);
}

static void
print_times(const struct question *question, bool json)
{
    int64_t at_ms = question->from_ms;
    cron_offset offset = question->utc ? NULL : timezone_offset;
    cJSON *times = json ? cJSON_CreateArray() : NULL;
    for (int64_t i = 0; i < question->n; i++) {
        char text[RFC3339_SIZE];
        if (!cron_next(&question->cron, at_ms, offset, NULL, &at_ms) ||
            at_ms > RFC3339_LAST_MS)
            break;
        int64_t at_s = at_ms / 1000 - (at_ms % 1000 < 0);
        int64_t offset_s = offset ? offset(NULL, at_s) : 0;
        if (at_ms + offset_s * 1000 > RFC3339_LAST_MS)
            break;
        rfc3339_print(text, at_ms, offset_s);
        if (json)
            tree_add_text(times, NULL, text);
        else
            puts(text);
    }
    if (json)
        tree_print(times);
}

static int
run_next(struct cli *cli)
{
    struct question question;
    jobq_error err = {0};
    if (read_question(&question, cli, &err) != 0)
        return cli_fail_as(cli, EX_USAGE, &err);
    print_times(&question, cli->json);
    return EX_OK;
}

static const struct cli_option next_options[] = {
    {"from", "TIME",
     "print the times after this one: 2026-11-22T10:11:12Z (default: now)"},
    {"timezone", "NAME",
     "the time zone of the schedule, such as Europe/Stockholm (default: UTC)"},
    {"n", "N", "how many times to print (1 to 1000; default: 5)"},
    {0}};

static const struct command cron_next_command = {
    .name = "cron next",
    .args = "EXPR",
    .summary = "Print the next times of a schedule, one per line",
    .details = "EXPR is five fields (minute, hour, day of month, month, day of week), a "
               "nickname such as @hourly, or @every TIME. No database is needed: the "
               "time zones are those of this host.",
    .examples = "jobqd cron next '30 2 * * mon-fri' --timezone Europe/Stockholm\n"
                "jobqd cron next @hourly --from 2026-11-22T10:11:12Z -n 3",
    .options = next_options,
    .json = true,
    .min_args = 1,
    .max_args = 1,
    .run = run_next};

/* ---- list ---- */

static int
list(struct session *session, const struct cli *cli, jobq_error *err)
{
    PGresult *result = NULL;
    int rc = session_query(session, sql_cron_list, 0, NULL, &result, err);
    if (rc != 0)
        return rc;
    if (cli->json) {
        table_print_json(stdout, result, PQnfields(result) - 1);
        putchar('\n');
    } else {
        table_print(stdout, result, PQnfields(result) - 1);
    }
    PQclear(result);
    return 0;
}

static int
run_list(struct cli *cli)
{
    struct session session = {0};
    jobq_error err = {0};
    int code = session_open(&session, cli, SESSION_OUR_SCHEMA);
    if (code == EX_OK && list(&session, cli, &err) != 0)
        code = cli_fail(cli, &err);
    session_close(&session);
    return code;
}

static const struct command cron_list_command = {
    .name = "cron list",
    .role = "jobq_viewer",
    .args = "",
    .summary = "List crons with their next and last runs and any errors",
    .details = "NEXT is in the cron's own time zone, LAST in UTC.",
    .examples = "jobqd cron list\n"
                "jobqd cron list --json",
    .flags = CLI_DATABASE_FLAGS,
    .json = true,
    .run = run_list};

/* ---- set ---- */

enum {
    P_NAME,
    P_SCHEDULE,
    P_KIND,
    P_ARGS,
    P_TIMEZONE,
    P_QUEUE,
    P_PRIORITY,
    P_MAX_ATTEMPTS,
    P_MISSED,
    P_META,
    P_TAGS,
    P_TIMEOUT,
    P_OVERLAP,
    P_EXPIRES,
    P_UNIQUE_BY,
    N_PARAMS
};

/* The option of each parameter, where it is one. */
static const char *const set_names[N_PARAMS] = {
    [P_SCHEDULE] = "schedule",
    [P_KIND] = "kind",
    [P_ARGS] = "args",
    [P_TIMEZONE] = "timezone",
    [P_QUEUE] = "queue",
    [P_PRIORITY] = "priority",
    [P_MISSED] = "missed",
    [P_META] = "meta",
    [P_TAGS] = "tags",
    [P_TIMEOUT] = "timeout",
    [P_MAX_ATTEMPTS] = "max-attempts",
    [P_OVERLAP] = "overlap",
    [P_EXPIRES] = "expires",
    [P_UNIQUE_BY] = "unique-by",
};

struct set_params {
    const char *values[N_PARAMS];
    char timeout[32];
    char expires[32];
};

/* A duration, as the database takes it: milliseconds, at most `most`. */
static int
read_duration(struct set_params *params, int param, char out[32], int64_t most,
              const char *allowed, jobq_error *err)
{
    jobq_error why = {0};
    int64_t ms = 0;
    const char *text = params->values[param];
    if (!text)
        return 0;
    int rc = jobq__duration_parse(text, &ms, &why);
    if (rc != 0)
        return jobq__error(err, rc, "--%s: %s", set_names[param], why.message);
    if (ms < 1 || ms > most)
        return jobq__error(err, JOBQ_EINVAL, "--%s: \"%s\" is not allowed: %s",
                           set_names[param], text, allowed);
    snprintf(out, 32, "%lld", (long long)ms);
    params->values[param] = out;
    return 0;
}

/* What can be known to be wrong without asking the database; the rest is said by it. */
static int
read_set(struct set_params *params, const struct cli *cli, jobq_error *err)
{
    struct cron cron;
    jobq_error why = {0};
    int64_t number;
    memset(params, 0, sizeof *params);
    params->values[P_NAME] = cli->args[0];
    for (int i = 0; i < N_PARAMS; i++) {
        if (set_names[i] != NULL)
            params->values[i] = cli_get(cli, set_names[i]);
    }
    if (!params->values[P_SCHEDULE] || !params->values[P_KIND])
        return jobq__error(err, JOBQ_EINVAL, "--%s is required",
                           params->values[P_SCHEDULE] ? "kind" : "schedule");
    int rc = cron_parse(params->values[P_SCHEDULE], &cron, &why);
    if (rc != 0)
        return jobq__error(err, rc, "--schedule: %s", why.message);
    const char *args = params->values[P_ARGS], *meta = params->values[P_META],
               *unique_by = params->values[P_UNIQUE_BY];
    if (args != NULL)
        rc = jobq__json_check_object(args, strlen(args), "--args", err);
    if (rc == 0 && meta != NULL)
        rc = jobq__json_check_object(meta, strlen(meta), "--meta", err);
    if (rc == 0 && unique_by != NULL)
        rc = jobq__json_check_object(unique_by, strlen(unique_by), "--unique-by", err);
    if (rc == 0 && unique_by != NULL)
        rc = unique_by_check(unique_by, "--unique-by", err);
    if (rc == 0)
        rc = cli_get_int(cli, "priority", 0, 9, &number, err);
    if (rc == 0)
        rc = cli_get_int(cli, "max-attempts", 1, 1000, &number, err);
    if (rc == 0)
        rc = read_duration(params, P_TIMEOUT, params->timeout, INT32_MAX, "1ms to 24d",
                           err);
    if (rc == 0)
        rc = read_duration(params, P_EXPIRES, params->expires,
                           INT64_C(3650) * 24 * 3600 * 1000, "1ms to 3650d", err);
    return rc;
}

static int
run_set(struct cli *cli)
{
    struct session session = {0};
    struct set_params params;
    jobq_error err = {0};
    if (read_set(&params, cli, &err) != 0)
        return cli_fail_as(cli, EX_USAGE, &err);
    int code = session_open(&session, cli, SESSION_OUR_SCHEMA);
    if (code == EX_OK &&
        session_query(&session, sql_cron_set, N_PARAMS, params.values, NULL, &err) != 0)
        code = cli_fail(cli, &err);
    if (code == EX_OK) {
        fputs("cron ", stdout);
        table_print_value(stdout, cli->args[0], NULL);
        puts(": set");
    }
    session_close(&session);
    return code;
}

static const struct cli_option set_options[] = {
    {"schedule", "EXPR", "when to enqueue a job: see jobqd cron next --help (required)"},
    {"kind", "KIND", "the kind of its jobs (required)"},
    {"args", "JSON", "the args of its jobs, an object (default: {})"},
    {"timezone", "NAME",
     "the time zone of the schedule, such as Europe/Stockholm (default: UTC)"},
    {"queue", "QUEUE", "the queue of its jobs (default: default)"},
    {"priority", "N", "their priority, 0 to 9; 0 runs first (default: 0)"},
    {"max-attempts", "N",
     "how many attempts each job gets (1 to 1000; default: the queue's, else 20)"},
    {"overlap", "WORD",
     "if a job of this cron is still live: allow another, skip the slot, or wait: at "
     "most one job waits until the running one has ended (default: allow)"},
    {"expires", "TIME",
     "cancel a job that has not started this long after it was enqueued (1ms to 3650d; "
     "default: never)"},
    {"unique-by", "JSON",
     "enqueue no job while an equal one exists by these rules ({}: same kind, queue and "
     "args)"},
    {"missed", "WORD",
     "runs missed while no node was up: skip, once (only the latest) or all (default: "
     "once)"},
    {"meta", "JSON", "a JSON object to store with each job"},
    {"tags", "A,B,C", "tags, separated by commas"},
    {"timeout", "TIME",
     "how long an attempt may run (1ms to 24d; default: the queue's timeout)"},
    {0}};

static const struct command cron_set_command = {
    .name = "cron set",
    .role = "jobq_operator",
    .args = "NAME",
    .summary = "Add a cron to the database, or change the one with this name",
    .details = "An option that is not given gets its default, even if the cron exists. A "
               "paused cron stays paused.",
    .examples = "jobqd cron set nightly --schedule '0 3 * * *' --kind report\n"
                "jobqd cron set sync --schedule '@every 1m' --kind sync --overlap skip",
    .options = set_options,
    .flags = CLI_DATABASE_FLAGS,
    .min_args = 1,
    .max_args = 1,
    .run = run_set};

/* ---- pause, resume, delete, run ---- */

/* What is done to crons by their names, and how to say that it was. */
struct deed {
    const char *sql;
    const char *done;
    const char *undone; /* it was so before; NULL: it always does something */
    bool gives_job;     /* the answer is a job's id */
};

static void
say(const struct deed *deed, const char *name, const char *answer)
{
    fputs("cron ", stdout);
    table_print_value(stdout, name, NULL);
    if (deed->gives_job)
        printf(": job %s\n", answer);
    else
        printf(": %s\n",
               deed->undone != NULL && *answer == 'f' ? deed->undone : deed->done);
}

/* Each name by itself: one that is refused does not keep the others from it. The exit
 * code is the last failure's. */
static int
do_all(struct cli *cli, const struct deed *deed)
{
    struct session session = {0};
    jobq_error err = {0};
    int code = session_open(&session, cli, SESSION_OUR_SCHEMA);
    bool opened = code == EX_OK;
    cJSON *answer = opened && cli->json ? cJSON_CreateObject() : NULL;
    cJSON *ids = tree_add_list(answer, "ids");
    for (int i = 0; opened && i < cli->n_args; i++) {
        PGresult *result = NULL;
        const char *name = cli->args[i];
        int rc = session_query(&session, deed->sql, 1, &name, &result, &err);
        if (rc != 0)
            code = cli_fail(cli, &err);
        else if (cli->json)
            tree_add_raw(ids, NULL, PQgetvalue(result, 0, 0));
        else
            say(deed, name, PQgetvalue(result, 0, 0));
        PQclear(result);
        if (rc == JOBQ_ECONN)
            break;
    }
    if (opened && cli->json)
        tree_print(answer);
    session_close(&session);
    return code;
}

static int
run_pause(struct cli *cli)
{
    static const struct deed deed = {sql_cron_pause, "paused", "already paused", false};
    return do_all(cli, &deed);
}

static int
run_resume(struct cli *cli)
{
    static const struct deed deed = {sql_cron_resume, "resumed", "was not paused", false};
    return do_all(cli, &deed);
}

static int
run_delete(struct cli *cli)
{
    static const struct deed deed = {sql_cron_delete, "deleted", NULL, false};
    return do_all(cli, &deed);
}

static int
run_run(struct cli *cli)
{
    static const struct deed deed = {sql_cron_run, "", NULL, true};
    return do_all(cli, &deed);
}

static const struct command cron_pause_command = {
    .name = "cron pause",
    .role = "jobq_operator",
    .args = "NAME...",
    .summary = "Stop crons from enqueuing jobs until they are resumed",
    .examples = "jobqd cron pause nightly",
    .flags = CLI_DATABASE_FLAGS,
    .min_args = 1,
    .max_args = -1,
    .run = run_pause};

static const struct command cron_resume_command = {
    .name = "cron resume",
    .role = "jobq_operator",
    .args = "NAME...",
    .summary = "Resume paused crons, starting with their next scheduled time",
    .details = "Slots that passed while they were paused do not count as missed.",
    .examples = "jobqd cron resume nightly",
    .flags = CLI_DATABASE_FLAGS,
    .min_args = 1,
    .max_args = -1,
    .run = run_resume};

static const struct command cron_delete_command = {
    .name = "cron delete",
    .role = "jobq_operator",
    .args = "NAME...",
    .summary = "Delete crons; jobs that they have already enqueued are kept",
    .details = "A cron that has a [cron NAME] section in a node's configuration comes "
               "back when that node starts, reloads or reconnects: pause it instead, or "
               "remove the section.",
    .examples = "jobqd cron delete nightly",
    .flags = CLI_DATABASE_FLAGS,
    .min_args = 1,
    .max_args = -1,
    .run = run_delete};

static const struct command cron_run_command = {
    .name = "cron run",
    .role = "jobq_operator",
    .args = "NAME...",
    .summary = "Enqueue the jobs of crons now, whatever their schedules",
    .details = "This works for paused crons, too. If the cron's overlap or unique_by "
               "does not allow another job, the error names the job in the way.",
    .examples = "jobqd cron run nightly",
    .flags = CLI_DATABASE_FLAGS,
    .json = true,
    .min_args = 1,
    .max_args = -1,
    .run = run_run};

/* ---- cron ---- */

static const struct command *const parts[] = {
    &cron_list_command,   &cron_next_command,   &cron_set_command, &cron_pause_command,
    &cron_resume_command, &cron_delete_command, &cron_run_command};

#define N_PARTS (sizeof parts / sizeof parts[0])

static const char *
short_name(const struct command *part)
{
    return part->name + strlen("cron ");
}

static int
print_help(void)
{
    printf("usage: jobqd cron [list|next|set|pause|resume|delete|run] [OPTION]...\n\n");
    wrap_print(stdout, command_cron.summary, 0, 0);
    putchar('\n');
    for (size_t i = 0; i < N_PARTS; i++)
        cli_print_summary(stdout, short_name(parts[i]), 6, parts[i]);
    printf("\nThe default is list. `jobqd help cron next` shows the options of next.\n");
    return EX_OK;
}

static int
refuse(const char *name)
{
    struct nearest nearest;
    nearest_begin(&nearest, name);
    for (size_t i = 0; i < N_PARTS; i++)
        nearest_offer(&nearest, short_name(parts[i]));
    fputs("jobqd cron: unknown command \"", stderr);
    escape_print(stderr, name);
    if (nearest.best != NULL)
        fprintf(stderr, "\"; did you mean %s? The commands are ", nearest.best);
    else
        fputs("\"; the commands are ", stderr);
    for (size_t i = 0; i < N_PARTS; i++)
        fprintf(stderr, "%s%s",
                i == 0            ? ""
                : i + 1 < N_PARTS ? ", "
                                  : " and ",
                short_name(parts[i]));
    fputs(" (see jobqd cron --help)\n", stderr);
    return EX_USAGE;
}

static int
cmd_cron(int argc, char **argv)
{
    const char *name = argc > 1 ? argv[1] : "";
    if (strcmp(name, "--help") == 0 || strcmp(name, "-h") == 0)
        return print_help();
    if (argc < 2 || *name == '-')
        return cli_run(&cron_list_command, argc, argv);
    for (size_t i = 0; i < N_PARTS; i++) {
        if (strcmp(short_name(parts[i]), name) == 0)
            return cli_run(parts[i], argc - 1, argv + 1);
    }
    return refuse(name);
}

const struct command command_cron = {
    .name = "cron",
    .args = "[list|next|set|pause|resume|delete|run]",
    .summary = "List and change periodic jobs; print the next times of a schedule",
    .parts = cmd_cron};
