/* test_longlines.c: what the unfinished lines of all channels may take together. */
#include <errno.h>
#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cmocka.h>

#include "jobqd/proc/channel.h"

enum { LIMIT_MS = 60000, CHANNELS = 60, LINE = 4 * 1024 * 1024 };

struct bench;

struct end {
    struct bench *bench;
    struct channel channel;
    int peer;
    size_t left; /* of its long line, for the peer to write */
    size_t lines;
    size_t bytes; /* of lines */
    bool hangs;   /* never ends its line */
};

struct bench {
    uv_loop_t loop;
    uv_timer_t tick;
    char *chunk;
    struct end ends[CHANNELS];
    size_t most; /* that all of them ever kept */
    size_t closed;
};

static bool
on_line(void *owner, char *line, size_t len)
{
    struct end *end = owner;
    (void)line;
    end->lines++;
    end->bytes += len;
    return true;
}

static void
on_lines_end(void *owner)
{
    (void)owner;
}

static void
on_end(void *owner)
{
    (void)owner;
}

static void
on_closed(void *owner)
{
    struct end *end = owner;
    end->bench->closed++;
}

static const struct channel_events events = {.on_line = on_line,
                                             .on_lines_end = on_lines_end,
                                             .on_end = on_end,
                                             .on_closed = on_closed};

static void
on_tick(uv_timer_t *timer)
{
    (void)timer;
}

static struct bench *
bench_new(void)
{
    struct bench *b = calloc(1, sizeof *b);
    assert_non_null(b);
    b->chunk = malloc(IO_CHUNK);
    assert_non_null(b->chunk);
    assert_int_equal(uv_loop_init(&b->loop), 0);
    uv_timer_init(&b->loop, &b->tick);
    uv_timer_start(&b->tick, on_tick, 1, 1);
    for (size_t i = 0; i < CHANNELS; i++) {
        int fds[2];
        struct end *end = &b->ends[i];
        assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, fds), 0);
        end->bench = b;
        end->peer = fds[1];
        assert_int_equal(fcntl(end->peer, F_SETFL, O_NONBLOCK), 0);
        assert_int_equal(
            channel_open(&end->channel, &b->loop, fds[0], LINE, b->chunk, &events, end),
            0);
    }
    return b;
}

static void
write_some(struct end *end)
{
    static char bytes[IO_CHUNK];
    memset(bytes, 'x', sizeof bytes);
    while (end->left > 0) {
        size_t n = end->left < sizeof bytes ? end->left : sizeof bytes;
        bytes[n - 1] = n == end->left && !end->hangs ? '\n' : 'x';
        ssize_t done = write(end->peer, bytes, n);
        bytes[n - 1] = 'x';
        if (done < 0) {
            assert_int_equal(errno, EAGAIN);
            return;
        }
        end->left -= (size_t)done;
    }
}

static size_t
kept(const struct bench *b)
{
    size_t sum = 0;
    for (size_t i = 0; i < CHANNELS; i++)
        sum += b->ends[i].channel.rest.len;
    return sum;
}

/* Every peer writes what its socket takes, each turn. */
static void
run_until(struct bench *b, bool (*condition)(const struct bench *b))
{
    uint64_t limit = uv_hrtime() + (uint64_t)LIMIT_MS * 1000000u;
    while (!condition(b)) {
        for (size_t i = 0; i < CHANNELS; i++)
            write_some(&b->ends[i]);
        uv_run(&b->loop, UV_RUN_ONCE);
        if (kept(b) > b->most)
            b->most = kept(b);
        assert_true(uv_hrtime() < limit);
    }
}

static bool
all_came(const struct bench *b)
{
    for (size_t i = 0; i < CHANNELS; i++) {
        if (b->ends[i].lines == 0 && !b->ends[i].hangs)
            return false;
    }
    return true;
}

static bool
the_last_came(const struct bench *b)
{
    return b->ends[CHANNELS - 1].lines > 0;
}

static bool
some_wait(const struct bench *b)
{
    (void)b;
    return longlines_wait();
}

static void
finish(struct bench *b)
{
    for (size_t i = 0; i < CHANNELS; i++) {
        channel_close(&b->ends[i].channel);
        close(b->ends[i].peer);
    }
    uv_close((uv_handle_t *)&b->tick, NULL);
    uv_run(&b->loop, UV_RUN_DEFAULT);
    assert_int_equal(b->closed, CHANNELS);
    assert_false(longlines_wait());
    assert_int_equal(uv_loop_close(&b->loop), 0);
    free(b->chunk);
    free(b);
}

/* What each may keep without being counted. */
enum { UNCOUNTED = CHANNELS * 16 * 1024, A_READ = 8 * IO_CHUNK };

static void
many_long_lines_come_a_few_at_a_time(void **state)
{
    (void)state;
    struct bench *b = bench_new();
    for (size_t i = 0; i < CHANNELS; i++)
        b->ends[i].left = LINE;
    run_until(b, all_came);
    for (size_t i = 0; i < CHANNELS; i++)
        assert_int_equal(b->ends[i].bytes, LINE - 1);
    print_message("at most %zu bytes were kept\n", b->most);
    assert_true(b->most <= LONG_LINES_MAX + UNCOUNTED + A_READ);
    assert_int_equal(kept(b), 0);
    for (size_t i = 0; i < CHANNELS; i++) /* one huge line is not paid for ever after */
        assert_true(b->ends[i].channel.rest.cap <= 16 * 1024);
    finish(b);
}

static void
short_lines_pass_long_ones_that_wait(void **state)
{
    (void)state;
    struct bench *b = bench_new();
    for (size_t i = 0; i < CHANNELS - 1; i++) {
        b->ends[i].left = LINE - 1;
        b->ends[i].hangs = true;
    }
    run_until(b, some_wait);
    b->ends[CHANNELS - 1].left = 1000;
    uint64_t began = uv_hrtime();
    run_until(b, the_last_came);
    assert_true(uv_hrtime() - began < (uint64_t)LIMIT_MS * 1000000u);
    assert_true(longlines_wait());
    finish(b);
}

static void
lines_that_never_end_hold_up_no_others(void **state)
{
    (void)state;
    struct bench *b = bench_new();
    for (size_t i = 0; i < 8; i++) {
        b->ends[i].left = LINE - 1;
        b->ends[i].hangs = true;
    }
    run_until(b, some_wait);
    for (size_t i = 8; i < CHANNELS; i++)
        b->ends[i].left = LINE;
    run_until(b, all_came);
    finish(b);
}

static void
a_line_longer_than_all_may_be_comes_alone(void **state)
{
    (void)state;
    struct bench *b = bench_new();
    for (size_t i = 0; i < 3; i++) {
        b->ends[i].channel.max_line = (size_t)3 * LONG_LINES_MAX;
        b->ends[i].left = (size_t)2 * LONG_LINES_MAX;
    }
    for (size_t i = 3; i < CHANNELS; i++)
        b->ends[i].left = 100;
    run_until(b, all_came);
    assert_true(b->most <= (size_t)2 * LONG_LINES_MAX + UNCOUNTED + A_READ);
    finish(b);
}

static void
who_closes_makes_room(void **state)
{
    (void)state;
    struct bench *b = bench_new();
    for (size_t i = 0; i < CHANNELS; i++) {
        b->ends[i].left = LINE - 1;
        b->ends[i].hangs = true;
    }
    run_until(b, some_wait);
    finish(b); /* in the order of their numbers, so each gives its turn to the next */
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(many_long_lines_come_a_few_at_a_time),
        cmocka_unit_test(short_lines_pass_long_ones_that_wait),
        cmocka_unit_test(lines_that_never_end_hold_up_no_others),
        cmocka_unit_test(a_line_longer_than_all_may_be_comes_alone),
        cmocka_unit_test(who_closes_makes_room),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
