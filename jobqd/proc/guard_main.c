/* guard_main.c: see guard_main.h. */
#include "jobqd/proc/guard_main.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/timerfd.h>
#include <sysexits.h>
#include <unistd.h>

#include "jobqd/base/clock.h"
#include "jobqd/base/log.h"
#include "jobqd/proc/process_tree.h"
#include "jobqd/proc/guard_table.h"
#include "jobqd/base/self.h"
#include "libjobq/duration.h"

/* How often in a row it was started again, for the next one to know. */
#define RESPAWNS "JOBQ_RESPAWNS"

enum {
    URGENT = -10, /* nice: when it has something to do, it cannot wait */
    RESPAWN_FIRST_MS = 250,
    RESPAWN_DOUBLINGS = 7, /* 16 s at most between two starts */
    LIVED_MS = 60000       /* one that lived for so long counts as well */
};

struct guard {
    struct guard_table *table;
    int timer;
    int nice;     /* what it was, for a jobqd that we become */
    char **again; /* what to execute when jobqd was killed; NULL: nothing */
};

/* ---- saying so ---- */

/* Only when there is something to say: the log's thread is started then. Whoever reads
 * our stderr may have stopped reading, and we must not wait. */
static bool
can_speak(void)
{
    return log_start() == 0;
}

/* ---- killing ---- */

/* Numbers of processes end below this, whatever the kernel; see pid_max in proc(5). */
#define PID_LIMIT 4194304

static int
pid_end(void)
{
    char text[16];
    int end = 0;
    int fd = open("/proc/sys/kernel/pid_max", O_RDONLY | O_CLOEXEC);
    if (fd >= 0) {
        ssize_t n = read(fd, text, sizeof text - 1);
        text[n > 0 ? n : 0] = '\0';
        end = atoi(text);
        close(fd);
    }
    return end > 1 && end < PID_LIMIT ? end : PID_LIMIT;
}

/* A member of the group; 0: there is none. By asking for each number, since /proc may
 * hide a process (hidepid) or be missing, and getpgid is never refused. Those whom the
 * leader has started have the next numbers, so a group that is there is found at once, as
 * a rule; at worst the numbers have begun anew, and it takes half a second. */
static pid_t
member_of(pid_t group)
{
    int end = pid_end();
    for (pid_t pid = group + 1; pid < end; pid++)
        if (getpgid(pid) == group)
            return pid;
    for (pid_t pid = 1; pid < group; pid++)
        if (getpgid(pid) == group)
            return pid;
    return 0;
}

/* The leader is gone: is what is left of the group with this number its own? The number may
 * have gone to a stranger, who is in another session; a worker of another user leads
 * one, and the kernel does not give a number away while it is a session's. */
static bool
is_process_tree(const struct guard *guard, pid_t group)
{
    if (kill(-group, 0) != 0)
        return false;
    pid_t member = member_of(group);
    pid_t session = member > 0 ? getsid(member) : -1;
    return session == guard->table->session || session == group;
}

/* Returns whether there was something to kill. */
static bool
kill_group(const struct guard *guard, const struct guard_slot *slot)
{
    pid_t pid = (pid_t)slot->pid;
    struct guard_process leader;
    if (guard_read_process(pid, &leader)) {
        if (slot->start != -1 && leader.start != slot->start)
            return false; /* another process has this number now */
        return process_tree_kill(pid);
    }
    /* It is hidden from us (hidepid, and it keeps others from looking into it), or there
     * is no /proc. Then the number is all there is to go by: jobqd has not reaped it, or
     * was there to hold it a moment ago. */
    if (kill(pid, 0) == 0 || !guard_read_process(getpid(), &leader)) {
        bool killed = kill(-pid, SIGKILL) == 0;
        return kill(pid, SIGKILL) == 0 || killed;
    }
    return is_process_tree(guard, pid) && kill(-pid, SIGKILL) == 0;
}

static bool
is_over(const struct guard *guard)
{
    int64_t deadline_ns = atomic_load(&guard->table->deadline_ns);
    return deadline_ns != 0 && clock_boottime_ns() >= deadline_ns;
}

/* Kills what is in the table. gone: jobqd is; otherwise only as long as the deadline has
 * passed. A slot that a guard before us was striking when it was killed is struck again.
 * Returns how many groups there were to kill. */
static unsigned
strike(struct guard *guard, bool gone)
{
    unsigned struck = 0;
    uint32_t high = atomic_load(&guard->table->high);
    for (uint32_t i = 0; i < high && (gone || is_over(guard)); i++) {
        struct guard_slot *slot = &guard->table->slots[i];
        uint32_t state = GUARD_HELD;
        if (!atomic_compare_exchange_strong(&slot->state, &state, GUARD_STRIKING) &&
            state != GUARD_STRIKING)
            continue;
        struck += kill_group(guard, slot);
        state = GUARD_STRIKING;
        atomic_compare_exchange_strong(&slot->state, &state, GUARD_STRUCK);
    }
    return struck;
}

static void
strike_for_lease(struct guard *guard)
{
    struct guard_table *table = guard->table;
    unsigned struck = strike(guard, false);
    if (struck == 0)
        return;
    int64_t silent_ms = (clock_boottime_ns() - atomic_load(&table->jobqd_ns)) / 1000000;
    atomic_fetch_add(&table->strikes, struck);
    if (can_speak())
        log_error("guard",
                  "process groups killed: %u; jobqd (pid %d) did not renew its lease in "
                  "time and has not responded for %s",
                  struck, (int)table->jobqd, jobq__duration_show(silent_ms).text);
}

/* ---- jobqd is gone ---- */

/* How long to wait before jobqd is started again: one that is killed at once each time
 * must not spin. Counts in the environment, which is all that outlives us. */
static int
respawn_pause_ms(const struct guard *guard)
{
    char count[16];
    const char *before = getenv(RESPAWNS);
    int n = before ? atoi(before) : 0;
    if (n < 0 ||
        clock_boottime_ns() - guard->table->begun_ns > LIVED_MS * INT64_C(1000000))
        n = 0;
    snprintf(count, sizeof count, "%d", n < RESPAWN_DOUBLINGS ? n + 1 : n);
    setenv(RESPAWNS, count, 1);
    return n == 0 ? 0 : RESPAWN_FIRST_MS << (n - 1);
}

/* What jobqd understands otherwise than by ending. */
static bool
is_harmless(int number)
{
    static const int harmless[] = {SIGHUP,  SIGUSR1, SIGUSR2, SIGTSTP,
                                   SIGTTIN, SIGTTOU, SIGPIPE};
    for (size_t i = 0; i < sizeof harmless / sizeof *harmless; i++)
        if (harmless[i] == number)
            return true;
    return false;
}

/* What is pending for us is dropped: it was meant for the one that is gone. From here on
 * we can be told to stop. What jobqd takes for something else stays ignored until it has
 * its handlers, beyond the exec. */
static void
restore_signals(void)
{
    sigset_t none;
    for (int number = 1; number < NSIG; number++)
        signal(number, SIG_IGN);
    sigemptyset(&none);
    sigprocmask(SIG_SETMASK, &none, NULL);
    for (int number = 1; number < NSIG; number++)
        if (!is_harmless(number))
            signal(number, SIG_DFL);
}

static int
become_jobqd(struct guard *guard)
{
    char path[4096];
    int pause_ms = respawn_pause_ms(guard);
    setpriority(PRIO_PROCESS, 0, guard->nice);
    fcntl(GUARD_TABLE_FD, F_SETFD, FD_CLOEXEC);
    fcntl(GUARD_JOBQD_FD, F_SETFD, FD_CLOEXEC);
    restore_signals();
    if (pause_ms > 0)
        poll(NULL, 0, pause_ms);
    /* By its path where it is still there, so that it has its name in ps. */
    ssize_t n = readlink("/proc/self/exe", path, sizeof path - 1);
    path[n > 0 ? n : 0] = '\0';
    log_leave();
    execv(path, guard->again);
    execv("/proc/self/exe", guard->again);
    execv(self_path(), guard->again); /* there is no /proc */
    log_error("guard", "could not restart jobqd: %s", strerror(errno));
    log_flush();
    return EX_OSERR;
}

static int
outlive(struct guard *guard)
{
    int pid = (int)guard->table->jobqd;
    bool ended = atomic_load(&guard->table->ending) != 0;
    unsigned struck = strike(guard, true);
    bool again = !ended && guard->again;
    if (!ended && can_speak())
        log_error("guard",
                  "jobqd (pid %d) died; process groups left behind and killed: %u%s", pid,
                  struck, again ? "; restarting jobqd" : "");
    if (again)
        return become_jobqd(guard);
    log_flush();
    return EX_OK;
}

/* ---- its life ---- */

/* For the deadline, if it comes before the next look at the table. */
static void
arm(const struct guard *guard)
{
    int64_t now_ns = clock_boottime_ns();
    int64_t deadline_ns = atomic_load(&guard->table->deadline_ns);
    int64_t next_ns = now_ns + guard->table->tick_ms * INT64_C(1000000);
    if (deadline_ns > now_ns && deadline_ns < next_ns)
        next_ns = deadline_ns;
    const struct itimerspec at = {
        .it_value = {.tv_sec = next_ns / 1000000000, .tv_nsec = next_ns % 1000000000}};
    timerfd_settime(guard->timer, TFD_TIMER_ABSTIME, &at, NULL);
}

static int
watch(struct guard *guard)
{
    struct pollfd events[] = {{.fd = GUARD_JOBQD_FD, .events = POLLIN},
                              {.fd = guard->timer, .events = POLLIN}};
    for (;;) {
        uint64_t expirations;
        atomic_fetch_add(&guard->table->guard_beats, 1);
        arm(guard);
        if (poll(events, 2, -1) < 0 && errno != EINTR)
            return EX_OSERR; /* jobqd sees it and starts another */
        if (events[0].revents)
            return outlive(guard);
        if (events[1].revents && read(guard->timer, &expirations, sizeof expirations) < 0)
            continue;
        if (is_over(guard))
            strike_for_lease(guard);
    }
}

/* Nothing that is meant for jobqd, its terminal or its group is for us. */
static void
block_signals(void)
{
    sigset_t all;
    sigfillset(&all);
    sigprocmask(SIG_SETMASK, &all, NULL);
}

int
guard_main(int argc, char **argv)
{
    struct guard guard = {0};
    if (guard_table_adopt(GUARD_TABLE_FD) != 0 || fcntl(GUARD_JOBQD_FD, F_GETFD) < 0) {
        fprintf(stderr, "jobqd guard: only jobqd itself starts this command\n");
        return EX_USAGE;
    }
    block_signals();
    guard.table = guard_table();
    log_setup(&(struct log_options){.level = (enum log_level)guard.table->log_level,
                                    .format = guard.table->log_format});
    if (argc > 3 && strcmp(argv[2], "--") == 0)
        guard.again = argv + 3;
    prctl(PR_SET_NAME, "jobqd-guard");
    guard.nice = getpriority(PRIO_PROCESS, 0);
    setpriority(PRIO_PROCESS, 0, URGENT); /* if we may */
    guard.timer = timerfd_create(CLOCK_BOOTTIME, TFD_CLOEXEC | TFD_NONBLOCK);
    if (guard.timer < 0) {
        log_error("guard", "cannot create a timer: %s", strerror(errno));
        return EX_OSERR;
    }
    return watch(&guard);
}
