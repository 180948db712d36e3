/* doctor_host.c: what doctor asks of this host: configuration, programs, limits, and the
 * embedded database's directory. See doctor.h. */
#include <string.h>
#include <sys/resource.h>

#include "jobqd/cli/trust.h"
#include "jobqd/commands/doctor.h"
#include "jobqd/embedded/postgres_binaries.h"
#include "jobqd/embedded/postgres_dir.h"
#include "jobqd/pool/launch.h"

enum { FILES_A_WORKER = 4, FILES_OF_OURS = 64 };

void
doctor_look_at_config(struct doctor *doctor)
{
    jobq_error err = {0};
    if (session_read(&doctor->session.config, doctor->cli, &err) < 0) {
        doctor_say(doctor, DOCTOR_FAIL, err.message,
                   "fix the configuration; `jobqd config check` checks only that");
        return;
    }
    const struct config *c = doctor->session.config;
    if (!c->file)
        doctor_sayf(doctor, DOCTOR_OK, NULL,
                    "no configuration file: using only the environment and flags");
    else if (c->n_queues == 0)
        doctor_sayf(doctor, DOCTOR_WARN,
                    "add a [queue NAME] section if this node should run jobs",
                    "%s has no queues: this node runs no jobs, but can be the leader",
                    c->file);
    else
        doctor_sayf(doctor, DOCTOR_OK, NULL, "%s is valid, %zu queue%s", c->file,
                    c->n_queues, c->n_queues == 1 ? "" : "s");
}

/* Each queue by itself, so that one does not hide another. */
void
doctor_look_at_programs(struct doctor *doctor)
{
    const struct config *c = doctor->session.config;
    for (size_t i = 0; i < c->n_queues; i++) {
        struct config one = *c;
        jobq_error err = {0};
        one.queues = &c->queues[i];
        one.n_queues = 1;
        if (launch_check(&one, LAUNCH_JUDGES, &err) < 0)
            doctor_say(
                doctor, DOCTOR_FAIL, err.message,
                err.code == JOBQ_ESTATE
                    ? "fix it: until then jobqd runs, but does not serve this queue"
                    : "fix it: until then jobqd neither starts nor reloads (SIGHUP) with "
                      "this configuration");
    }
    if (!doctor->said && c->n_queues == 0)
        doctor_say(doctor, DOCTOR_OK, "no queue names a program (-c FILE)", NULL);
    else if (!doctor->said)
        doctor_sayf(
            doctor, DOCTOR_OK, NULL, "%s can be started here, as far as doctor can test",
            c->n_queues == 1 ? "the queue's program" : "the program of each queue");
}

static void
say_warning(void *data, const char *what, const char *remedy)
{
    doctor_say(data, DOCTOR_WARN, what, remedy);
}

void
doctor_look_at_trust(struct doctor *doctor)
{
    trust_look(doctor->session.config, say_warning, doctor);
    if (!doctor->said)
        doctor_say(doctor, DOCTOR_OK,
                   "no other user may change what jobqd reads and runs", NULL);
}

void
doctor_look_at_files(struct doctor *doctor)
{
    const struct config *c = doctor->session.config;
    struct rlimit limit;
    unsigned long long needed = FILES_OF_OURS;
    for (size_t i = 0; i < c->n_queues; i++)
        needed += FILES_A_WORKER * (unsigned long long)c->queues[i].concurrency;
    if (getrlimit(RLIMIT_NOFILE, &limit) < 0 || limit.rlim_max == RLIM_INFINITY ||
        limit.rlim_max >= needed)
        doctor_sayf(
            doctor, DOCTOR_OK, NULL,
            "all workers together need %llu open files, and this user may have as many",
            needed);
    else
        doctor_sayf(
            doctor, DOCTOR_FAIL,
            "raise the hard limit of open files where jobqd is started "
            "(LimitNOFILE= of its unit), or lower concurrency",
            "all workers together need %llu open files, but this user may have only %llu",
            needed, (unsigned long long)limit.rlim_max);
}

static void
look_at_binaries(struct doctor *doctor, const struct postgres_dir *dir)
{
    jobq_error err = {0};
    struct postgres_binaries binaries = {0};
    if (postgres_binaries_find(&binaries, dir->major, &err) < 0)
        doctor_say(doctor, DOCTOR_FAIL, err.message,
                   "install them, or set JOBQ_PG_BINDIR to their folder");
    else if (!dir->cluster)
        doctor_sayf(doctor, DOCTOR_WARN, "start jobqd",
                    "%s has no cluster yet: jobqd will create one with PostgreSQL %d at "
                    "its first start",
                    dir->path, binaries.major);
    else
        doctor_sayf(doctor, DOCTOR_OK, NULL, "%s is a PostgreSQL %d cluster, run by %s",
                    dir->path, dir->major, binaries.postgres);
    postgres_binaries_clear(&binaries);
}

void
doctor_look_at_embedded(struct doctor *doctor)
{
    const struct config *c = doctor->session.config;
    struct postgres_dir dir;
    jobq_error err = {0};
    if (!c->embedded) {
        doctor_say(doctor, DOCTOR_OK, "no embedded database is configured", NULL);
        return;
    }
    if (postgres_dir_inspect(&dir, c->embedded, &err) < 0)
        doctor_say(doctor, DOCTOR_FAIL, err.message,
                   "set embedded to another folder, or make this one usable");
    else
        look_at_binaries(doctor, &dir);
    postgres_dir_clear(&dir);
}
