/* row.h (internal): a row of jobq.all_jobs as a jobq_job_info. */
#ifndef JOBQ__ROW_H
#define JOBQ__ROW_H

#include <jobq/job.h>
#include <libpq-fe.h>

/* Reads a row of JOBQ__SQL_GET. Ownership: *out is the caller's, jobq_job_info_free.
 * JOBQ_ENOMEM, JOBQ_EDB. */
int jobq__row_read(const PGresult *result, int row, jobq_job_info **out, jobq_error *err);

#endif
