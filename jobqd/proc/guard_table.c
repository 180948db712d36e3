/* guard_table.c: see guard_table.h. What a child calls between fork and exec is
 * async-signal-safe. */
#include "jobqd/proc/guard_table.h"

#include "jobqd/base/clock.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

/* How long the guard may take for one group before it is ended itself: a little longer
 * than process_tree_kill may. */
enum { STRIKE_LOOKS = 2000, STRIKE_LOOK_NS = 200000 };

/* A process has one guard, so there is one. */
static struct guard_table *table;
static int table_fd = -1;
static uint32_t first_free; /* no slot below it is free */

void (*guard_table_on_stuck)(void);

/* ---- the table ---- */

static size_t
size_for(uint32_t capacity)
{
    return sizeof(struct guard_table) + capacity * sizeof(struct guard_slot);
}

static struct guard_table *
map(int fd, size_t size)
{
    void *at = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    return at == MAP_FAILED ? NULL : at;
}

int
guard_table_open(uint32_t capacity)
{
    /* Only the pages that were written to take memory. */
    int fd = memfd_create("jobq-guard", MFD_CLOEXEC);
    if (fd < 0)
        return -1;
    struct guard_table *made = NULL;
    if (ftruncate(fd, (off_t)size_for(capacity)) == 0)
        made = map(fd, size_for(capacity));
    if (!made) {
        int why = errno;
        close(fd);
        errno = why;
        return -1;
    }
    made->magic = GUARD_MAGIC;
    made->version = GUARD_VERSION;
    made->capacity = capacity;
    made->jobqd = (int32_t)getpid();
    made->session = (int32_t)getsid(0);
    made->begun_ns = clock_boottime_ns();
    table = made;
    table_fd = fd;
    first_free = 0;
    return fd;
}

int
guard_table_adopt(int fd)
{
    struct stat about;
    if (fstat(fd, &about) != 0 || (size_t)about.st_size < sizeof *table)
        return -1;
    struct guard_table *found = map(fd, (size_t)about.st_size);
    if (!found)
        return -1;
    if (found->magic != GUARD_MAGIC || found->version != GUARD_VERSION ||
        size_for(found->capacity) != (size_t)about.st_size) {
        munmap(found, (size_t)about.st_size);
        return -1;
    }
    table = found;
    table_fd = fd;
    first_free = 0;
    return 0;
}

void
guard_table_close(void)
{
    if (!table)
        return;
    munmap(table, size_for(table->capacity));
    close(table_fd);
    table = NULL;
    table_fd = -1;
}

struct guard_table *
guard_table(void)
{
    return table;
}

void
guard_set_deadline(int64_t deadline_ns)
{
    if (table)
        atomic_store(&table->deadline_ns, deadline_ns);
}

/* ---- slots ---- */

int
guard_take(void)
{
    if (!table)
        return GUARD_NOWHERE;
    for (uint32_t i = first_free; i < table->capacity; i++) {
        if (atomic_load(&table->slots[i].state) != GUARD_FREE)
            continue;
        table->slots[i].pid = 0;
        atomic_store(&table->slots[i].state, GUARD_TAKEN);
        if (atomic_load(&table->high) <= i)
            atomic_store(&table->high, i + 1);
        first_free = i + 1;
        return (int)i;
    }
    return GUARD_FULL;
}

static void
hold(struct guard_slot *slot, pid_t pid)
{
    struct guard_process process;
    slot->pid = (int32_t)pid;
    slot->start = guard_read_process(pid, &process) ? process.start : -1;
    atomic_store(&slot->state, GUARD_HELD);
}

bool
guard_enter(int slot)
{
    if (!table || slot < 0)
        return true;
    hold(&table->slots[slot], getpid());
    /* We may have been forked by a jobqd that was stopped for a long time just before:
     * the guard has done its work by now, and the job is another node's. */
    int64_t deadline_ns = atomic_load(&table->deadline_ns);
    if (deadline_ns == 0 || clock_boottime_ns() < deadline_ns)
        return true;
    atomic_store(&table->slots[slot].state, GUARD_STRUCK);
    return false;
}

int
guard_add(pid_t pid)
{
    int slot = guard_take();
    if (slot >= 0)
        hold(&table->slots[slot], pid);
    return slot;
}

/* Waits until the guard is done with the slot; a guard that takes too long is stopped or
 * starved, and ended. */
static void
await_strike(const struct guard_slot *slot)
{
    const struct timespec pause = {0, STRIKE_LOOK_NS};
    for (int i = 0; i < STRIKE_LOOKS; i++) {
        if (atomic_load(&slot->state) != GUARD_STRIKING)
            return;
        nanosleep(&pause, NULL);
    }
    if (guard_table_on_stuck)
        guard_table_on_stuck();
}

bool
guard_remove(int slot)
{
    if (!table || slot < 0)
        return false;
    struct guard_slot *at = &table->slots[slot];
    uint32_t held = GUARD_HELD;
    bool struck = !atomic_compare_exchange_strong(&at->state, &held, GUARD_FREE);
    if (struck && held == GUARD_STRIKING)
        await_strike(at);
    struck = struck && held != GUARD_TAKEN;
    atomic_store(&at->state, GUARD_FREE);
    if ((uint32_t)slot < first_free)
        first_free = (uint32_t)slot;
    return struck;
}

int
guard_find(pid_t pid)
{
    uint32_t high = table ? atomic_load(&table->high) : 0;
    for (uint32_t i = 0; i < high; i++) {
        if (atomic_load(&table->slots[i].state) != GUARD_FREE &&
            table->slots[i].pid == (int32_t)pid)
            return (int)i;
    }
    return GUARD_NOWHERE;
}

/* ---- /proc ---- */

/* "/proc/PID/stat"; snprintf is not async-signal-safe. */
static void
put_path(char *path, pid_t pid)
{
    char digits[24];
    size_t n = 0;
    do
        digits[n++] = (char)('0' + pid % 10);
    while ((pid /= 10) > 0);
    path = stpcpy(path, "/proc/");
    while (n > 0)
        *path++ = digits[--n];
    stpcpy(path, "/stat");
}

static int64_t
take_number(const char **at)
{
    int64_t value = 0;
    bool negative = **at == '-';
    if (negative)
        ++*at;
    while (**at >= '0' && **at <= '9')
        value = value * 10 + (*(*at)++ - '0');
    if (**at == ' ')
        ++*at;
    return negative ? -value : value;
}

bool
guard_read_process(pid_t pid, struct guard_process *out)
{
    /* Fields of /proc/PID/stat behind the state, which is the third. */
    enum { GROUP = 5, SESSION = 6, START = 22 };
    char path[48], text[1024];
    put_path(path, pid);
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0)
        return false;
    ssize_t n = read(fd, text, sizeof text - 1);
    close(fd);
    if (n <= 0)
        return false;
    text[n] = '\0';
    /* The command's name, in parentheses, may hold anything: count from the last ')'. */
    const char *at = strrchr(text, ')');
    if (!at || at[1] == '\0' || at[2] == '\0' || at[3] == '\0')
        return false;
    out->state = at[2];
    at += 4;
    for (int field = 4; field <= START; field++) {
        int64_t value = take_number(&at);
        if (field == GROUP)
            out->group = (pid_t)value;
        else if (field == SESSION)
            out->session = (pid_t)value;
        else if (field == START)
            out->start = value;
    }
    return true;
}
