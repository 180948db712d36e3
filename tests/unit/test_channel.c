/* test_channel.c: lines over a socket, however they are cut; and what a worker prints. */
#include <errno.h>
#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cmocka.h>

#include "jobqd/proc/channel.h"
#include "jobqd/proc/output.h"

enum { MAX_LINE = 1000, LIMIT_MS = 30000 };

struct bench {
    uv_loop_t loop;
    uv_timer_t tick;
    char *chunk;
    struct channel channel;
    struct output output;
    struct output_rate rate;
    int peer;
    size_t lines;
    size_t batches;
    size_t refuse_after; /* lines; 0: never */
    bool ended;
    size_t closed;
    uint64_t dropped;
    struct jobq__buf text; /* each line and a '|' */
};

static bool
on_line(void *owner, char *line, size_t len)
{
    struct bench *b = owner;
    b->lines++;
    jobq__buf_add(&b->text, line, len);
    jobq__buf_addc(&b->text, '|');
    memset(line, '#', len); /* it is ours to write in */
    return b->lines != b->refuse_after;
}

static void
on_lines_end(void *owner)
{
    struct bench *b = owner;
    b->batches++;
}

static void
on_end(void *owner)
{
    struct bench *b = owner;
    assert_false(b->ended);
    b->ended = true;
}

static void
on_closed(void *owner)
{
    struct bench *b = owner;
    b->closed++;
}

static const struct channel_events channel_events = {.on_line = on_line,
                                                     .on_lines_end = on_lines_end,
                                                     .on_end = on_end,
                                                     .on_closed = on_closed};

static void
on_output_line(void *owner, const char *line)
{
    struct bench *b = owner;
    b->lines++;
    jobq__buf_adds(&b->text, line);
    jobq__buf_addc(&b->text, '|');
}

static void
on_dropped(void *owner, uint64_t lines)
{
    struct bench *b = owner;
    b->dropped += lines;
}

static const struct output_events output_events = {
    .on_line = on_output_line, .on_dropped = on_dropped, .on_closed = on_closed};

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
    uv_timer_start(&b->tick, on_tick, 10, 10);
    b->channel.fd = b->output.fd = b->peer = -1;
    return b;
}

static struct bench *
with_channel(void)
{
    struct bench *b = bench_new();
    int fds[2];
    assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, fds), 0);
    b->peer = fds[1];
    assert_int_equal(fcntl(b->peer, F_SETFL, O_NONBLOCK), 0);
    assert_int_equal(channel_open(&b->channel, &b->loop, fds[0], MAX_LINE, b->chunk,
                                  &channel_events, b),
                     0);
    return b;
}

static struct bench *
with_output(void)
{
    struct bench *b = bench_new();
    int fds[2];
    assert_int_equal(pipe(fds), 0);
    b->peer = fds[1];
    assert_int_equal(fcntl(b->peer, F_SETFL, O_NONBLOCK), 0);
    assert_int_equal(
        output_open(&b->output, &b->loop, fds[0], b->chunk, &b->rate, &output_events, b),
        0);
    return b;
}

static void
bench_free(struct bench *b)
{
    size_t open = 0;
    if (b->channel.fd >= 0) {
        channel_close(&b->channel);
        open++;
    }
    if (b->output.fd >= 0) {
        output_close(&b->output);
        open++;
    }
    if (b->peer >= 0)
        close(b->peer);
    uv_close((uv_handle_t *)&b->tick, NULL);
    uv_run(&b->loop, UV_RUN_DEFAULT);
    assert_int_equal(b->closed, open);
    assert_int_equal(uv_loop_close(&b->loop), 0);
    jobq__buf_clear(&b->text);
    free(b->chunk);
    free(b);
}

static void
peer_says(struct bench *b, const char *text)
{
    assert_int_equal(write(b->peer, text, strlen(text)), strlen(text));
}

static void
turn(struct bench *b)
{
    uv_run(&b->loop, UV_RUN_NOWAIT);
}

static void
hang_up(struct bench *b)
{
    close(b->peer);
    b->peer = -1;
}

static const char *
text_of(struct bench *b)
{
    const char *text = jobq__buf_cstr(&b->text);
    return text ? text : "";
}

/* ---- lines ---- */

static void
lines_are_handed_over_however_they_are_cut(void **state)
{
    (void)state;
    static const char stream[] = "one\n\ntwo three\nfour\n";
    for (size_t cut = 1; cut < sizeof stream; cut++) {
        struct bench *b = with_channel();
        for (size_t at = 0; at < sizeof stream - 1; at += cut) {
            size_t left = sizeof stream - 1 - at;
            size_t n = left < cut ? left : cut;
            assert_int_equal(write(b->peer, stream + at, n), n);
            turn(b);
        }
        assert_string_equal(text_of(b), "one||two three|four|");
        bench_free(b);
    }
}

static void
lines_that_come_together_end_together(void **state)
{
    (void)state;
    struct bench *b = with_channel();
    peer_says(b, "a\nb\nc\n");
    turn(b);
    assert_int_equal(b->lines, 3);
    assert_int_equal(b->batches, 1);
    bench_free(b);
}

static void
a_line_may_be_as_long_as_allowed_and_no_longer(void **state)
{
    (void)state;
    for (size_t extra = 0; extra < 2; extra++) {
        for (int together = 0; together < 2; together++) {
            struct bench *b = with_channel();
            char line[MAX_LINE + 3];
            size_t len = MAX_LINE + extra;
            memset(line, 'x', len);
            line[len] = '\n';
            if (together) {
                assert_int_equal(write(b->peer, line, len + 1), len + 1);
                turn(b);
            } else {
                assert_int_equal(write(b->peer, line, len / 2), len / 2);
                turn(b);
                assert_int_equal(write(b->peer, line + len / 2, len + 1 - len / 2),
                                 len + 1 - len / 2);
                turn(b);
            }
            assert_int_equal(b->lines, extra == 0);
            assert_int_equal(b->channel.state,
                             extra == 0 ? CHANNEL_OPEN : CHANNEL_TOO_LONG);
            assert_int_equal(b->ended, extra != 0);
            bench_free(b);
        }
    }
}

static void
a_line_without_end_is_given_up_early(void **state)
{
    (void)state;
    struct bench *b = with_channel();
    char bytes[MAX_LINE + 1];
    memset(bytes, 'x', sizeof bytes);
    assert_int_equal(write(b->peer, bytes, sizeof bytes), sizeof bytes);
    turn(b);
    assert_int_equal(b->channel.state, CHANNEL_TOO_LONG);
    assert_int_equal(b->channel.rest.cap, 0);
    bench_free(b);
}

static void
the_owner_may_want_no_more(void **state)
{
    (void)state;
    struct bench *b = with_channel();
    b->refuse_after = 2;
    peer_says(b, "a\nb\nc\n");
    turn(b);
    peer_says(b, "d\n");
    turn(b);
    assert_string_equal(text_of(b), "a|b|");
    assert_int_equal(b->channel.state, CHANNEL_REFUSED);
    bench_free(b);
}

static void
an_end_is_clean_or_within_a_line(void **state)
{
    (void)state;
    struct bench *b = with_channel();
    peer_says(b, "a\n");
    hang_up(b);
    for (int i = 0; i < 5; i++)
        turn(b);
    assert_int_equal(b->channel.state, CHANNEL_ENDED);
    bench_free(b);
    b = with_channel();
    peer_says(b, "a\nb");
    hang_up(b);
    for (int i = 0; i < 5; i++)
        turn(b);
    assert_string_equal(text_of(b), "a|");
    assert_int_equal(b->channel.state, CHANNEL_CUT);
    bench_free(b);
}

static void
a_drain_takes_all_that_is_there(void **state)
{
    (void)state;
    struct bench *b = with_channel();
    for (int i = 0; i < 200; i++)
        peer_says(b, "a line of thirty bytes or so..\n");
    channel_drain(&b->channel); /* the peer lives: nothing is waited for */
    assert_int_equal(b->lines, 200);
    assert_true(b->ended);
    bench_free(b);
}

static void
what_the_peer_has_not_read_is_noticed(void **state)
{
    (void)state;
    struct bench *b = with_channel();
    jobq__buf_adds(&b->channel.out, "read\n");
    channel_flush(&b->channel);
    char bytes[16];
    assert_int_equal(recv(b->peer, bytes, sizeof bytes, 0), 5);
    hang_up(b);
    channel_drain(&b->channel);
    assert_false(b->channel.unread);
    bench_free(b);
    b = with_channel();
    peer_says(b, "answer\n");
    jobq__buf_adds(&b->channel.out, "unread\n");
    channel_flush(&b->channel);
    hang_up(b);
    channel_drain(&b->channel);
    assert_string_equal(text_of(b), "answer|");
    assert_int_equal(b->channel.state, CHANNEL_ENDED);
    assert_true(b->channel.unread);
    bench_free(b);
}

/* ---- writing ---- */

static void
what_does_not_fit_is_written_when_it_does(void **state)
{
    (void)state;
    struct bench *b = with_channel();
    static char bytes[3 << 20];
    for (size_t i = 0; i < sizeof bytes; i++)
        bytes[i] = (char)('a' + i % 26);
    jobq__buf_add(&b->channel.out, bytes, sizeof bytes);
    channel_flush(&b->channel);
    assert_true(channel_backlog(&b->channel) > 0);
    size_t got = 0;
    static char in[1 << 16];
    while (got < sizeof bytes) {
        ssize_t n = recv(b->peer, in, sizeof in, MSG_DONTWAIT);
        if (n < 0) {
            assert_int_equal(errno, EAGAIN);
            uv_run(&b->loop, UV_RUN_ONCE);
            continue;
        }
        assert_memory_equal(in, bytes + got, (size_t)n);
        got += (size_t)n;
    }
    turn(b);
    assert_int_equal(channel_backlog(&b->channel), 0);
    assert_int_equal(b->channel.total, sizeof bytes);
    assert_int_equal(b->channel.out.cap, 0); /* given back */
    bench_free(b);
}

static void
a_buffer_that_is_never_empty_does_not_grow(void **state)
{
    (void)state;
    struct bench *b = with_channel();
    static char bytes[100000];
    static char in[100000];
    size_t most = 0;
    for (int i = 0; i < 500; i++) {
        while (channel_backlog(&b->channel) < 200000)
            jobq__buf_add(&b->channel.out, bytes, sizeof bytes);
        channel_flush(&b->channel);
        assert_true(channel_backlog(&b->channel) > 0 || i == 0);
        ssize_t n = recv(b->peer, in, sizeof in / 2, 0);
        assert_true(n > 0);
        most = b->channel.out.cap > most ? b->channel.out.cap : most;
    }
    assert_true(most < 2000000);
    bench_free(b);
}

static void
writing_to_a_peer_that_is_gone_does_no_harm(void **state)
{
    (void)state;
    struct bench *b = with_channel();
    hang_up(b);
    jobq__buf_adds(&b->channel.out, "hello?\n");
    channel_flush(&b->channel);
    assert_int_equal(channel_backlog(&b->channel), 0);
    assert_int_equal(b->channel.total, 0);
    turn(b);
    assert_true(b->ended);
    bench_free(b);
}

/* ---- output ---- */

static void
output_comes_as_lines(void **state)
{
    (void)state;
    struct bench *b = with_output();
    peer_says(b, "one\ntw");
    turn(b);
    peer_says(b, "o\n\nlast");
    turn(b);
    assert_string_equal(text_of(b), "one|two|");
    hang_up(b);
    output_drain(&b->output);
    assert_string_equal(text_of(b), "one|two|last|");
    assert_string_equal(output_tail(&b->output, 0), "one\ntwo\n\nlast");
    bench_free(b);
}

static void
the_tail_begins_where_it_is_asked_for(void **state)
{
    (void)state;
    struct bench *b = with_output();
    peer_says(b, "old\n");
    output_catch_up(&b->output);
    uint64_t from = b->output.total;
    assert_int_equal(from, 4);
    assert_null(output_tail(&b->output, from));
    peer_says(b, "new");
    output_catch_up(&b->output);
    assert_string_equal(output_tail(&b->output, from), "new");
    assert_string_equal(output_tail(&b->output, 0), "old\nnew");
    for (int i = 0; i < OUTPUT_TAIL; i++)
        peer_says(b, "x");
    output_catch_up(&b->output);
    assert_int_equal(strlen(output_tail(&b->output, from)), OUTPUT_TAIL);
    hang_up(b);
    bench_free(b);
}

static void
nothing_printed_has_no_tail(void **state)
{
    (void)state;
    struct bench *b = with_output();
    hang_up(b);
    output_drain(&b->output);
    assert_null(output_tail(&b->output, 0));
    bench_free(b);
}

static void
a_long_line_comes_in_pieces(void **state)
{
    (void)state;
    struct bench *b = with_output();
    char line[OUTPUT_LINE * 2 + 11];
    memset(line, 'x', sizeof line);
    line[sizeof line - 1] = '\n';
    assert_int_equal(write(b->peer, line, sizeof line), sizeof line);
    turn(b);
    assert_int_equal(b->lines, 3);
    assert_int_equal(b->text.len, sizeof line - 1 + 3);
    bench_free(b);
}

static void
nul_bytes_do_not_cut_what_follows(void **state)
{
    (void)state;
    struct bench *b = with_output();
    assert_int_equal(write(b->peer, "a\0b\n", 4), 4);
    turn(b);
    assert_string_equal(text_of(b), "a?b|");
    assert_string_equal(output_tail(&b->output, 0), "a?b\n");
    bench_free(b);
}

static void
the_tail_is_the_last_of_it_and_whole_characters(void **state)
{
    (void)state;
    /* Two-byte characters, first at an even, then at an odd offset. */
    for (int odd = 0; odd < 2; odd++) {
        struct bench *b = with_output();
        if (odd)
            peer_says(b, "x");
        for (int i = 0; i < 3000; i++)
            peer_says(b, "\xc3\xa5");
        peer_says(b, "end");
        hang_up(b);
        output_drain(&b->output);
        const char *tail = output_tail(&b->output, 0);
        size_t len = strlen(tail);
        assert_true(len <= OUTPUT_TAIL && len >= OUTPUT_TAIL - 1);
        assert_memory_equal(tail, "\xc3\xa5", 2);
        assert_string_equal(tail + len - 3, "end");
        bench_free(b);
    }
}

static void
too_many_lines_are_counted(void **state)
{
    (void)state;
    struct bench *b = with_output();
    size_t said = 0;
    for (int i = 0; i < 200; i++) {
        for (int k = 0; k < 100; k++, said++)
            peer_says(b, "line\n");
        turn(b);
    }
    hang_up(b);
    output_drain(&b->output);
    assert_int_equal(b->lines + b->dropped, said);
    /* All within a second or two. */
    assert_true(b->lines >= OUTPUT_LINES_A_SECOND);
    assert_true(b->dropped > 0);
    bench_free(b);
}

static void
a_flood_takes_one_read_a_turn(void **state)
{
    (void)state;
    struct bench *b = with_output();
    fcntl(b->peer, F_SETPIPE_SZ, 1 << 20);
    static char bytes[1 << 19];
    memset(bytes, '\n', sizeof bytes);
    ssize_t n = write(b->peer, bytes, sizeof bytes);
    assert_true(n > 2 * IO_CHUNK);
    turn(b);
    static char rest[1 << 20];
    ssize_t left = read(b->output.fd, rest, sizeof rest);
    assert_int_equal(left, n - IO_CHUNK);
    bench_free(b);
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(lines_are_handed_over_however_they_are_cut),
        cmocka_unit_test(lines_that_come_together_end_together),
        cmocka_unit_test(a_line_may_be_as_long_as_allowed_and_no_longer),
        cmocka_unit_test(a_line_without_end_is_given_up_early),
        cmocka_unit_test(the_owner_may_want_no_more),
        cmocka_unit_test(an_end_is_clean_or_within_a_line),
        cmocka_unit_test(a_drain_takes_all_that_is_there),
        cmocka_unit_test(what_the_peer_has_not_read_is_noticed),
        cmocka_unit_test(what_does_not_fit_is_written_when_it_does),
        cmocka_unit_test(a_buffer_that_is_never_empty_does_not_grow),
        cmocka_unit_test(writing_to_a_peer_that_is_gone_does_no_harm),
        cmocka_unit_test(output_comes_as_lines),
        cmocka_unit_test(the_tail_begins_where_it_is_asked_for),
        cmocka_unit_test(nothing_printed_has_no_tail),
        cmocka_unit_test(a_long_line_comes_in_pieces),
        cmocka_unit_test(nul_bytes_do_not_cut_what_follows),
        cmocka_unit_test(the_tail_is_the_last_of_it_and_whole_characters),
        cmocka_unit_test(too_many_lines_are_counted),
        cmocka_unit_test(a_flood_takes_one_read_a_turn),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
