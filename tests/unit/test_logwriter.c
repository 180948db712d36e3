/* test_logwriter.c: the log waits for nobody, and says what that has cost. Each test has
 * a process of its own, whose stderr is what the test makes of it. */
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include <cmocka.h>

#include "jobqd/base/log.h"
#include "jobqd/base/logwriter.h"

enum { LIMIT_MS = 60000, LINES = 100000, SPARE_FD = 100 };

static int64_t
now_ms(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (int64_t)now.tv_sec * 1000 + now.tv_nsec / 1000000;
}

/* In the child, where cmocka's asserts would go astray. */
#define check(condition)                                                                 \
    do {                                                                                 \
        if (!(condition)) {                                                              \
            dprintf(SPARE_FD, "%s:%d: %s\n", __FILE__, __LINE__, #condition);            \
            _exit(1);                                                                    \
        }                                                                                \
    } while (0)

static void
run_in_child(void (*test)(void))
{
    int status;
    pid_t pid = fork();
    assert_true(pid >= 0);
    if (pid == 0) {
        dup2(STDERR_FILENO, SPARE_FD);
        signal(SIGPIPE, SIG_IGN);
        alarm(2 * LIMIT_MS / 1000);
        log_setup(&(struct log_options){.level = LOG_LEVEL_INFO});
        test();
        _exit(0);
    }
    assert_int_equal(waitpid(pid, &status, 0), pid);
    assert_int_equal(status, 0);
}

/* ---- what is read of it ---- */

struct reader {
    int fd;
    size_t len;
    size_t n;      /* numbered lines so far */
    long next;     /* the number that the next one has, if none was lost */
    uint64_t lost; /* as the log says */
    size_t notices;
    char text[64 * 1024];
};

/* Stderr is a pipe, of which out->fd is the other end. */
static void
be_a_pipe(struct reader *out, int flags)
{
    int ends[2];
    *out = (struct reader){0};
    check(pipe(ends) == 0);
    check(fcntl(ends[1], F_SETPIPE_SZ, 4096) > 0);
    check(fcntl(ends[1], F_SETFL, flags) == 0);
    check(dup2(ends[1], STDERR_FILENO) == STDERR_FILENO);
    close(ends[1]);
    out->fd = ends[0];
}

static void
take_line(struct reader *reader, char *line)
{
    unsigned long long lost;
    const char *notice = strstr(line, " WARNING log: ");
    const char *number = strstr(line, " INFO test: line ");
    if (notice) {
        check(sscanf(notice, " WARNING log: %llu line", &lost) == 1);
        check(strstr(notice, " lost since 20") != NULL);
        reader->lost += lost;
        reader->next += (long)lost; /* in their place */
        reader->notices++;
        return;
    }
    check(number != NULL);
    check(atol(number + strlen(" INFO test: line ")) == reader->next);
    reader->next++;
    reader->n++;
}

static void
read_lines(struct reader *reader)
{
    struct pollfd news = {.fd = reader->fd, .events = POLLIN};
    check(poll(&news, 1, LIMIT_MS) == 1);
    ssize_t n = read(reader->fd, reader->text + reader->len,
                     sizeof reader->text - 1 - reader->len);
    check(n > 0);
    reader->len += (size_t)n;
    reader->text[reader->len] = '\0';
    char *at = reader->text, *end;
    while ((end = strchr(at, '\n')) != NULL) {
        *end = '\0';
        take_line(reader, at);
        at = end + 1;
    }
    reader->len -= (size_t)(at - reader->text);
    memmove(reader->text, at, reader->len);
}

static void
read_all(struct reader *reader, size_t lines)
{
    while (reader->n + reader->lost < lines)
        read_lines(reader);
    check(reader->n + reader->lost == lines);
}

static void
say_lines(long from, long to)
{
    for (long i = from; i < to; i++)
        log_info("test", "line %ld", i);
}

/* ---- the tests ---- */

static void
stands_still(void)
{
    struct reader reader;
    be_a_pipe(&reader, 0);
    check(log_start() == 0);
    int64_t began = now_ms();
    say_lines(0, LINES);
    check(now_ms() - began < LIMIT_MS); /* it has returned */
    log_flush();                        /* so has this */
    check(now_ms() - began < LIMIT_MS);
    struct logwriter_loss loss = logwriter_unwritten();
    check(loss.lines > LINES - 200);
    read_all(&reader, LINES); /* nobody logs any more: the thread tells by itself */
    check(reader.lost > 0 && reader.n > 1000);
    check(reader.notices == 1);
    say_lines(LINES, LINES + 10);
    read_all(&reader, LINES + 10);
    check(reader.notices == 1);
}

static void
a_reader_that_stands_still_makes_nobody_wait(void **state)
{
    (void)state;
    run_in_child(stands_still);
}

static void
comes_back(void)
{
    struct reader reader;
    be_a_pipe(&reader, 0);
    check(log_start() == 0);
    long said = LINES;
    say_lines(0, said);
    /* Each line that it reads is one of many that come: slower than they do. */
    while (reader.lost == 0) {
        read_lines(&reader);
        say_lines(said, said + 200);
        said += 200;
    }
    read_all(&reader, (size_t)said);
    check(reader.notices < 50);
}

static void
what_was_lost_is_told_in_its_place(void **state)
{
    (void)state;
    run_in_child(comes_back);
}

static void
json(void)
{
    struct reader reader;
    be_a_pipe(&reader, 0);
    log_setup(&(struct log_options){.level = LOG_LEVEL_INFO, .format = LOG_FORMAT_JSON});
    setenv("JOBQ_HANDOVER_LOST", "7 1764504000000 0", 1);
    check(log_start() == 0);
    check(getenv("JOBQ_HANDOVER_LOST") == NULL);
    check(read(reader.fd, reader.text, sizeof reader.text) > 0);
    check(strstr(reader.text, "\"level\":\"WARNING\",\"subject\":\"log\",\"message\":\"7 "
                              "lines were lost since 2025-11-30T12:00:00.000Z: stderr "
                              "was not read\"}\n") != NULL);
}

static void
a_loss_of_the_program_before_is_told(void **state)
{
    (void)state;
    run_in_child(json);
}

static void
leaves(void)
{
    struct reader reader;
    be_a_pipe(&reader, 0);
    check(log_start() == 0);
    say_lines(0, 10);
    log_leave();
    check(getenv("JOBQ_HANDOVER_LOST") == NULL); /* all of it was written */
    read_all(&reader, 10);
    say_lines(10, LINES);
    log_leave();
    const char *lost = getenv("JOBQ_HANDOVER_LOST");
    check(lost != NULL);
    /* What the pipe has not taken; the rest would go down with us. */
    check(atol(lost) > LINES - 200 && atol(lost) < LINES - 10);
    log_stay();
    check(getenv("JOBQ_HANDOVER_LOST") == NULL);
    read_all(&reader, LINES); /* and we have not gone */
}

static void
who_leaves_says_what_is_lost_by_it(void **state)
{
    (void)state;
    run_in_child(leaves);
}

/* A write of a line may come back with a part of it, or with nothing. */
static void
is_made_nonblocking(void)
{
    struct reader reader;
    be_a_pipe(&reader, O_NONBLOCK);
    check(log_start() == 0);
    say_lines(0, 5000);
    read_all(&reader, 5000);
    check(reader.lost == 0);
}

static void
nothing_is_lost_where_somebody_made_stderr_nonblocking(void **state)
{
    (void)state;
    run_in_child(is_made_nonblocking);
}

static void
has_no_space(void)
{
    struct reader reader;
    be_a_pipe(&reader, 0);
    int with_space = dup(STDERR_FILENO);
    int full = open("/dev/full", O_WRONLY);
    check(full >= 0 && dup2(full, STDERR_FILENO) == STDERR_FILENO);
    check(log_start() == 0);
    say_lines(0, LINES);
    int64_t began = now_ms();
    while (logwriter_unwritten().why != ENOSPC) /* the first try */
        check(now_ms() - began < LIMIT_MS);
    log_flush(); /* waits for no disk */
    say_lines(LINES, LINES + 1);
    check(dup2(with_space, STDERR_FILENO) == STDERR_FILENO);
    read_all(&reader, LINES + 1);
    check(reader.lost > 0);
}

static void
a_full_disk_is_waited_for(void **state)
{
    (void)state;
    run_in_child(has_no_space);
}

static void
reader_goes(void)
{
    char path[] = "/tmp/test_logwriter.XXXXXX", fifo[64];
    check(mkdtemp(path) != NULL);
    snprintf(fifo, sizeof fifo, "%s/fifo", path);
    check(mkfifo(fifo, 0600) == 0);
    struct reader reader = {.fd = open(fifo, O_RDONLY | O_NONBLOCK)};
    int end = open(fifo, O_WRONLY);
    check(reader.fd >= 0 && end >= 0 && dup2(end, STDERR_FILENO) == STDERR_FILENO);
    check(log_start() == 0);
    say_lines(0, 10);
    read_all(&reader, 10);
    close(reader.fd);
    say_lines(10, 20);
    int64_t began = now_ms();
    while (logwriter_unwritten().why != EPIPE)
        check(now_ms() - began < LIMIT_MS);
    reader.fd = open(fifo, O_RDONLY | O_NONBLOCK); /* `tail -f` again */
    check(reader.fd >= 0);
    check(unlink(fifo) == 0 && rmdir(path) == 0);
    say_lines(20, 30);
    read_all(&reader, 30);
    check(reader.lost == 0);
}

static void
a_reader_that_went_away_may_come_back(void **state)
{
    (void)state;
    run_in_child(reader_goes);
}

static void
is_a_socket(void)
{
    int ends[2];
    check(socketpair(AF_UNIX, SOCK_STREAM, 0, ends) == 0);
    check(dup2(ends[1], STDERR_FILENO) == STDERR_FILENO);
    struct reader reader = {.fd = ends[0]};
    check(log_start() == 0);
    int64_t began = now_ms();
    say_lines(0, LINES);
    check(now_ms() - began < LIMIT_MS);
    read_all(&reader, LINES);
}

static void
a_socket_is_no_different(void **state)
{
    (void)state;
    run_in_child(is_a_socket);
}

/* In a forked child there is no thread: it writes by itself, as before log_start. */
static void
forks(void)
{
    struct reader reader;
    be_a_pipe(&reader, 0);
    check(log_start() == 0);
    say_lines(0, 1);
    read_all(&reader, 1);
    pid_t pid = fork();
    if (pid == 0) {
        say_lines(1, 2);
        _exit(0);
    }
    check(waitpid(pid, NULL, 0) == pid);
    read_all(&reader, 2);
}

static void
a_forked_child_has_its_say(void **state)
{
    (void)state;
    run_in_child(forks);
}

static void
dies(void)
{
    struct reader reader;
    be_a_pipe(&reader, 0);
    pid_t pid = fork();
    if (pid == 0) {
        check(log_start() == 0);
        say_lines(0, 20);
        log_fatal("test", "line %d", 20);
    }
    int status;
    check(waitpid(pid, &status, 0) == pid);
    check(WIFSIGNALED(status) && WTERMSIG(status) == SIGABRT);
    ssize_t n = read(reader.fd, reader.text, sizeof reader.text - 1);
    check(n > 0 && strstr(reader.text, " ERROR test: line 20\n") != NULL);
}

static void
last_words_get_out(void **state)
{
    (void)state;
    run_in_child(dies);
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_reader_that_stands_still_makes_nobody_wait),
        cmocka_unit_test(what_was_lost_is_told_in_its_place),
        cmocka_unit_test(a_loss_of_the_program_before_is_told),
        cmocka_unit_test(who_leaves_says_what_is_lost_by_it),
        cmocka_unit_test(nothing_is_lost_where_somebody_made_stderr_nonblocking),
        cmocka_unit_test(a_full_disk_is_waited_for),
        cmocka_unit_test(a_reader_that_went_away_may_come_back),
        cmocka_unit_test(a_socket_is_no_different),
        cmocka_unit_test(a_forked_child_has_its_say),
        cmocka_unit_test(last_words_get_out),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
