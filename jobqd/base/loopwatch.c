/* loopwatch.c: see loopwatch.h. libuv does not tell when its wait has ended, but it takes
 * the time then. */
#include "jobqd/base/clock.h"
#include "jobqd/base/loopwatch.h"

#include <stdio.h>
#include <string.h>
#include <time.h>

#include "jobqd/base/log.h"

enum {
    QUIET_MS = 10000, /* between two warnings */
    SAMPLE_MS = 20    /* how exact the processor time is */
};

struct part {
    const char *what; /* NULL: not known */
    char whom[64];
    uint64_t ns;
};

static struct {
    bool open;
    uv_prepare_t prepare;
    uv_check_t check;
    uint64_t warn_ns;
    uint64_t woke_ns; /* when the loop's last wait ended; 0: it waits */
    uint64_t from_ns; /* since when it is at `now` */
    struct part now;
    struct part longest; /* since woke_ns */
    uint64_t cpu_ns;     /* our processor time … */
    uint64_t cpu_at_ns;  /* … at that moment */
    /* What is to be told. */
    uint64_t told_ns;
    unsigned times;
    uint64_t stood_ns;
    uint64_t stood_cpu_ns;
    struct part stood_at;
    uint64_t most_ns; /* for loopwatch_take_longest_ms */
} self;

static uint64_t
processor_ns(void)
{
    struct timespec used;
    clock_gettime(CLOCK_THREAD_CPUTIME_ID, &used);
    return (uint64_t)used.tv_sec * 1000000000u + (uint64_t)used.tv_nsec;
}

static void
end_part(uint64_t now_ns)
{
    self.now.ns = now_ns - self.from_ns;
    if (self.now.ns > self.longest.ns)
        self.longest = self.now;
}

/* Nobody has said anything since the loop's wait: its time is that of the wait's end. */
static void
wake(uint64_t now_ns)
{
    uint64_t end_ns = uv_now(self.prepare.loop) * 1000000u;
    self.woke_ns = self.from_ns = end_ns < now_ns ? end_ns : now_ns;
    self.now = (struct part){0};
}

void
loop_is_at(const char *what, const char *whom)
{
    if (!self.open)
        return;
    uint64_t now_ns = clock_ns();
    if (self.woke_ns == 0)
        wake(now_ns);
    end_part(now_ns);
    self.from_ns = now_ns;
    self.now.what = what;
    self.now.whom[0] = '\0';
    if (whom)
        strncat(self.now.whom, whom, sizeof self.now.whom - 1);
}

/* ---- telling ---- */

static void
tell(uint64_t now_ns)
{
    const struct part *at = &self.stood_at;
    char times[80] = "";
    if (self.times > 1)
        snprintf(times, sizeof times,
                 " (the longest of %u stalls since the last warning)", self.times);
    log_warning("jobqd",
                "the event loop was blocked for %.1f s%s: %.1f s of it %s%s%s%s; it used "
                "%.1f s of CPU time",
                (double)self.stood_ns / 1e9, times, (double)at->ns / 1e9,
                at->what ? at->what : "elsewhere", at->whom[0] ? " (" : "", at->whom,
                at->whom[0] ? ")" : "", (double)self.stood_cpu_ns / 1e9);
    self.told_ns = now_ns;
    self.times = 0;
    self.stood_ns = 0;
}

static void
note(uint64_t stood_ns, uint64_t now_ns)
{
    if (stood_ns > self.most_ns)
        self.most_ns = stood_ns;
    if (stood_ns >= self.warn_ns) {
        self.times++;
        if (stood_ns > self.stood_ns) {
            uint64_t cpu_ns = processor_ns() - self.cpu_ns;
            self.stood_ns = stood_ns;
            self.stood_cpu_ns = cpu_ns < stood_ns ? cpu_ns : stood_ns;
            self.stood_at = self.longest;
        }
    }
    if (self.times > 0 &&
        (self.told_ns == 0 || now_ns - self.told_ns >= (uint64_t)QUIET_MS * 1000000u))
        tell(now_ns);
}

/* ---- around the loop ---- */

/* Its events were seen to. What nobody spoke of is not seen here. */
static void
on_check(uv_check_t *check)
{
    (void)check;
    loop_is_at(NULL, NULL);
}

/* It is about to wait. */
static void
on_prepare(uv_prepare_t *prepare)
{
    (void)prepare;
    uint64_t now_ns = clock_ns();
    if (self.woke_ns != 0) {
        end_part(now_ns);
        note(now_ns - self.woke_ns, now_ns);
    }
    self.woke_ns = 0;
    self.longest = (struct part){0};
    if (now_ns - self.cpu_at_ns >= (uint64_t)SAMPLE_MS * 1000000u) {
        self.cpu_ns = processor_ns();
        self.cpu_at_ns = now_ns;
    }
}

void
loopwatch_open(uv_loop_t *loop, int64_t warn_ms)
{
    memset(&self, 0, sizeof self);
    self.open = true;
    self.warn_ns = (uint64_t)warn_ms * 1000000u;
    uv_prepare_init(loop, &self.prepare); /* cannot fail, nor what follows */
    uv_check_init(loop, &self.check);
    uv_prepare_start(&self.prepare, on_prepare);
    uv_check_start(&self.check, on_check);
    uv_unref((uv_handle_t *)&self.prepare);
    uv_unref((uv_handle_t *)&self.check);
}

void
loopwatch_close(void)
{
    if (!self.open)
        return;
    self.open = false;
    uv_close((uv_handle_t *)&self.prepare, NULL);
    uv_close((uv_handle_t *)&self.check, NULL);
}

int64_t
loopwatch_take_longest_ms(void)
{
    uint64_t ns = self.most_ns;
    self.most_ns = 0;
    return (int64_t)(ns / 1000000u);
}
