/* arguments.c: see arguments.h. */
#include "jobqd/config/arguments.h"

#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "jobqd/config/conninfo.h"
#include "libjobq/buf.h"

#define OPTION "--database"
#define VARIABLE "JOBQ_ARGUMENT_"

/* The option's name, or as many of its letters as getopt_long may take for it. */
static bool
is_option(const char *word, size_t len)
{
    return len > 2 && len <= strlen(OPTION) && strncmp(word, OPTION, len) == 0;
}

/* Appends the word as everybody may see it. before: the word before it, or "". */
static void
redact(struct jobq__buf *out, const char *before, const char *word)
{
    size_t name = strncmp(word, "--", 2) == 0 ? strcspn(word, "=") : 0;
    const char *value = word[name] == '=' && name > 0 ? word + name + 1 : word;
    jobq__buf_add(out, word, (size_t)(value - word));
    if (value == word ? is_option(before, strlen(before)) : is_option(word, name))
        conninfo_redact(out, value);
    else if (strcasestr(value, "password") && strchr(value, '=') && !strstr(value, "://"))
        conninfo_redact(out, value);
    else
        conninfo_redact_uri(out, value);
}

/* What the word looks like once it is hidden in its own place, where no more than its own
 * length has room. NULL: out of memory. */
static char *
hidden(const char *before, const char *word)
{
    struct jobq__buf shown = {0};
    redact(&shown, before, word);
    if (!jobq__buf_cstr(&shown)) {
        jobq__buf_clear(&shown);
        return NULL;
    }
    if (shown.len > strlen(word))
        shown.data[strlen(word)] = '\0';
    return shown.data; /* the caller's */
}

/* The word that a jobqd before us has hidden as this one. NULL: none. */
static const char *
inherited(int nth, const char *before, const char *word)
{
    char name[sizeof VARIABLE + 16];
    snprintf(name, sizeof name, VARIABLE "%d", nth);
    const char *whole = getenv(name);
    char *shown = whole ? hidden(before, whole) : NULL;
    bool same = shown && strcmp(shown, word) == 0;
    free(shown);
    return same ? whole : NULL;
}

/* *out: the word as it was. In its place in argv there is what may be seen. */
static bool
take(int nth, const char *before, char *word, char **out)
{
    char name[sizeof VARIABLE + 16];
    const char *whole = inherited(nth, before, word);
    if (whole) {
        *out = strdup(whole);
        return *out != NULL;
    }
    char *shown = hidden(before, word);
    *out = strdup(word);
    if (!shown || !*out) {
        free(shown);
        return false;
    }
    snprintf(name, sizeof name, VARIABLE "%d", nth);
    bool fine = strcmp(shown, word) == 0 || setenv(name, word, 1) == 0;
    if (fine && strcmp(shown, word) != 0) {
        memset(word, '\0', strlen(word));
        memcpy(word, shown, strlen(shown));
    }
    free(shown);
    return fine;
}

char **
arguments_hide(int argc, char **argv)
{
    static char **words; /* the process's own for as long as it runs */
    words = calloc((size_t)argc + 1, sizeof *words);
    for (int i = 0; words && i < argc; i++) {
        if (!take(i, i > 0 ? words[i - 1] : "", argv[i], &words[i]))
            return NULL;
    }
    return words;
}
