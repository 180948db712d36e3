/* logwriter.c: see logwriter.h. A ring of records; head is moved by whoever logs, tail by
 * the thread, and both only grow. */
#include "jobqd/base/logwriter.h"

#include <errno.h>
#include <limits.h>
#include <poll.h>
#include <pthread.h>
#include <semaphore.h>
#include <signal.h>
#include <stdatomic.h>
#include <string.h>
#include <sys/prctl.h>
#include <time.h>
#include <unistd.h>

enum {
    STACK_BYTES = 256 * 1024,
    RECORD_MAX = 128 * 1024, /* of a line; a longer one is cut */
    AGAIN_MS = 1000,         /* after a write that failed */
    /* After a loss, lines are taken again when so much is free: a slow reader is not to
     * be told of one loss after the other. */
    FREE_AGAIN = LOGWRITER_BYTES / 4,
    LOOK_MS = 1 /* how often a flush looks */
};

struct record {
    int64_t at_ms;
    size_t len;
};

static struct {
    pid_t pid; /* whose the thread is; 0: it does not run */
    logwriter_tell tell;
    sem_t news; /* the ring was empty, and is no more */
    _Atomic uint64_t head;
    _Atomic uint64_t tail;
    _Atomic uint64_t dropped; /* lines, of which nobody was told … */
    _Atomic int64_t since_ms; /* … since then */
    _Atomic bool telling;     /* the thread tells of some */
    _Atomic int failing;      /* errno of the last write; 0: it went well, or lasts */
    _Atomic int why;          /* likewise, when the last line was dropped */
    char ring[LOGWRITER_BYTES];
} self;

static int64_t
clock_ms(clockid_t clock)
{
    struct timespec now;
    clock_gettime(clock, &now);
    return (int64_t)now.tv_sec * 1000 + now.tv_nsec / 1000000;
}

/* ---- the ring ---- */

static void
copy_in(uint64_t at, const void *bytes, size_t len)
{
    size_t from = (size_t)(at % LOGWRITER_BYTES);
    size_t first = LOGWRITER_BYTES - from < len ? LOGWRITER_BYTES - from : len;
    memcpy(self.ring + from, bytes, first);
    memcpy(self.ring, (const char *)bytes + first, len - first);
}

static void
copy_out(uint64_t at, void *bytes, size_t len)
{
    size_t from = (size_t)(at % LOGWRITER_BYTES);
    size_t first = LOGWRITER_BYTES - from < len ? LOGWRITER_BYTES - from : len;
    memcpy(bytes, self.ring + from, first);
    memcpy((char *)bytes + first, self.ring, len - first);
}

/* Either side may take it over to tell of it; it does so once. */
static struct logwriter_loss
take_loss(void)
{
    int64_t since_ms = atomic_load(&self.since_ms);
    int why = atomic_load(&self.why);
    return (struct logwriter_loss){
        .lines = atomic_exchange(&self.dropped, 0), .since_ms = since_ms, .why = why};
}

/* ---- the thread ---- */

/* Whoever shares our stderr may have made it non-blocking. */
static void
await_room(void)
{
    struct pollfd err = {.fd = STDERR_FILENO, .events = POLLOUT};
    poll(&err, 1, AGAIN_MS);
}

static void
write_all(const char *data, size_t len)
{
    while (len > 0) {
        ssize_t n = write(STDERR_FILENO, data, len);
        if (n > 0) {
            atomic_store(&self.failing, 0);
            data += n;
            len -= (size_t)n;
        } else if (n < 0 && errno == EAGAIN) {
            await_room();
        } else if (n == 0 || errno != EINTR) {
            atomic_store(&self.failing, n == 0 ? EIO : errno);
            poll(NULL, 0, AGAIN_MS);
        }
    }
}

static void
write_record(char *text)
{
    struct record record;
    uint64_t tail = atomic_load(&self.tail);
    copy_out(tail, &record, sizeof record);
    copy_out(tail + sizeof record, text, record.len);
    write_all(text, record.len);
    atomic_store(&self.tail, tail + sizeof record + record.len);
}

/* Nothing has been put into the ring since, or it would have been told of there. */
static void
tell_of_loss(void)
{
    struct jobq__buf line = {0};
    if (atomic_load(&self.dropped) == 0)
        return;
    atomic_store(&self.telling, true);
    struct logwriter_loss loss = take_loss();
    if (loss.lines > 0)
        self.tell(&line, &loss);
    if (!line.failed)
        write_all(line.data, line.len);
    jobq__buf_clear(&line);
    atomic_store(&self.telling, false);
}

static void *
run(void *unused)
{
    static char text[RECORD_MAX];
    prctl(PR_SET_NAME, "jobqd-log");
    for (;;) {
        while (atomic_load(&self.tail) != atomic_load(&self.head))
            write_record(text);
        tell_of_loss();
        while (sem_wait(&self.news) < 0 && errno == EINTR)
            continue;
    }
    return unused;
}

/* ---- whoever logs ---- */

static size_t
room(void)
{
    return LOGWRITER_BYTES - (size_t)(atomic_load(&self.head) - atomic_load(&self.tail));
}

static bool
put(const char *line, size_t len)
{
    struct record record = {.at_ms = clock_ms(CLOCK_REALTIME),
                            .len = len < RECORD_MAX ? len : RECORD_MAX};
    uint64_t head = atomic_load(&self.head);
    if (sizeof record + record.len > room())
        return false;
    copy_in(head, &record, sizeof record);
    copy_in(head + sizeof record, line, record.len);
    atomic_store(&self.head, head + sizeof record + record.len);
    /* The thread moves tail before it looks at head, we the other way round: one of us
     * sees the other. */
    if (atomic_load(&self.tail) == head)
        sem_post(&self.news);
    return true;
}

static void
drop(void)
{
    if (atomic_load(&self.dropped) == 0)
        atomic_store(&self.since_ms, clock_ms(CLOCK_REALTIME));
    atomic_store(&self.why, atomic_load(&self.failing));
    atomic_fetch_add(&self.dropped, 1);
}

/* What was dropped is told of in its place: before the first line after it. Returns
 * false, with nothing changed, when there is no room for that either. */
static bool
put_loss(void)
{
    struct jobq__buf line = {0};
    if (room() < FREE_AGAIN)
        return false;
    struct logwriter_loss loss = take_loss();
    if (loss.lines == 0)
        return true;
    self.tell(&line, &loss);
    bool done = !line.failed && put(line.data, line.len);
    jobq__buf_clear(&line);
    if (!done)
        atomic_fetch_add(&self.dropped, loss.lines);
    return done;
}

void
logwriter_put(const char *line, size_t len)
{
    bool told = atomic_load(&self.dropped) == 0 || put_loss();
    if (!told || !put(line, len))
        drop();
}

/* ---- its beginning and end ---- */

bool
logwriter_runs(void)
{
    return self.pid != 0 && self.pid == getpid();
}

/* Signals are the main thread's. */
static int
start_thread(void)
{
    pthread_attr_t attributes;
    pthread_t thread;
    sigset_t all, before;
    int rc = pthread_attr_init(&attributes);
    if (rc != 0)
        return rc;
    sigfillset(&all);
    pthread_attr_setstacksize(&attributes, STACK_BYTES);
    pthread_attr_setdetachstate(&attributes, PTHREAD_CREATE_DETACHED);
    pthread_sigmask(SIG_SETMASK, &all, &before);
    rc = pthread_create(&thread, &attributes, run, NULL);
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    pthread_attr_destroy(&attributes);
    return rc;
}

int
logwriter_start(logwriter_tell tell, const struct logwriter_loss *loss)
{
    if (logwriter_runs())
        return 0;
    self.tell = tell;
    atomic_store(&self.since_ms, loss->since_ms);
    atomic_store(&self.why, loss->why);
    atomic_store(&self.dropped, loss->lines);
    sem_init(&self.news, 0, 0);
    int rc = start_thread();
    if (rc == 0)
        self.pid = getpid();
    return rc;
}

static bool
is_done(void)
{
    return atomic_load(&self.tail) == atomic_load(&self.head) &&
           atomic_load(&self.dropped) == 0 && !atomic_load(&self.telling);
}

void
logwriter_flush(int64_t most_ms)
{
    int64_t until_ms = clock_ms(CLOCK_MONOTONIC) + most_ms;
    while (logwriter_runs() && !is_done() && atomic_load(&self.failing) == 0 &&
           clock_ms(CLOCK_MONOTONIC) < until_ms)
        poll(NULL, 0, LOOK_MS);
}

struct logwriter_loss
logwriter_unwritten(void)
{
    uint64_t at = atomic_load(&self.tail);
    struct logwriter_loss loss = {.since_ms = atomic_load(&self.since_ms),
                                  .why = atomic_load(&self.failing)};
    struct record record;
    for (uint64_t head = atomic_load(&self.head); logwriter_runs() && at < head;
         at += sizeof record + record.len) {
        copy_out(at, &record, sizeof record);
        if (loss.lines++ == 0)
            loss.since_ms = record.at_ms;
    }
    loss.lines += atomic_load(&self.dropped);
    return loss;
}
