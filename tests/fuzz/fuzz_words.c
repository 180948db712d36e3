/* fuzz_words.c: the small languages of the options: durations, sizes, formulas of
 * back-off, command lines, names of variables and schemas, connection strings.
 *
 * The input is NAME=TEXT: the name of a row of the tables in options.h, or of one of the
 * parsers below. Promised: an error has its words; what a row accepts is written as it is
 * read; a password that libpq sees is not shown.
 */
#include "tests/fuzz/fuzz.h"

#include <libpq-fe.h>

#include "jobqd/config/config.h"
#include "jobqd/config/conninfo.h"
#include "jobqd/config/environment.h"
#include "jobqd/config/options.h"
#include "jobqd/base/sqltext.h"
#include "jobqd/config/words.h"
#include "libjobq/backoff.h"

static const struct option_origin origin = {"/bin", "/bin:/usr/bin"};

/* ---- the rows ---- */

static void
check_row(const struct option_row *row, const char *text)
{
    union {
        struct config config;
        struct queue_config queue;
        struct cron_config cron;
    } a = {0}, b = {0};
    struct jobq__buf out = {0};
    jobq_error err = {0};
    if (option_set(row, &a, text, &origin, &err) == 0) {
        option_put(row, &a, true, &out);
        const char *put = jobq__buf_cstr(&out);
        must(put != NULL);
        if (option_set(row, &b, put, &origin, &err) != 0) {
            fprintf(stderr, "%s: \"%s\" is put as \"%s\": %s\n", row->name, text, put,
                    err.message);
            abort();
        }
        /* A connection string may be spelled in two ways. */
        must(row->type == OPTION_CONNINFO || option_equal(row, &a, &b));
        option_put(row, &a, false, &out); /* whatever it hides */
    } else {
        must(err.message[0] != '\0');
    }
    jobq__buf_clear(&out);
    option_clear(row, &b);
    option_clear(row, &a);
}

/* ---- the parsers ---- */

static void
check_duration(const char *text)
{
    jobq_error err = {0};
    int64_t ms = -1;
    if (jobq__duration_parse(text, &ms, &err) == 0)
        must(ms >= 0);
    else
        must(ms == -1 && err.message[0] != '\0');
}

static void
check_backoff(const char *text)
{
    struct jobq__backoff backoff;
    jobq_error err = {0};
    if (jobq__backoff_parse(text, &backoff, &err) != 0) {
        must(err.message[0] != '\0');
        return;
    }
    static const int32_t attempts[] = {1, 2, 19, 63, 64, 1000, INT32_MAX};
    for (size_t i = 0; i < sizeof attempts / sizeof attempts[0]; i++) {
        must(jobq__backoff_ms(&backoff, attempts[i], 20, 0) >= 0);
        must(jobq__backoff_ms(&backoff, attempts[i], INT32_MAX, UINT32_MAX) >= 0);
    }
}

static void
check_split(const char *text)
{
    char **words = NULL, **again = NULL;
    struct jobq__buf out = {0};
    jobq_error err = {0};
    if (words_split(text, &words, &err) != 0) {
        must(words == NULL && err.message[0] != '\0');
        return;
    }
    environment_check(words, &err);
    words_join(&out, words);
    must(strstr(jobq__buf_cstr(&out), " ;") == NULL);
    must(words_split(out.data, &again, &err) == 0);
    size_t n = 0;
    for (; words[n]; n++)
        must(again[n] && strcmp(words[n], again[n]) == 0);
    must(n > 0 && !again[n]);
    jobq__buf_clear(&out);
    words_free(again);
    words_free(words);
}

static void
check_environment(const char *text)
{
    char *words[] = {fuzz_text(text, strlen(text)), NULL};
    const char *const own[] = {"JOBQ_FD=3", NULL};
    char *inherited[] = {words[0], NULL};
    jobq_error err = {0};
    if (environment_check(words, &err) == 0) {
        const struct environment_sources sources = {inherited, NULL, words, own};
        char **made = environment_make(&sources);
        must(made != NULL);
        free(made);
    } else {
        must(err.message[0] != '\0');
    }
    free(words[0]);
}

static void
check_schema(const char *text)
{
    char *out = NULL;
    jobq_error err = {0};
    if (!sqltext_is_schema(text))
        return;
    must(strlen(text) <= 63 && text[0] != '\0');
    must(sqltext_expand("SELECT 1 FROM jobq.jobs", text, &out, &err) == 0);
    free(out);
}

/* Whether the text has it once, so that it is shown if the redacted text has it at all:
 * that is made of pieces of the text with blanks and asterisks between them. Where there
 * is a %, what the text has may be another piece of it: the ':' of the scheme, for "%3A".
 */
static bool
is_there_once(const char *text, const char *secret)
{
    const char *first = strstr(text, secret);
    return *secret != '\0' && strchr(text, '%') == NULL &&
           strpbrk(secret, "* \t\n\r\v\f") == NULL && first != NULL &&
           strstr(first + 1, secret) == NULL;
}

static void
check_conninfo(const char *text)
{
    struct jobq__buf shown = {0}, uri = {0};
    conninfo_redact(&shown, text);
    conninfo_redact_uri(&uri, text);
    const char *redacted = jobq__buf_cstr(&shown);
    must(redacted != NULL && jobq__buf_cstr(&uri) != NULL);
    char *why = NULL;
    PQconninfoOption *options = PQconninfoParse(text, &why);
    for (PQconninfoOption *one = options; one && one->keyword; one++) {
        bool secret = strcmp(one->keyword, "password") == 0 ||
                      strcmp(one->keyword, "sslpassword") == 0;
        if (secret && one->val && is_there_once(text, one->val) &&
            strstr(redacted, one->val)) {
            fprintf(stderr, "\"%s\" of \"%s\" is shown: \"%s\"\n", one->val, text,
                    redacted);
            abort();
        }
    }
    PQconninfoFree(options);
    PQfreemem(why);
    struct jobq__buf again = {0};
    conninfo_redact(&again, redacted);
    must(strcmp(jobq__buf_cstr(&again), redacted) == 0);
    jobq__buf_clear(&again);
    jobq__buf_clear(&uri);
    jobq__buf_clear(&shown);
}

static const struct {
    const char *name;
    void (*check)(const char *text);
} checks[] = {
    {"a duration", check_duration}, {"a backoff", check_backoff},
    {"words", check_split},         {"an environment", check_environment},
    {"a schema", check_schema},     {"a conninfo", check_conninfo},
};

int
LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    char *name = fuzz_text(data, size);
    char *text = strchr(name, '=');
    if (text) {
        *text++ = '\0';
        for (size_t i = 0; i < sizeof checks / sizeof checks[0]; i++) {
            if (strcmp(name, checks[i].name) == 0)
                checks[i].check(text);
        }
        const struct option_row *row =
            option_find(jobqd_options, jobqd_options_count, name);
        if (row)
            check_row(row, text);
        row = option_find(queue_options, queue_options_count, name);
        if (row)
            check_row(row, text);
        row = option_find(cron_options, cron_options_count, name);
        if (row)
            check_row(row, text);
    }
    free(name);
    return 0;
}
