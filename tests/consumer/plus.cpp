// The same library from C++.
#include <jobq/jobq.h>

extern "C" int enqueue_from_cpp(struct pg_conn *conn, int64_t *id, jobq_error *err);

int
enqueue_from_cpp(struct pg_conn *conn, int64_t *id, jobq_error *err)
{
    static const char *const tags[] = {"from", "c++"};
    jobq_job job = JOBQ_JOB_INIT;
    job.kind = "consumer";
    job.tags = tags;
    job.n_tags = 2;
    job.delay_ms = 3600 * 1000;
    return jobq_enqueue(conn, &job, id, err);
}
