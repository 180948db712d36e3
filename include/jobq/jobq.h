/* jobq/jobq.h: everything of libjobq. See job.h and client.h to enqueue, worker.h to
 * handle, error.h for errors. */
#ifndef JOBQ_JOBQ_H
#define JOBQ_JOBQ_H

#include <jobq/client.h>
#include <jobq/error.h>
#include <jobq/job.h>
#include <jobq/version.h>
#include <jobq/worker.h>

#endif
