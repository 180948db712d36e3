/* doubts.c: see doubts.h. */
#include "jobqd/cli/doubts.h"

#include <ctype.h>
#include <limits.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "jobqd/config/options.h"
#include "jobqd/pure/nearest.h"

static bool
ends_word(char c)
{
    return c == '\0' || isspace((unsigned char)c);
}

/* An operator that is a word, or begins or ends one. Within a word (a URL, a pattern) it
 * is a letter as any other. */
static const char *
find_operator(const char *at, bool begins)
{
    static const char *const operators[] = {"||", "|&", "&&", ";;", "|", "&", ";"};
    for (size_t i = 0; i < sizeof operators / sizeof operators[0]; i++) {
        size_t len = strlen(operators[i]);
        if (strncmp(at, operators[i], len) == 0)
            return begins || ends_word(at[len]) ? operators[i] : NULL;
    }
    return NULL;
}

/* What an unquoted letter means to a shell. */
static const char *
find_at(const char *at, bool begins)
{
    switch (*at) {
    case '>':
        return at[1] == '>' ? ">>" : ">";
    case '<':
        return "<";
    case '*':
        return "*";
    case '`':
        return "`";
    case '#':
        return begins ? "#" : NULL;
    case '~':
        return begins && (at[1] == '/' || ends_word(at[1])) ? "~" : NULL;
    case '$':
        return at[1] == '(' || at[1] == '{' || at[1] == '_' ||
                       isalpha((unsigned char)at[1])
                   ? "$"
                   : NULL;
    default:
        return find_operator(at, begins);
    }
}

const char *
doubts_find(const char *value)
{
    bool begins = true;
    char quote = '\0';
    for (const char *at = value; *at != '\0'; at++) {
        const char *found = quote == '\0' ? find_at(at, begins) : NULL;
        if (found != NULL)
            return found;
        begins = quote == '\0' && isspace((unsigned char)*at);
        if (*at == '\\' && quote != '\'' && at[1] != '\0')
            at++;
        else if (quote != '\0' && *at == quote)
            quote = '\0';
        else if (quote == '\0' && (*at == '"' || *at == '\''))
            quote = *at;
    }
    return NULL;
}

/* The value of that line of the file. NULL: it is not to be had. The caller's. */
static char *
read_value(const char *file, int line)
{
    FILE *in = fopen(file, "re");
    char *text = NULL;
    size_t size = 0;
    bool there = in != NULL;
    for (int i = 0; there && i < line; i++)
        there = getline(&text, &size, in) >= 0;
    if (in != NULL)
        fclose(in);
    char *value = there ? strchr(text, '=') : NULL;
    if (value != NULL) {
        value++;
        for (char *end = value; *end != '\0'; end++) {
            if (end > value && *end == ';' && isspace((unsigned char)end[-1])) {
                *end = '\0'; /* a comment */
                break;
            }
        }
        memmove(text, value, strlen(value) + 1);
        return text;
    }
    free(text);
    return NULL;
}

static void
doubt(const struct config *config, const struct queue_config *queue, const char *option,
      doubts_say say, void *data)
{
    const struct option_row *row =
        option_find(queue_options, queue_options_count, option);
    int line = queue->lines[row - queue_options];
    char *value = line > 0 ? read_value(config->file, line) : NULL;
    const char *found = value != NULL ? doubts_find(value) : NULL;
    char where[300], what[PATH_MAX];
    if (found != NULL && *found == '#') {
        config_where(config, queue, option, where, sizeof where);
        snprintf(what, sizeof what,
                 "%s: # does not begin a comment after a value: the program gets it and "
                 "what follows as arguments",
                 where);
        say(data, what, "put the comment on a line of its own, or begin it with ;");
    } else if (found != NULL) {
        config_where(config, queue, option, where, sizeof where);
        snprintf(what, sizeof what,
                 "%s: no shell reads this line, so the program gets %s literally", where,
                 found);
        say(data, what,
            "put the line into a script, or use /bin/sh -c '...'; if it is meant as an "
            "argument, quote it");
    }
    free(value);
}

/* A queue that jobs are put into has no section here. Another node may serve it. */
static void
doubt_queue(const struct config *config, const char *where, const char *queue,
            doubts_say say, void *data)
{
    char what[PATH_MAX], remedy[400];
    struct nearest nearest;
    nearest_begin(&nearest, queue);
    for (size_t i = 0; i < config->n_queues; i++) {
        if (strcmp(config->queues[i].name, queue) == 0)
            return;
        nearest_offer(&nearest, config->queues[i].name);
    }
    snprintf(what, sizeof what, "%s: this file has no [queue %s] section", where, queue);
    if (nearest.best != NULL)
        snprintf(remedy, sizeof remedy,
                 "did you mean %s? Otherwise another node must serve it", nearest.best);
    else
        snprintf(remedy, sizeof remedy, "add it, or have another node serve this queue");
    say(data, what, remedy);
}

static void
doubt_queues(const struct config *config, doubts_say say, void *data)
{
    static const char option[] = "on_discard_queue";
    char where[PATH_MAX];
    if (config->n_queues == 0)
        return; /* such a node runs no jobs */
    for (size_t i = 0; i < config->n_crons; i++) {
        const struct cron_config *cron = &config->crons[i];
        const struct option_row *row =
            option_find(cron_options, cron_options_count, "queue");
        int line = cron->lines[row - cron_options];
        snprintf(where, sizeof where, "%s:%d: [cron %s]%s", config->file,
                 line > 0 ? line : cron->line, cron->name, line > 0 ? " queue" : "");
        doubt_queue(config, where, cron->queue, say, data);
    }
    if (config->on_discard_queue) {
        config_where(config, NULL, option, where, sizeof where);
        doubt_queue(config, where, config->on_discard_queue, say, data);
    }
    for (size_t i = 0; i < config->n_queues; i++) {
        const struct queue_config *queue = &config->queues[i];
        if (!queue->on_discard_queue)
            continue;
        config_where(config, queue, option, where, sizeof where);
        doubt_queue(config, where, queue->on_discard_queue, say, data);
    }
}

void
doubts_look(const struct config *config, doubts_say say, void *data)
{
    for (size_t i = 0; config->file != NULL && i < config->n_queues; i++) {
        const struct queue_config *queue = &config->queues[i];
        doubt(config, queue, queue->mode == QUEUE_EXEC ? "exec" : "command", say, data);
        doubt(config, queue, "on_failure", say, data);
        doubt(config, queue, "on_discard", say, data);
    }
    if (config->file != NULL)
        doubt_queues(config, say, data);
}
