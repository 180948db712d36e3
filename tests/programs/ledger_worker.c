/* ledger_worker: writes down each run of a job, for harness/ledger.py to check.
 *
 *     ledger_worker LEDGER MIN_US MAX_US
 *
 * Each job takes a random MIN_US to MAX_US microseconds, whatever its kind. The ledger
 * gets one line, in one write to the end of the file, so that lines of several processes
 * never mix and a line that was written outlives its writer:
 *
 *     W PID PARENT TIME                  a worker has started
 *     S PID JOB ATTEMPT TIME             a run begins
 *     E PID JOB ATTEMPT TIME             it ends; the answer comes after this
 *     O PID JOB ATTEMPT TIME HOLDER MS   another process was running that job as well
 *
 * Times are CLOCK_BOOTTIME in nanoseconds, one clock for all processes of the machine.
 * That no job runs twice at the same time is not left to the times alone, since a killed
 * process cannot write when it ended: during a run the process holds a lock on the byte
 * of the job's number in LEDGER.locks, which the kernel takes back at its death.
 */
#include <jobq/worker.h>

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

/* How long a run waits for another process to let go of the same job. */
enum { LOCK_WAIT_MS = 10000 };

struct ledger {
    int fd;
    int locks;
    long min_us;
    long max_us;
    uint32_t random;
};

static int64_t
boottime_ns(void)
{
    struct timespec now;
    clock_gettime(CLOCK_BOOTTIME, &now);
    return (int64_t)now.tv_sec * 1000000000 + now.tv_nsec;
}

static void
nap_us(long us)
{
    struct timespec left = {us / 1000000, us % 1000000 * 1000};
    while (us > 0 && nanosleep(&left, &left) != 0 && errno == EINTR)
        continue;
}

/* A ledger with holes would prove nothing: without it, no job is done. */
static void
record(const struct ledger *ledger, const char *line, int len)
{
    if (write(ledger->fd, line, (size_t)len) == len)
        return;
    fprintf(stderr, "ledger_worker: cannot write the ledger: %s\n", strerror(errno));
    exit(1);
}

static void
record_run(const struct ledger *ledger, char what, const jobq_work *work)
{
    char line[160];
    int len = snprintf(line, sizeof line, "%c %d %" PRId64 " %d %" PRId64 "\n", what,
                       (int)getpid(), jobq_work_id(work), jobq_work_attempt(work),
                       boottime_ns());
    record(ledger, line, len);
}

static void
lock_job(const struct ledger *ledger, const jobq_work *work)
{
    const struct flock wanted = {.l_type = F_WRLCK,
                                 .l_whence = SEEK_SET,
                                 .l_start = jobq_work_id(work),
                                 .l_len = 1};
    struct flock found = wanted;
    int64_t from_ns = boottime_ns();
    pid_t holder = 0;
    while (fcntl(ledger->locks, F_SETLK, &wanted) != 0) {
        found = wanted;
        if (holder == 0 && fcntl(ledger->locks, F_GETLK, &found) == 0 &&
            found.l_type != F_UNLCK)
            holder = found.l_pid;
        if ((errno != EACCES && errno != EAGAIN && errno != EINTR) ||
            boottime_ns() - from_ns > LOCK_WAIT_MS * INT64_C(1000000))
            break;
        nap_us(100);
    }
    if (holder == 0)
        return;
    char line[200];
    int len =
        snprintf(line, sizeof line, "O %d %" PRId64 " %d %" PRId64 " %d %" PRId64 "\n",
                 (int)getpid(), jobq_work_id(work), jobq_work_attempt(work), from_ns,
                 (int)holder, (boottime_ns() - from_ns) / 1000000);
    record(ledger, line, len);
}

static void
unlock_job(const struct ledger *ledger, const jobq_work *work)
{
    struct flock released = {.l_type = F_UNLCK,
                             .l_whence = SEEK_SET,
                             .l_start = jobq_work_id(work),
                             .l_len = 1};
    fcntl(ledger->locks, F_SETLK, &released);
}

/* xorshift */
static long
next_duration_us(struct ledger *ledger)
{
    ledger->random ^= ledger->random << 13;
    ledger->random ^= ledger->random >> 17;
    ledger->random ^= ledger->random << 5;
    long span = ledger->max_us - ledger->min_us + 1;
    return ledger->min_us + (long)(ledger->random % (uint32_t)span);
}

static int
run(jobq_work *work, void *data)
{
    struct ledger *ledger = data;
    lock_job(ledger, work);
    record_run(ledger, 'S', work);
    nap_us(next_duration_us(ledger));
    record_run(ledger, 'E', work);
    unlock_job(ledger, work);
    return 0;
}

static int
open_ledger(struct ledger *ledger, const char *path)
{
    char locks[4096];
    int flags = O_WRONLY | O_CREAT | O_CLOEXEC;
    int len = snprintf(locks, sizeof locks, "%s.locks", path);
    if (len < 0 || (size_t)len >= sizeof locks)
        return -1;
    ledger->fd = open(path, flags | O_APPEND, 0666);
    ledger->locks = open(locks, flags, 0666);
    return ledger->fd < 0 || ledger->locks < 0 ? -1 : 0;
}

static void
record_fork(const struct ledger *ledger)
{
    char line[120];
    int len = snprintf(line, sizeof line, "W %d %d %" PRId64 "\n", (int)getpid(),
                       (int)getppid(), boottime_ns());
    record(ledger, line, len);
}

int
main(int argc, char **argv)
{
    struct ledger ledger = {.fd = -1, .locks = -1};
    if (argc == 4) {
        ledger.min_us = strtol(argv[2], NULL, 10);
        ledger.max_us = strtol(argv[3], NULL, 10);
    }
    if (argc != 4 || ledger.min_us < 0 || ledger.max_us < ledger.min_us) {
        fprintf(stderr, "usage: ledger_worker LEDGER MIN_US MAX_US\n");
        return 64;
    }
    if (open_ledger(&ledger, argv[1]) != 0) {
        fprintf(stderr, "ledger_worker: %s: %s\n", argv[1], strerror(errno));
        return 1;
    }
    ledger.random = ((uint32_t)getpid() * 2654435761u) | 1u;
    record_fork(&ledger);

    const jobq_worker_kind kinds[] = {{NULL, run, &ledger}};
    jobq_worker_options options = JOBQ_WORKER_OPTIONS_INIT;
    jobq_error err;
    options.kinds = kinds;
    options.n_kinds = 1;
    if (jobq_worker_run(&options, &err) != 0) {
        fprintf(stderr, "ledger_worker: %s\n", err.message);
        return 1;
    }
    return 0;
}
