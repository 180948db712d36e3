/* clock.c: see clock.h. */
#include "jobqd/base/clock.h"

#include <assert.h>
#include <stdbool.h>
#include <time.h>

static bool is_held;
static uint64_t held_ns;

static uint64_t
read_ns(clockid_t clock)
{
    struct timespec now;
    int rc = clock_gettime(clock, &now);
    assert(rc == 0);
    (void)rc;
    return (uint64_t)now.tv_sec * UINT64_C(1000000000) + (uint64_t)now.tv_nsec;
}

uint64_t
clock_ns(void)
{
    return is_held ? held_ns : read_ns(CLOCK_MONOTONIC);
}

int64_t
clock_boottime_ns(void)
{
    return (int64_t)read_ns(CLOCK_BOOTTIME);
}

void
clock_hold(uint64_t ns)
{
    is_held = true;
    held_ns = ns;
}

void
clock_let_go(void)
{
    is_held = false;
}
