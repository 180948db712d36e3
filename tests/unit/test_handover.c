/* test_handover.c: the document that one jobqd leaves to the next: what is written comes
 * back, and what is not one is refused. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "jobqd/upgrade/handover.h"

static int
file_of(const char *text)
{
    int fd = memfd_create("test", MFD_CLOEXEC);
    assert_true(fd >= 0);
    assert_int_equal(write(fd, text, strlen(text)), (ssize_t)strlen(text));
    return fd;
}

static void
records_come_back_in_their_order(void **state)
{
    (void)state;
    struct handover h = {0};
    jobq_error err;
    int fd;
    handover_record(&h, "node");
    handover_put_int(&h, "id", INT64_MIN);
    handover_record(&h, "worker");
    handover_put_int(&h, "pid", 77);
    handover_put_bytes(&h, "rest", "a b\n[x]\n\0z", 10);
    handover_put_text(&h, "empty", "");
    assert_int_equal(handover_seal(&h, &fd, &err), 0);

    struct handover_reader *r;
    assert_int_equal(handover_open(&r, fd, &err), 0);
    const struct handover_entry *e = handover_next(r, NULL);
    int64_t value;
    assert_true(handover_is(e, "node"));
    assert_int_equal(handover_get_int(e, "id", INT64_MIN, INT64_MAX, &value, &err), 0);
    assert_true(value == INT64_MIN);
    e = handover_next(r, e);
    assert_true(handover_is(e, "worker"));
    assert_int_equal(handover_get_int(e, "pid", 1, 100, &value, &err), 0);
    assert_int_equal(value, 77);
    const char *bytes;
    size_t len;
    assert_int_equal(handover_get_bytes(e, "rest", &bytes, &len, &err), 0);
    assert_int_equal(len, 10);
    assert_memory_equal(bytes, "a b\n[x]\n\0z", 11);
    assert_int_equal(handover_get_bytes(e, "empty", &bytes, NULL, &err), 0);
    assert_string_equal(bytes, "");
    assert_null(handover_next(r, e));
    handover_close(r);
    handover_clear(&h);
    close(fd);
}

static void
a_field_that_is_missing_or_wrong_is_named(void **state)
{
    (void)state;
    jobq_error err;
    struct handover_reader *r;
    int fd;
    struct handover h = {0};
    handover_record(&h, "worker");
    handover_put_text(&h, "pid", "12x");
    handover_put_int(&h, "slot", 8);
    handover_put_bytes(&h, "name", "a\0b", 3);
    assert_int_equal(handover_seal(&h, &fd, &err), 0);
    assert_int_equal(handover_open(&r, fd, &err), 0);
    const struct handover_entry *e = handover_next(r, NULL);
    int64_t value = 5;
    const char *bytes;
    assert_int_equal(handover_get_int(e, "pid", 0, 9, &value, &err), JOBQ_EINVAL);
    assert_string_equal(err.message, "the handover's field \"worker.pid\" is \"12x\": it "
                                     "must be a number from 0 to 9");
    assert_int_equal(handover_get_int(e, "slot", 0, 7, &value, &err), JOBQ_EINVAL);
    assert_int_equal(handover_get_int(e, "fd", 0, 7, &value, &err), JOBQ_EINVAL);
    assert_string_equal(
        err.message,
        "the state handed over by the old jobqd is incomplete: record \"worker\" has no "
        "field \"fd\"");
    assert_int_equal(handover_get_bytes(e, "name", &bytes, NULL, &err), JOBQ_EINVAL);
    assert_int_equal(value, 5);
    handover_close(r);
    handover_clear(&h);
    close(fd);
}

static void
what_is_no_handover_is_refused(void **state)
{
    (void)state;
    static const struct {
        const char *text, *error;
    } rows[] = {
        {"", "the handover is broken: it does not begin with a handover's first line"},
        {"jobqd-handover",
         "the handover is broken: it does not begin with a handover's first line"},
        {"jobqd-handover 1",
         "the handover is broken: it does not begin with a handover's first line"},
        {"jobqd-handover 2 0\n", "the handover has format 2; this jobqd reads format 1"},
        {"jobqd-handover 1 9\n[a]\n", "the handover is broken: it is cut off"},
    };
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        jobq_error err = {0};
        struct handover_reader *r = NULL;
        int fd = file_of(rows[i].text);
        assert_int_equal(handover_open(&r, fd, &err), JOBQ_EINVAL);
        assert_string_equal(err.message, rows[i].error);
        assert_null(r);
        close(fd);
    }
}

static void
a_record_that_is_not_well_formed_is_refused(void **state)
{
    (void)state;
    static const struct {
        const char *body, *error;
    } rows[] = {
        {"[]\n", "the handover is broken: a record's name"},
        {"[a", "the handover is broken: a record's name"},
        {"[a\n", "the handover is broken: a record's name"},
        {"a 1 b\n", "the handover is broken: a field before the first record"},
        {"[a]\na 2 b\n", "the handover is broken: a field"},
        {"[a]\na 1 bb\n", "the handover is broken: a field"},
        {"[a]\na 1 b", "the handover is broken: a field"},
        {"[a]\na 99999999999999999999 b\n", "the handover is broken: a field"},
        {"[a]\na -1 b\n", "the handover is broken: a field"},
        {"[a]\n 1 b\n", "the handover is broken: a field"},
        {"[a]\na\n", "the handover is broken: a field"},
    };
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        char text[128];
        snprintf(text, sizeof text, "jobqd-handover 1 %zu\n%s", strlen(rows[i].body),
                 rows[i].body);
        jobq_error err = {0};
        struct handover_reader *r = NULL;
        int fd = file_of(text);
        assert_int_equal(handover_open(&r, fd, &err), JOBQ_EINVAL);
        assert_string_equal(err.message, rows[i].error);
        close(fd);
    }
}

static void
descriptors_are_inheritable_only_while_it_is_wanted(void **state)
{
    (void)state;
    struct handover h = {0};
    jobq_error err;
    int fd = file_of("x");
    handover_record(&h, "worker");
    handover_put_fd(&h, "socket", fd);
    handover_put_fd(&h, "none", -1);
    assert_int_equal(handover_inherit(&h, true, &err), 0);
    assert_int_equal(fcntl(fd, F_GETFD), 0);
    assert_int_equal(handover_inherit(&h, false, &err), 0);
    assert_int_equal(fcntl(fd, F_GETFD), FD_CLOEXEC);
    close(fd);
    assert_int_equal(handover_inherit(&h, true, &err), JOBQ_EIO);
    handover_clear(&h);
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(records_come_back_in_their_order),
        cmocka_unit_test(a_field_that_is_missing_or_wrong_is_named),
        cmocka_unit_test(what_is_no_handover_is_refused),
        cmocka_unit_test(a_record_that_is_not_well_formed_is_refused),
        cmocka_unit_test(descriptors_are_inheritable_only_while_it_is_wanted),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
