/* test_arguments.c: what of a command line everybody may read, and that jobqd itself
 * still has all of it. */
#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

#include "jobqd/config/arguments.h"

enum { MAX = 16 };

/* argv as the kernel lays it out: what is not a word any more stays in its place. */
static struct {
    char text[1024];
    char *argv[MAX + 1];
    int argc;
} line;

static void
lay_out(const char *const *words)
{
    char *at = line.text;
    memset(&line, 0, sizeof line);
    for (; words[line.argc]; line.argc++) {
        line.argv[line.argc] = at;
        at = stpcpy(at, words[line.argc]) + 1;
    }
}

static void
forget_words(char **words)
{
    for (int i = 0; i < line.argc; i++) {
        char name[32];
        free(words[i]);
        snprintf(name, sizeof name, "JOBQ_ARGUMENT_%d", i);
        unsetenv(name);
    }
    free(words);
}

static bool
has(const char *secret)
{
    for (size_t i = 0; i + strlen(secret) <= sizeof line.text; i++)
        if (memcmp(line.text + i, secret, strlen(secret)) == 0)
            return true;
    return false;
}

static void
passwords_are_hidden_wherever_they_stand(void **state)
{
    (void)state;
    static const struct {
        const char *words[6];
        const char *shown[6]; /* NULL, NULL: the same */
    } rows[] = {
        {{"jobqd", "run", "-c", "a.conf"}, {NULL}},
        {{"jobqd", "jobs", "--database", "postgresql://u:s3cret@h/db?x=1"},
         {"jobqd", "jobs", "--database", "postgresql://u:****@h/db?x=1"}},
        {{"jobqd", "jobs", "--database=postgres://u:s3cret@h/db"},
         {"jobqd", "jobs", "--database=postgres://u:****@h/db"}},
        {{"jobqd", "jobs", "--da", "host=h password='s3cret' user=u"},
         {"jobqd", "jobs", "--da", "host=h password=**** user=u"}},
        {{"jobqd", "jobs", "--dat=password=s3cret host=h"},
         {"jobqd", "jobs", "--dat=password=**** host=h"}},
        {{"jobqd", "jobs", "--database", "postgresql://h/db?password=s3cret"},
         {"jobqd", "jobs", "--database", "postgresql://h/db?password=****"}},
        /* a word that cannot be parsed, and one that came without its option */
        {{"jobqd", "jobs", "--database", "postgresql//u s3cret"},
         {"jobqd", "jobs", "--database", "****"}},
        {{"jobqd", "jobs", "postgresql://u:s3cret@h"},
         {"jobqd", "jobs", "postgresql://u:****@h"}},
        {{"jobqd", "jobs", "dbname=x password=s3cret"},
         {"jobqd", "jobs", "dbname=x password=****"}},
        {{"jobqd", "enqueue", "fetch", "{\"url\":\"https://u:s3cret@h/\"}"},
         {"jobqd", "enqueue", "fetch", "{\"url\":\"https://u:****@h/\"}"}},
        /* no more than had room */
        {{"jobqd", "jobs", "--database=postgresql://u:p@h"},
         {"jobqd", "jobs", "--database=postgresql://u:***"}},
        {{"jobqd", "enqueue", "kind", "{\"to\":\"a@b\"}", "--delay=1"}, {NULL}},
        {{"jobqd", "jobs", "--", "--database", ""}, {NULL}},
    };
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        lay_out(rows[i].words);
        char **words = arguments_hide(line.argc, line.argv);
        assert_non_null(words);
        for (int n = 0; n < line.argc; n++) {
            const char *shown = rows[i].shown[0] ? rows[i].shown[n] : rows[i].words[n];
            assert_string_equal(words[n], rows[i].words[n]);
            assert_string_equal(line.argv[n], shown);
        }
        assert_false(has("s3cret"));
        assert_null(words[line.argc]);
        forget_words(words);
    }
}

/* The next program is given what can be seen, and has it all nevertheless; also the one
 * after it. */
static void
the_next_program_has_them_too(void **state)
{
    (void)state;
    const char *const words[] = {
        "jobqd", "run", "--database", "postgresql://u:s3cret@h/db", "--node=x", NULL};
    lay_out(words);
    char **first = arguments_hide(line.argc, line.argv);
    for (int round = 0; round < 2; round++) {
        char kept[1024];
        const char *seen[MAX + 1] = {NULL};
        memcpy(kept, line.text, sizeof kept);
        for (int i = 0; i < line.argc; i++)
            seen[i] = kept + (line.argv[i] - line.text);
        lay_out(seen);
        char **next = arguments_hide(line.argc, line.argv);
        for (int i = 0; words[i]; i++) {
            assert_string_equal(next[i], words[i]);
            free(next[i]);
        }
        free(next);
        assert_false(has("s3cret"));
    }
    /* Another command line is not taken for that one. */
    const char *const other[] = {"jobqd", "run", "--database", "postgresql://v:****@h/db",
                                 NULL};
    lay_out(other);
    char **next = arguments_hide(line.argc, line.argv);
    assert_string_equal(next[3], other[3]);
    forget_words(next);
    for (int i = 0; words[i]; i++)
        free(first[i]);
    free(first);
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(passwords_are_hidden_wherever_they_stand),
        cmocka_unit_test(the_next_program_has_them_too),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
