/* jobq/jobq.h: everything of libjobq. See job.h and client.h to enqueue, queue.h to steer
 * queues, worker.h to handle, error.h for errors. */
#ifndef JOBQ_JOBQ_H
#define JOBQ_JOBQ_H

#include <jobq/bulk.h>
#include <jobq/client.h>
#include <jobq/cron.h>
#include <jobq/error.h>
#include <jobq/job.h>
#include <jobq/queue.h>
#include <jobq/testing.h>
#include <jobq/version.h>
#include <jobq/worker.h>

#endif
