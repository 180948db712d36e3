/* bench_shared.c: see bench_shared.h. */
#include "jobqd/bench/bench_shared.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>

#include "libjobq/error.h"

int64_t
bench_now_ns(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (int64_t)now.tv_sec * 1000000000 + now.tv_nsec;
}

static int
map(const char *path, int flags, struct bench_shared **out, jobq_error *err)
{
    void *memory = MAP_FAILED;
    int fd = open(path, flags | O_RDWR | O_CLOEXEC, 0600);
    if (fd >= 0 && (!(flags & O_CREAT) || ftruncate(fd, sizeof **out) == 0))
        memory = mmap(NULL, sizeof **out, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    int number = errno;
    if (fd >= 0)
        close(fd);
    if (memory == MAP_FAILED)
        return jobq__error(err, JOBQ_EIO, "cannot share memory through %s: %s", path,
                           strerror(number));
    *out = memory;
    return 0;
}

int
bench_shared_create(const char *path, struct bench_shared **out, jobq_error *err)
{
    struct bench_shared *shared = NULL;
    int rc = map(path, O_CREAT | O_EXCL, &shared, err);
    if (rc != 0)
        return rc;
    if (sem_init(&shared->begun, 1, 0) != 0) {
        rc = jobq__error(err, JOBQ_EIO, "cannot make a semaphore: %s", strerror(errno));
        bench_shared_unmap(shared);
        return rc;
    }
    *out = shared;
    return 0;
}

int
bench_shared_join(struct bench_shared **out, jobq_error *err)
{
    const char *path = getenv(BENCH_SHARED_VARIABLE);
    if (!path)
        return jobq__error(err, JOBQ_EINVAL,
                           "%s is not set: only bench's own workers run this",
                           BENCH_SHARED_VARIABLE);
    return map(path, 0, out, err);
}

void
bench_shared_unmap(struct bench_shared *shared)
{
    if (shared != NULL)
        munmap(shared, sizeof *shared);
}

void
bench_shared_reset(struct bench_shared *shared, bool stamp)
{
    atomic_store(&shared->started, 0);
    atomic_store(&shared->first_ns, 0);
    atomic_store(&shared->stamp, stamp);
    atomic_store(&shared->latest_ns, 0);
    atomic_store(&shared->n_workers, 0);
    while (sem_trywait(&shared->begun) == 0)
        ;
}
