/* async_jobs.c: jobs that are answered after their handler has returned: each is a copy, with
 * its line, on a list of the worker's until it is answered. */
#include <stdlib.h>
#include <string.h>

#include "libjobq/error.h"
#include "libjobq/worker.h"

jobq_work *
jobq__worker_find_kept(const struct jobq__worker *worker, int64_t id)
{
    for (jobq_work *work = worker->kept; work; work = work->next)
        if (work->frame.id == id)
            return work;
    return NULL;
}

/* A span of a line, as it lies in a copy of that. One that lies elsewhere stays. */
static void
move(struct jobq__span *span, const jobq_work *from, const jobq_work *to)
{
    uintptr_t offset = (uintptr_t)span->at - (uintptr_t)from->line;
    if (span->at && offset < from->line_len)
        span->at = to->line + offset;
}

int
jobq_work_keep(jobq_work *work, jobq_work **kept, jobq_error *err)
{
    struct jobq__worker *worker = work->worker;
    *kept = NULL;
    if (!worker->keeps)
        return jobq__error(err, JOBQ_ESTATE,
                           "jobq_work_keep: jobs can be kept only in a worker from "
                           "jobq_worker_open; this one runs one job at a time");
    if (work->answered || work->was_kept || work->is_kept)
        return jobq__error(err, JOBQ_ESTATE, "jobq_work_keep: job %lld was already %s",
                           (long long)work->frame.id,
                           work->answered ? "answered" : "kept");
    jobq_work *copy = malloc(sizeof *copy + work->line_len + 1);
    if (!copy)
        return jobq__error(err, JOBQ_ENOMEM, "jobq_work_keep: out of memory");
    *copy = *work;
    copy->line = memcpy(copy + 1, work->line, work->line_len + 1);
    move(&copy->frame.queue, work, copy);
    move(&copy->frame.kind, work, copy);
    move(&copy->frame.args, work, copy);
    move(&copy->frame.meta, work, copy);
    copy->is_kept = true;
    copy->next = worker->kept;
    worker->kept = copy;
    worker->n_kept++;
    work->was_kept = true;
    *kept = copy;
    return JOBQ_OK;
}

static void
take_off(jobq_work *work)
{
    struct jobq__worker *worker = work->worker;
    jobq_work **at = &worker->kept;
    while (*at != work)
        at = &(*at)->next;
    *at = work->next;
    worker->n_kept--;
}

int
jobq__work_release(jobq_work *work, jobq_error *err)
{
    struct jobq__worker *worker = work->worker;
    take_off(work);
    jobq__worker_forget_cancelled(worker, work->frame.id);
    free(work);
    jobq__worker_wake(); /* there is room for one that waits, or it was the last */
    return jobq__worker_flush(worker, err);
}
