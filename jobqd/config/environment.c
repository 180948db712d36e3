/* environment.c: see environment.h. */
#include "jobqd/config/environment.h"

#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

#include "libjobq/error.h"

/* A name, or with a trailing '*' the start of names. */
static const char *const withheld[] = {
    "PG*", "DATABASE_URL", "JOBQ_*", "NOTIFY_SOCKET", "WATCHDOG_*", "LISTEN_*",
};

/* Of these, what is no secret and meant for programs that use our libraries. */
static const char *const kept[] = {"JOBQ_LIBRARY", "JOBQ_SCHEMA"};

/* What a program must be able to believe. */
static const char *const reserved[] = {
    "JOBQ_FD",      "JOBQ_MAX_FRAME",    "JOBQ_QUEUE",       "JOBQ_JOB_ID",  "JOBQ_KIND",
    "JOBQ_ATTEMPT", "JOBQ_MAX_ATTEMPTS", "JOBQ_DEADLINE_MS", "JOBQ_PRELOAD",
};

static size_t
name_len(const char *variable)
{
    return strcspn(variable, "=");
}

static bool
same_name(const char *a, const char *b)
{
    size_t len = name_len(a);
    return len == name_len(b) && memcmp(a, b, len) == 0;
}

static bool
is_withheld(const char *variable)
{
    for (size_t i = 0; i < sizeof kept / sizeof kept[0]; i++)
        if (same_name(variable, kept[i]))
            return false;
    for (size_t i = 0; i < sizeof withheld / sizeof withheld[0]; i++) {
        size_t len = strlen(withheld[i]);
        bool prefix = withheld[i][len - 1] == '*';
        if (prefix ? strncmp(variable, withheld[i], len - 1) == 0
                   : same_name(variable, withheld[i]))
            return true;
    }
    return false;
}

static const char *
find(char *const *variables, const char *name)
{
    for (; variables && *variables; variables++) {
        if (same_name(*variables, name))
            return *variables;
    }
    return NULL;
}

static size_t
count(char *const *strings)
{
    size_t n = 0;
    while (strings && strings[n])
        n++;
    return n;
}

/* Puts a variable behind the n that are there, or in the place of one with that name. */
static size_t
put(const char **list, size_t n, const char *variable)
{
    size_t i = 0;
    while (i < n && !same_name(list[i], variable))
        i++;
    list[i] = variable;
    return i < n ? n : n + 1;
}

/* Fills list with borrowed strings; returns how many. */
static size_t
gather(const struct environment_sources *from, const char **list)
{
    size_t n = 0;
    for (char *const *at = from->inherited; at && *at; at++) {
        if (!is_withheld(*at))
            list[n++] = *at; /* a name that occurs twice there is not our doing */
    }
    for (char *const *at = from->account; at && *at; at++)
        n = put(list, n, *at);
    for (char *const *at = from->words; at && *at; at++) {
        const char *variable = strchr(*at, '=') ? *at : find(from->inherited, *at);
        if (variable)
            n = put(list, n, variable);
    }
    for (const char *const *at = from->own; at && *at; at++)
        n = put(list, n, *at);
    return n;
}

char **
environment_make(const struct environment_sources *sources)
{
    size_t most =
        count(sources->inherited) + count(sources->account) + count(sources->words);
    for (const char *const *at = sources->own; at && *at; at++)
        most++;
    const char **list = malloc((most + 1) * sizeof list[0]);
    if (!list)
        return NULL;
    size_t n = gather(sources, list);
    size_t bytes = 0;
    for (size_t i = 0; i < n; i++)
        bytes += strlen(list[i]) + 1;
    char **environment = malloc((n + 1) * sizeof environment[0] + bytes);
    if (environment) {
        char *text = (char *)(environment + n + 1);
        for (size_t i = 0; i < n; i++) {
            environment[i] = text;
            text = stpcpy(text, list[i]) + 1;
        }
        environment[n] = NULL;
    }
    free(list);
    return environment;
}

static bool
is_name(const char *text, size_t len)
{
    static const char letters[] =
        "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ_0123456789";
    return len > 0 && strspn(text, letters) >= len && !(text[0] >= '0' && text[0] <= '9');
}

int
environment_check(char *const *words, jobq_error *err)
{
    for (; *words; words++) {
        int len = (int)name_len(*words);
        if (!is_name(*words, (size_t)len))
            return jobq__error(err, JOBQ_EINVAL,
                               "\"%.*s\" is not a variable's name: write NAME or "
                               "NAME=VALUE, where NAME has letters, digits and _",
                               len, *words);
        for (size_t i = 0; i < sizeof reserved / sizeof reserved[0]; i++) {
            if (same_name(*words, reserved[i]))
                return jobq__error(err, JOBQ_EINVAL, "%s is set by jobqd itself",
                                   reserved[i]);
        }
    }
    return 0;
}
