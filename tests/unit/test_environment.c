/* test_environment.c: the variables that a program finds, and those that it does not. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

#include "jobqd/config/environment.h"

#define LIST(...) ((char *[]){__VA_ARGS__, NULL})
#define S(text) ((char[]){text})

static void
environment_is(const struct environment_sources *sources, const char *expected)
{
    char joined[1024] = "";
    char **environment = environment_make(sources);
    assert_non_null(environment);
    for (char **at = environment; *at; at++) {
        strcat(joined, *at);
        strcat(joined, " ");
    }
    assert_string_equal(joined, expected);
    free(environment);
}

static void
secrets_and_what_is_for_jobqd_alone_are_withheld(void **state)
{
    (void)state;
    struct environment_sources sources = {
        .inherited =
            LIST(S("HOME=/root"), S("PGPASSWORD=x"), S("PGHOST=x"), S("PGPASSFILE=x"),
                 S("PGSERVICE=x"), S("PGSERVICEFILE=x"), S("DATABASE_URL=x"),
                 S("JOBQ_DATABASE=x"), S("JOBQ_EMBEDDED=x"), S("JOBQ_ANYTHING=x"),
                 S("JOBQ_FD=9"), S("NOTIFY_SOCKET=x"), S("WATCHDOG_USEC=1"),
                 S("LISTEN_FDS=1"), S("LISTEN_PIDFDID=1"), S("JOBQ_LIBRARY=stays"),
                 S("JOBQ_SCHEMA=stays"), S("JOBQ_LIBRARY_OF=x"), S("JOBQ_ARGUMENT_3=x"),
                 S("MYPGPASSWORD=stays"), S("DATABASE_URL2=stays"), S("EMPTY=")),
        .own = (const char *[]){"JOBQ_FD=3", "JOBQ_QUEUE=q", NULL},
    };
    environment_is(&sources, "HOME=/root JOBQ_LIBRARY=stays JOBQ_SCHEMA=stays "
                             "MYPGPASSWORD=stays DATABASE_URL2=stays EMPTY= "
                             "JOBQ_FD=3 JOBQ_QUEUE=q ");
}

static void
words_set_hand_over_and_replace(void **state)
{
    (void)state;
    struct environment_sources sources = {
        .inherited = LIST(S("PATH=/bin"), S("DATABASE_URL=secret"), S("HOME=/root"),
                          S("JOBQ_FD=9")),
        .account = LIST(S("HOME=/home/u"), S("USER=u")),
        .words = LIST(S("DATABASE_URL"), S("NOT_SET"), S("PATH=/usr/bin"), S("NEW="),
                      S("USER=v"), S("PATH=/last=one")),
        .own = (const char *[]){"JOBQ_FD=3", NULL},
    };
    environment_is(&sources,
                   "PATH=/last=one HOME=/home/u USER=v DATABASE_URL=secret NEW= "
                   "JOBQ_FD=3 ");
}

static void
nothing_makes_an_empty_environment(void **state)
{
    (void)state;
    environment_is(&(struct environment_sources){0}, "");
}

static void
wrong_words_are_refused(void **state)
{
    (void)state;
    jobq_error err;
    assert_int_equal(environment_check(LIST(S("A"), S("_b1=x y"), S("C=")), &err), 0);
    static const struct {
        char word[32];
        const char *says;
    } wrong[] = {
        {"=x", "\"\" is not a variable's name: write NAME or NAME=VALUE, where NAME has "
               "letters, digits and _"},
        {"1A=x", "\"1A\" is not a variable's name: write NAME or NAME=VALUE, where NAME "
                 "has letters, digits and _"},
        {"A-B", "\"A-B\" is not a variable's name: write NAME or NAME=VALUE, where NAME "
                "has letters, digits and _"},
        {"JOBQ_FD=4", "JOBQ_FD is set by jobqd itself"},
        {"JOBQ_JOB_ID", "JOBQ_JOB_ID is set by jobqd itself"},
    };
    for (size_t i = 0; i < sizeof wrong / sizeof wrong[0]; i++) {
        char word[32];
        strcpy(word, wrong[i].word);
        assert_int_equal(environment_check(LIST(S("A=1"), word), &err), JOBQ_EINVAL);
        assert_string_equal(err.message, wrong[i].says);
    }
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(secrets_and_what_is_for_jobqd_alone_are_withheld),
        cmocka_unit_test(words_set_hand_over_and_replace),
        cmocka_unit_test(nothing_makes_an_empty_environment),
        cmocka_unit_test(wrong_words_are_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
