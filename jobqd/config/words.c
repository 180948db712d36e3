/* words.c: see words.h. Looks at the file system only to find the program; starts
 * nothing. */
#include "jobqd/config/words.h"

#include <errno.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "libjobq/error.h"

/* What an INI file takes for one: it trims each of them from a value's end. */
#define BLANKS " \t\n\r\v\f"

static bool
is_blank(char c)
{
    return c != '\0' && strchr(BLANKS, c) != NULL;
}

/* Decodes the word at *text into word (grown by the caller's guarantee that it holds
 * strlen(text) + 1). */
static int
take_word(const char **text, char *word, jobq_error *err)
{
    const char *at = *text;
    char quote = '\0';
    size_t len = 0;
    for (; *at != '\0' && (quote != '\0' || !is_blank(*at)); at++) {
        if (quote == '\0' && (*at == '\'' || *at == '"')) {
            quote = *at;
        } else if (quote != '\0' && *at == quote) {
            quote = '\0';
        } else if (*at == '\\' &&
                   (quote == '\0' || (quote == '"' && (at[1] == '"' || at[1] == '\\')))) {
            if (*++at == '\0')
                return jobq__error(err, JOBQ_EINVAL,
                                   "a backslash at the end of the value");
            word[len++] = *at;
        } else {
            word[len++] = *at;
        }
    }
    if (quote != '\0')
        return jobq__error(err, JOBQ_EINVAL,
                           "unclosed quote %c (note that \" ;\" begins a comment)",
                           quote);
    word[len] = '\0';
    *text = at;
    return 0;
}

int
words_split(const char *text, char ***out, jobq_error *err)
{
    size_t n = 0;
    int rc = 0;
    /* At most every second byte begins a word. */
    char **words = calloc(strlen(text) / 2 + 2, sizeof *words);
    char *word = malloc(strlen(text) + 1);
    if (!words || !word) {
        rc = jobq__error(err, JOBQ_ENOMEM, "out of memory");
        goto done;
    }
    for (;;) {
        while (is_blank(*text))
            text++;
        if (*text == '\0')
            break;
        rc = take_word(&text, word, err);
        if (rc != 0)
            goto done;
        words[n] = strdup(word);
        if (words[n++] == NULL) {
            rc = jobq__error(err, JOBQ_ENOMEM, "out of memory");
            goto done;
        }
    }
    if (n == 0 || words[0][0] == '\0') {
        rc = jobq__error(err, JOBQ_EINVAL, "no program is given");
        goto done;
    }
    *out = words;
    words = NULL; /* the caller's */
done:
    free(word);
    words_free(words);
    return rc;
}

void
words_free(char **words)
{
    if (!words)
        return;
    for (char **word = words; *word != NULL; word++)
        free(*word);
    free(words);
}

/* '…' would do for the word: it holds no ' and nothing that an INI file takes for a
 * comment. */
static bool
can_be_quoted(const char *word)
{
    for (const char *at = word; *at != '\0'; at++) {
        if (*at == '\'' || (is_blank(*at) && at[1] == ';'))
            return false;
    }
    return true;
}

static void
join_word(struct jobq__buf *buf, const char *word)
{
    if (*word != '\0' && strpbrk(word, BLANKS "'\"\\;") == NULL) {
        jobq__buf_adds(buf, word);
        return;
    }
    if (can_be_quoted(word)) {
        jobq__buf_addc(buf, '\'');
        jobq__buf_adds(buf, word);
        jobq__buf_addc(buf, '\'');
        return;
    }
    for (const char *at = word; *at != '\0'; at++) {
        if (is_blank(
                *at)) { /* quoted, not escaped: a value's last blank would be trimmed */
            jobq__buf_addc(buf, '\'');
            jobq__buf_addc(buf, *at);
            jobq__buf_addc(buf, '\'');
            continue;
        }
        if (strchr("'\"\\;", *at) != NULL)
            jobq__buf_addc(buf, '\\');
        jobq__buf_addc(buf, *at);
    }
}

void
words_join(struct jobq__buf *buf, char *const *words)
{
    for (char *const *word = words; *word != NULL; word++) {
        if (word != words)
            jobq__buf_addc(buf, ' ');
        join_word(buf, *word);
    }
}

static bool
is_executable(const char *path)
{
    struct stat info;
    return stat(path, &info) == 0 && S_ISREG(info.st_mode) && access(path, X_OK) == 0;
}

static char *
join_path(const char *folder, size_t folder_len, const char *name)
{
    struct jobq__buf buf = {0};
    while (name[0] == '.' && name[1] == '/')
        name += 2;
    jobq__buf_add(&buf, folder, folder_len);
    if (folder_len > 0 && folder[folder_len - 1] != '/')
        jobq__buf_addc(&buf, '/');
    jobq__buf_adds(&buf, name);
    if (jobq__buf_cstr(&buf) == NULL)
        jobq__buf_clear(&buf);
    return buf.data;
}

/* The first executable called name in a PATH. *out stays NULL when there is none. */
static int
find_on_path(const char *name, const char *path, char **out, jobq_error *err)
{
    for (const char *at = path; at != NULL;) {
        size_t len = strcspn(at, ":");
        /* An empty or relative entry means the current folder, which is not the same at
         * the next reload. */
        if (len > 0 && at[0] == '/') {
            char *candidate = join_path(at, len, name);
            if (!candidate)
                return jobq__error(err, JOBQ_ENOMEM, "out of memory");
            if (is_executable(candidate)) {
                *out = candidate; /* the caller's */
                return 0;
            }
            free(candidate);
        }
        at = at[len] == ':' ? at + len + 1 : NULL;
    }
    return 0;
}

int
words_place_program(char **words, const char *folder, const char *path, jobq_error *err)
{
    char *placed = NULL;
    if (words[0][0] == '/')
        return 0;
    if (strchr(words[0], '/') == NULL) {
        int rc = find_on_path(words[0], path, &placed, err);
        if (rc != 0 || !placed)
            return rc;
    } else {
        placed = join_path(folder, strlen(folder), words[0]);
        if (!placed)
            return jobq__error(err, JOBQ_ENOMEM, "out of memory");
    }
    free(words[0]);
    words[0] = placed; /* the array's */
    return 0;
}
