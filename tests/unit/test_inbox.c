/* test_inbox.c: the worker's end of the socket: lines come out whole, whatever the pieces
 * that they came in, and none that is too long. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>
#include <cmocka.h>

#include "libjobq/inbox.h"

enum { MAX_LINE = 4 };

struct ends {
    struct jobq__inbox inbox;
    int daemon;
};

static void
open_ends(struct ends *ends)
{
    int fds[2];
    assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, fds), 0);
    jobq__inbox_init(&ends->inbox, fds[0], MAX_LINE);
    ends->daemon = fds[1];
}

static void
close_ends(struct ends *ends)
{
    close(ends->inbox.fd);
    close(ends->daemon);
    jobq__inbox_clear(&ends->inbox);
}

/* Hands over a piece and reads it; the inbox's verdict. */
static int
hand_over(struct ends *ends, const char *piece)
{
    size_t len = strlen(piece), got = 0;
    jobq_error err = {0};
    assert_int_equal(send(ends->daemon, piece, len, 0), len);
    int rc = jobq__inbox_read(&ends->inbox, &got, &err);
    assert_int_equal(got, len);
    if (rc == JOBQ_EPROTO)
        assert_string_equal(err.message,
                            "worker: the daemon sent a line of more than 4 bytes");
    return rc;
}

static void
expect_line(struct ends *ends, const char *expected)
{
    char *line;
    size_t len;
    assert_true(jobq__inbox_line(&ends->inbox, &line, &len));
    assert_string_equal(line, expected);
    assert_int_equal(len, strlen(expected));
}

static void
lines_come_out_whole(void **state)
{
    (void)state;
    struct ends ends;
    char *line;
    size_t len;
    open_ends(&ends);
    assert_int_equal(hand_over(&ends, "ab"), JOBQ_OK);
    assert_false(jobq__inbox_line(&ends.inbox, &line, &len));
    assert_int_equal(hand_over(&ends, "cd\n\nxyz"), JOBQ_OK);
    expect_line(&ends, "abcd");
    expect_line(&ends, "");
    assert_false(jobq__inbox_line(&ends.inbox, &line, &len));
    assert_int_equal(hand_over(&ends, "w\n"), JOBQ_OK);
    expect_line(&ends, "xyzw");
    close_ends(&ends);
}

/* The limit is the same for a line that comes as a whole, in pieces, or behind others. */
static void
a_line_that_is_too_long_is_refused(void **state)
{
    (void)state;
    static const struct {
        const char *pieces[4];
    } rows[] = {
        {{"abcde\n"}},         {{"abcde"}},          {{"abc", "de\n"}},
        {{"a\nabcde\n"}},      {{"a\nabcde\nb\n"}},  {{"a\nabcd", "e\n"}},
        {{"a\nab", "cde\nb"}}, {{"a\n", "abcde\n"}}, {{"ab", "cd\n", "ab", "cde"}},
    };
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        struct ends ends;
        int rc = JOBQ_OK;
        open_ends(&ends);
        for (size_t nth = 0; nth < 4 && rows[i].pieces[nth]; nth++) {
            assert_int_equal(rc, JOBQ_OK);
            rc = hand_over(&ends, rows[i].pieces[nth]);
        }
        assert_int_equal(rc, JOBQ_EPROTO);
        close_ends(&ends);
    }
}

/* A long stream makes the buffer move its bytes, while a line of it is lent. */
static void
the_limit_moves_with_the_buffer(void **state)
{
    (void)state;
    enum { ENOUGH = 64 * 1024 };
    struct ends ends;
    char *line;
    size_t len;
    open_ends(&ends);
    assert_int_equal(hand_over(&ends, "ab"), JOBQ_OK);
    for (int i = 0; i < ENOUGH; i++) {
        assert_int_equal(hand_over(&ends, "cd\nab"), JOBQ_OK);
        assert_true(jobq__inbox_line(&ends.inbox, &line, &len));
        assert_memory_equal(line, "abcd", sizeof "abcd");
    }
    assert_int_equal(hand_over(&ends, "cde\n"), JOBQ_EPROTO);
    close_ends(&ends);
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(lines_come_out_whole),
        cmocka_unit_test(a_line_that_is_too_long_is_refused),
        cmocka_unit_test(the_limit_moves_with_the_buffer),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
