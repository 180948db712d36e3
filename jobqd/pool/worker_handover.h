/* worker_handover.h: a living worker process changes hands: from this jobqd to the
 * program that takes its place in the same process (jobqd/upgrade/upgrade.h), or, where
 * that comes to nothing, back again. The worker itself notices nothing: its socket, its
 * pipe and its parent's process id stay what they are.
 */
#ifndef JOBQD_WORKER_HANDOVER_H
#define JOBQD_WORKER_HANDOVER_H

#include "jobqd/upgrade/handover.h"
#include "jobqd/pool/worker.h"

/* Nothing is read from it, written to it or found out about it any more, its end neither.
 * No other function of worker.h but worker_take_unsent may be called before worker_thaw.
 */
void worker_freeze(struct worker *worker);
void worker_thaw(struct worker *worker);

/* Appends a frozen worker without unsent jobs: a record "worker", then one "job" for each
 * that it holds. Nothing for one without a process. */
void worker_put(const struct worker *worker, struct handover *handover);

/* Makes a worker of the record *entry, a "worker", and of the "job" records behind it;
 * *entry is the first record that is not its own, or NULL, afterwards. It is frozen. Its
 * jobs are on worker->jobs: the caller enters them wherever jobs are counted. The
 * descriptors are the worker's from now on, also on failure. JOBQ_EINVAL: a field. */
int worker_adopt(struct worker **out, struct worker_program *program,
                 struct output_rate *rate, const struct handover_reader *reader,
                 const struct handover_entry **entry, const struct worker_events *events,
                 void *owner, jobq_error *err);

#endif
