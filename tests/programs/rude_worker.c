/* rude_worker: a worker that speaks the protocol byte by byte, and breaks it in every way
 * that a job or its first argument asks for. It uses nothing of libjobq's worker side,
 * which would not let it.
 *
 * First argument (how it begins): nothing: well; "silent": says no hello; "exit": exits
 * 3; "twice": two hellos; "future": protocol 2; "early": an answer before its hello;
 * "kinds": lists "a" and "b" alone; "deaf": ignores the stop message and SIGTERM;
 * "leave": exits 0 after its first job; "slow": says hello after 300 ms; "many": runs
 * three jobs at a time. What each kind of job does: the table at the end.
 */
#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include "libjobq/wire.h"

static int channel;
static const char *mode = "";
static char inbox[1 << 20];
static size_t inbox_len;

/* ---- bytes ---- */

static void
put(const char *bytes, size_t len)
{
    while (len > 0) {
        ssize_t n = send(channel, bytes, len, MSG_NOSIGNAL);
        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0)
            _exit(4);
        bytes += n;
        len -= (size_t)n;
    }
}

static void
puts_raw(const char *text)
{
    put(text, strlen(text));
}

static void __attribute__((format(printf, 1, 2))) say(const char *format, ...)
{
    char line[4096];
    va_list args;
    va_start(args, format);
    int n = vsnprintf(line, sizeof line, format, args);
    va_end(args);
    put(line, (size_t)n);
}

static void
answer(const char *type, int64_t id)
{
    say("{\"t\":\"%s\",\"id\":%lld}\n", type, (long long)id);
}

static void
wait_ms(int ms)
{
    poll(NULL, 0, ms);
}

static _Noreturn void
hang(void)
{
    for (;;)
        pause();
}

/* Takes the next line off the inbox into `line`; returns its length, or -1 at the end of
 * the socket. */
static ssize_t
next_line(char *line, size_t size)
{
    for (;;) {
        char *newline = memchr(inbox, '\n', inbox_len);
        if (newline) {
            size_t len = (size_t)(newline - inbox);
            if (len >= size)
                _exit(5);
            memcpy(line, inbox, len);
            inbox_len -= len + 1;
            memmove(inbox, newline + 1, inbox_len);
            return (ssize_t)len;
        }
        ssize_t n = recv(channel, inbox + inbox_len, sizeof inbox - inbox_len, 0);
        if (n < 0 && errno == EINTR)
            continue;
        if (n <= 0)
            return -1;
        inbox_len += (size_t)n;
    }
}

/* Reads on until a cancel message for that job has come. */
static void
wait_for_cancel(int64_t id)
{
    static char line[1 << 20];
    ssize_t len;
    while ((len = next_line(line, sizeof line)) >= 0) {
        struct jobq__frame frame;
        if (jobq__frame_parse(line, (size_t)len, &frame, NULL) == 0 &&
            frame.type == JOBQ__FRAME_CANCEL && frame.id == id)
            return;
    }
    _exit(6);
}

static void
die_of(int signal_number)
{
    signal(signal_number, SIG_DFL);
    raise(signal_number);
    hang();
}

/* ---- what jobs do ---- */

static void
do_ok(const struct jobq__frame *job)
{
    answer("ok", job->id);
}

static void
do_result(const struct jobq__frame *job)
{
    say("{\"t\":\"ok\",\"id\":%lld,\"result\":%.*s}\n", (long long)job->id,
        (int)job->args.len, job->args.at);
}

static void
do_error(const struct jobq__frame *job)
{
    say("{\"t\":\"error\",\"id\":%lld,\"error\":\"no "
        "\\\"luck\\\"\",\"detail\":\"a\\ntrace\","
        "\"retry_in_ms\":1234}\n",
        (long long)job->id);
}

static void
do_error_soon(const struct jobq__frame *job)
{
    wait_ms(100);
    do_error(job);
}

static void
do_snooze(const struct jobq__frame *job)
{
    say("{\"t\":\"snooze\",\"id\":%lld,\"in_ms\":777}\n", (long long)job->id);
}

static void
do_discard(const struct jobq__frame *job)
{
    say("{\"t\":\"discard\",\"id\":%lld,\"reason\":\"bad data\"}\n", (long long)job->id);
}

static void
do_cancel(const struct jobq__frame *job)
{
    answer("cancel", job->id);
}

static void
do_progress(const struct jobq__frame *job)
{
    say("{\"t\":\"progress\",\"id\":%lld,\"done\":0.5,\"note\":\"half\"}\n",
        (long long)job->id);
    answer("ok", job->id);
}

static void
do_progress_and_hang(const struct jobq__frame *job)
{
    say("{\"t\":\"progress\",\"id\":%lld,\"done\":0.5}\n", (long long)job->id);
    signal(SIGTERM, SIG_IGN);
    hang();
}

/* More than one read takes, and than a socket holds. */
static void
do_long_error(const struct jobq__frame *job)
{
    static char detail[500 * 1024];
    memset(detail, 'x', sizeof detail);
    say("{\"t\":\"error\",\"id\":%lld,\"error\":\"long\",\"detail\":\"",
        (long long)job->id);
    put(detail, sizeof detail);
    puts_raw("\"}\n");
}

/* An answer as long as may be, with nothing in it. */
static void
do_padded(const struct jobq__frame *job)
{
    static char pad[64 * 1024];
    memset(pad, 'x', sizeof pad);
    say("{\"t\":\"ok\",\"id\":%lld,\"pad\":\"", (long long)job->id);
    for (int i = 0; i < 63; i++)
        put(pad, sizeof pad);
    puts_raw("\"}\n");
}

static void
do_progress_of_nothing(const struct jobq__frame *job)
{
    answer("ok", job->id);
    say("{\"t\":\"progress\",\"id\":%lld,\"done\":0.5}\n", (long long)job->id);
    hang();
}

static void
do_garbage(const struct jobq__frame *job)
{
    (void)job;
    puts_raw("Traceback (most recent call last):\n");
    hang();
}

static void
do_binary(const struct jobq__frame *job)
{
    (void)job;
    put("\0\xff\xfe\n", 4);
    hang();
}

static void
do_empty_line(const struct jobq__frame *job)
{
    (void)job;
    puts_raw("\n");
    hang();
}

static void
do_array(const struct jobq__frame *job)
{
    (void)job;
    puts_raw("[1,2]\n");
    hang();
}

static void
do_unknown_type(const struct jobq__frame *job)
{
    answer("done", job->id);
    hang();
}

static void
do_no_id(const struct jobq__frame *job)
{
    (void)job;
    puts_raw("{\"t\":\"ok\"}\n");
    hang();
}

static void
do_two_objects(const struct jobq__frame *job)
{
    say("{\"t\":\"ok\",\"id\":%lld} {}\n", (long long)job->id);
    hang();
}

static void
do_wrong_id(const struct jobq__frame *job)
{
    answer("ok", job->id + 1000000);
    hang();
}

/* The number in its args is the id of somebody else's job. */
static void
do_steal(const struct jobq__frame *job)
{
    const char *id = strpbrk(job->args.at, "0123456789");
    answer("ok", id ? atoll(id) : 0);
    hang();
}

static void
do_job_back(const struct jobq__frame *job)
{
    say("{\"t\":\"job\",\"id\":%lld,\"attempt\":1,\"max_attempts\":1,\"queue\":\"q\","
        "\"kind\":\"k\","
        "\"args\":{},\"meta\":{}}\n",
        (long long)job->id);
    hang();
}

static void
do_stop_back(const struct jobq__frame *job)
{
    (void)job;
    puts_raw("{\"t\":\"stop\"}\n");
    hang();
}

static void
do_hello_again(const struct jobq__frame *job)
{
    (void)job;
    puts_raw("{\"t\":\"hello\",\"protocol\":1}\n");
    hang();
}

static void
do_answer_twice(const struct jobq__frame *job)
{
    answer("ok", job->id);
    answer("ok", job->id);
    hang();
}

static void
do_long_line(const struct jobq__frame *job)
{
    size_t len = (size_t)5 << 20;
    char *line = malloc(len);
    if (!line)
        _exit(7);
    memset(line, 'x', len);
    (void)job;
    puts_raw("{\"t\":\"ok\",\"result\":\"");
    put(line, len);
    free(line);
    hang();
}

static void
do_half_line(const struct jobq__frame *job)
{
    (void)job;
    puts_raw("{\"t\":\"ok\",\"id\":");
    _exit(0);
}

static void
do_half_line_and_kill(const struct jobq__frame *job)
{
    (void)job;
    puts_raw("{\"t\":\"ok\",\"id\":");
    die_of(SIGKILL);
}

static void
do_half_line_and_hang(const struct jobq__frame *job)
{
    (void)job;
    puts_raw("{\"t\":\"ok\",\"id\":");
    hang();
}

static void
do_close(const struct jobq__frame *job)
{
    (void)job;
    close(channel);
    hang();
}

static void
do_exit(const struct jobq__frame *job)
{
    (void)job;
    _exit(3);
}

static void
do_exit_0(const struct jobq__frame *job)
{
    (void)job;
    _exit(0);
}

static void
do_segv(const struct jobq__frame *job)
{
    fprintf(stderr, "about to crash in job %lld\n", (long long)job->id);
    die_of(SIGSEGV);
}

static void
do_kill(const struct jobq__frame *job)
{
    (void)job;
    die_of(SIGKILL);
}

static void
do_ok_and_kill(const struct jobq__frame *job)
{
    answer("ok", job->id);
    die_of(SIGKILL);
}

static void
do_hang(const struct jobq__frame *job)
{
    (void)job;
    signal(SIGTERM, SIG_IGN);
    hang();
}

static void
do_hang_until_term(const struct jobq__frame *job)
{
    (void)job;
    hang();
}

static void
do_spin(const struct jobq__frame *job)
{
    (void)job;
    signal(SIGTERM, SIG_IGN);
    for (volatile unsigned turns = 0;; turns++)
        continue;
}

/* Stops itself; whoever lets it go on has its answer. */
static void
do_stop_itself(const struct jobq__frame *job)
{
    raise(SIGSTOP);
    answer("ok", job->id);
}

/* Deaf to the cancel message; done when SIGTERM comes, and does not go then. */
static void
do_ok_at_term(const struct jobq__frame *job)
{
    int number;
    sigset_t term;
    sigemptyset(&term);
    sigaddset(&term, SIGTERM);
    sigprocmask(SIG_BLOCK, &term, NULL);
    sigwait(&term, &number);
    answer("ok", job->id);
    hang();
}

static void
do_obey(const struct jobq__frame *job)
{
    wait_for_cancel(job->id);
    answer("cancel", job->id);
}

static void
do_late_ok(const struct jobq__frame *job)
{
    wait_for_cancel(job->id);
    answer("ok", job->id);
}

static void
do_late_error(const struct jobq__frame *job)
{
    wait_for_cancel(job->id);
    say("{\"t\":\"error\",\"id\":%lld,\"error\":\"interrupted\"}\n", (long long)job->id);
}

static void
do_sleep(const struct jobq__frame *job)
{
    /* args: a number of milliseconds */
    wait_ms(atoi(job->args.at));
    answer("ok", job->id);
}

static void
do_flood(const struct jobq__frame *job)
{
    static char chunk[1 << 16];
    for (size_t i = 0; i < sizeof chunk; i++)
        chunk[i] = i % 64 == 63 ? '\n' : 'f';
    for (int i = 0; i < 1600; i++) {
        if (write(STDERR_FILENO, chunk, sizeof chunk) < 0)
            _exit(8);
    }
    answer("ok", job->id);
}

static void
do_long_output(const struct jobq__frame *job)
{
    (void)job;
    for (int i = 0; i < 2000; i++)
        printf("line %d \xc3\xa5\xc3\xa4\xc3\xb6\n", i);
    fflush(stdout);
    die_of(SIGSEGV);
}

/* Leaves a process behind that ignores everything; its pid is the result. */
static void
do_grandchild(const struct jobq__frame *job)
{
    pid_t pid = fork();
    if (pid == 0) {
        signal(SIGTERM, SIG_IGN);
        hang();
    }
    say("{\"t\":\"ok\",\"id\":%lld,\"result\":%ld}\n", (long long)job->id, (long)pid);
}

/* ---- a fork bomb, which is no danger to the machine ----
 *
 * BREEDERS processes fork as fast as they can. What they fork ends soon, unless it has
 * been left alone: then it stays, for somebody to find. Never more than BOMB_MAX live,
 * and none longer than BOMB_LIFE_S. */

enum { BREEDERS = 4, BOMB_MAX = 200, BOMB_LIFE_S = 120 };

static _Noreturn void
be_bred(bool own_session, pid_t parent)
{
    alarm(BOMB_LIFE_S);
    if (own_session)
        setsid();
    wait_ms(200);
    if (getppid() != parent)
        hang();
    _exit(0);
}

static _Noreturn void
breed(bool own_session, atomic_int *alive)
{
    alarm(BOMB_LIFE_S);
    pid_t self = getpid();
    for (;;) {
        while (waitpid(-1, NULL, WNOHANG) > 0)
            atomic_fetch_sub(alive, 1);
        pid_t pid = atomic_fetch_add(alive, 1) < BOMB_MAX ? fork() : -1;
        if (pid == 0)
            be_bred(own_session, self);
        if (pid < 0) {
            atomic_fetch_sub(alive, 1);
            wait_ms(1);
        }
    }
}

static _Noreturn void
explode(bool own_session)
{
    atomic_int *alive = mmap(NULL, sizeof *alive, PROT_READ | PROT_WRITE,
                             MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    if (alive == MAP_FAILED)
        _exit(7);
    signal(SIGTERM, SIG_IGN);
    for (int i = 1; i < BREEDERS; i++) {
        if (fork() == 0) {
            if (own_session)
                setsid();
            breed(own_session, alive);
        }
    }
    breed(own_session, alive);
}

static void
do_fork_bomb(const struct jobq__frame *job)
{
    (void)job;
    explode(false);
}

/* Each of its processes leaves the group. */
static void
do_fork_bomb_of_sessions(const struct jobq__frame *job)
{
    (void)job;
    explode(true);
}

static void
do_environment(const struct jobq__frame *job)
{
    extern char **environ;
    struct jobq__buf out = {0};
    jobq__buf_addc(&out, '[');
    for (size_t i = 0; environ[i]; i++) {
        if (i > 0)
            jobq__buf_addc(&out, ',');
        jobq__buf_add_json_string(&out, environ[i], strlen(environ[i]));
    }
    jobq__buf_addc(&out, ']');
    struct jobq__buf line = {0};
    jobq__frame_put_ok(&line, job->id, (struct jobq__span){out.data, out.len});
    put(line.data, line.len);
    jobq__buf_clear(&out);
    jobq__buf_clear(&line);
}

/* ---- many at a time ---- */

static struct {
    int64_t id;
    bool obeys;
} held[64];
static size_t n_held;

static void
hold(const struct jobq__frame *job, bool obeys)
{
    if (n_held == sizeof held / sizeof held[0])
        _exit(9);
    held[n_held].id = job->id;
    held[n_held++].obeys = obeys;
    say("{\"t\":\"progress\",\"id\":%lld,\"done\":0}\n", (long long)job->id);
}

static void
do_hold(const struct jobq__frame *job)
{
    hold(job, true);
}

static void
do_hold_on(const struct jobq__frame *job)
{
    hold(job, false);
}

/* The newest first. */
static void
do_answer_held(const struct jobq__frame *job)
{
    answer("ok", job->id);
    while (n_held > 0)
        answer("ok", held[--n_held].id);
}

static void
cancel_held(int64_t id)
{
    for (size_t i = 0; i < n_held; i++) {
        if (held[i].id != id || !held[i].obeys)
            continue;
        answer("cancel", id);
        held[i] = held[--n_held];
        return;
    }
}

static const struct {
    const char *kind;
    void (*run)(const struct jobq__frame *job);
} acts[] = {
    {"ok", do_ok},
    {"a", do_ok},
    {"result", do_result},
    {"error", do_error},
    {"error_soon", do_error_soon},
    {"snooze", do_snooze},
    {"discard", do_discard},
    {"cancel", do_cancel},
    {"progress", do_progress},
    {"progress_and_hang", do_progress_and_hang},
    {"long_error", do_long_error},
    {"padded", do_padded},
    {"progress_of_nothing", do_progress_of_nothing},
    {"garbage", do_garbage},
    {"binary", do_binary},
    {"empty_line", do_empty_line},
    {"array", do_array},
    {"unknown_type", do_unknown_type},
    {"no_id", do_no_id},
    {"two_objects", do_two_objects},
    {"wrong_id", do_wrong_id},
    {"job_back", do_job_back},
    {"stop_back", do_stop_back},
    {"hello_again", do_hello_again},
    {"answer_twice", do_answer_twice},
    {"long_line", do_long_line},
    {"steal", do_steal},
    {"half_line", do_half_line},
    {"half_line_and_hang", do_half_line_and_hang},
    {"half_line_and_kill", do_half_line_and_kill},
    {"close", do_close},
    {"exit", do_exit},
    {"exit_0", do_exit_0},
    {"segv", do_segv},
    {"kill", do_kill},
    {"ok_and_kill", do_ok_and_kill},
    {"hang", do_hang},
    {"hang_until_term", do_hang_until_term},
    {"spin", do_spin},
    {"stop_itself", do_stop_itself},
    {"ok_at_term", do_ok_at_term},
    {"obey", do_obey},
    {"late_ok", do_late_ok},
    {"late_error", do_late_error},
    {"sleep", do_sleep},
    {"flood", do_flood},
    {"long_output", do_long_output},
    {"grandchild", do_grandchild},
    {"fork_bomb", do_fork_bomb},
    {"fork_bomb_of_sessions", do_fork_bomb_of_sessions},
    {"environment", do_environment},
    {"hold", do_hold},
    {"hold_on", do_hold_on},
    {"answer_held", do_answer_held},
};

static void
run(const struct jobq__frame *job)
{
    for (size_t i = 0; i < sizeof acts / sizeof acts[0]; i++) {
        if (strlen(acts[i].kind) == job->kind.len &&
            memcmp(acts[i].kind, job->kind.at, job->kind.len) == 0) {
            acts[i].run(job);
            return;
        }
    }
    fprintf(stderr, "rude_worker: no act \"%.*s\"\n", (int)job->kind.len, job->kind.at);
    _exit(9);
}

static void
begin(void)
{
    if (strcmp(mode, "silent") == 0)
        hang();
    if (strcmp(mode, "exit") == 0)
        _exit(3);
    if (strcmp(mode, "deaf") == 0)
        signal(SIGTERM, SIG_IGN);
    if (strcmp(mode, "slow") == 0)
        wait_ms(300);
    if (strcmp(mode, "early") == 0)
        answer("ok", 1);
    if (strcmp(mode, "future") == 0)
        puts_raw("{\"t\":\"hello\",\"protocol\":2}\n");
    else if (strcmp(mode, "kinds") == 0)
        puts_raw("{\"t\":\"hello\",\"protocol\":1,\"kinds\":[\"b\",\"a\"]}\n");
    else if (strcmp(mode, "many") == 0)
        puts_raw("{\"t\":\"hello\",\"protocol\":1,\"concurrency\":3}\n");
    else
        puts_raw("{\"t\":\"hello\",\"protocol\":1}\n");
    if (strcmp(mode, "twice") == 0)
        puts_raw("{\"t\":\"hello\",\"protocol\":1}\n");
}

int
main(int argc, char **argv)
{
    static char line[1 << 20];
    const char *fd = getenv("JOBQ_FD");
    if (!fd) {
        fprintf(stderr, "rude_worker: JOBQ_FD is not set\n");
        return 2;
    }
    channel = atoi(fd);
    if (argc > 1)
        mode = argv[1];
    begin();
    ssize_t len;
    while ((len = next_line(line, sizeof line)) >= 0) {
        struct jobq__frame frame;
        jobq_error err;
        if (jobq__frame_parse(line, (size_t)len, &frame, &err) < 0) {
            fprintf(stderr, "rude_worker: %s\n", err.message);
            return 2;
        }
        if (frame.type == JOBQ__FRAME_JOB) {
            run(&frame);
            if (strcmp(mode, "leave") == 0)
                return 0;
        } else if (frame.type == JOBQ__FRAME_CANCEL) {
            cancel_held(frame.id);
        } else if (frame.type == JOBQ__FRAME_STOP && strcmp(mode, "deaf") != 0) {
            return 0;
        }
    }
    return 0;
}
