/* bench_daemon.c: see bench_daemon.h. */
#include "jobqd/bench/bench_daemon.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <sysexits.h>
#include <unistd.h>

#include "jobqd/config/words.h"
#include "libjobq/buf.h"
#include "libjobq/error.h"

enum { START_MS = 60000, STOP_MS = 60000, POLL_US = 1000, TOLD_BYTES = 4096 };

/* ---- Starting it ---- */

static int
put_config(const char *path, const struct bench *bench,
           const struct bench_daemon_options *options, char *self, jobq_error *err)
{
    char worker_word[] = "worker";
    char *const words[] = {self, worker_word, NULL};
    struct jobq__buf command = {0};
    if (options->command != NULL)
        jobq__buf_adds(&command, options->command);
    else
        words_join(&command, words);
    const char *text = jobq__buf_cstr(&command);
    FILE *file = text != NULL ? fopen(path, "we") : NULL;
    bool failed = !file || fprintf(file,
                                   "[jobqd]\nschema = %s\nnode = bench\nnotify = %s\n"
                                   "[queue bench]\ncommand = %s\nconcurrency = %" PRId64
                                   "\nkeep = %s\n"
                                   "env = " BENCH_SHARED_VARIABLE "\n",
                                   bench->schema, options->notify ? "on" : "off", text,
                                   options->workers, options->keep ? "all" : "none") < 0;
    if (file != NULL)
        failed = fclose(file) != 0 || failed;
    jobq__buf_clear(&command);
    return failed
               ? jobq__error(err, JOBQ_EIO, "cannot write %s: %s", path, strerror(errno))
               : 0;
}

/* What is meant for another jobqd is taken out; the database comes in here, not on the
 * command line, where others could read its password. */
static bool
set_environment(const struct bench *bench)
{
    char path[PATH_MAX];
    snprintf(path, sizeof path, "%s/shared", bench->dir);
    for (char **at = environ; *at != NULL;) {
        char name[64] = "";
        size_t len = strcspn(*at, "=");
        bool ours =
            strncmp(*at, "JOBQ_", 5) == 0 || strncmp(*at, "DATABASE_URL=", 13) == 0;
        if (ours && len < sizeof name) {
            memcpy(name, *at, len);
            unsetenv(name);
        } else {
            at++;
        }
    }
    return setenv(BENCH_SHARED_VARIABLE, path, 1) == 0 &&
           (!bench->uri || setenv("JOBQ_DATABASE", bench->uri, 1) == 0);
}

/* In the child. */
static void
become_daemon(const struct bench *bench, const char *self, const char *config, int log)
{
    int nothing = open("/dev/null", O_RDWR | O_CLOEXEC);
    if (nothing >= 0 && dup2(nothing, 0) == 0 && dup2(log, 1) == 1 && dup2(log, 2) == 2 &&
        prctl(PR_SET_PDEATHSIG, SIGTERM) == 0 && set_environment(bench)) {
        signal(SIGPIPE, SIG_DFL);
        execl(self, "jobqd", "run", "-c", config, (char *)NULL);
    }
    perror("jobqd bench: cannot start jobqd");
    _exit(EX_OSERR);
}

/* Whether the log has the line that ends in `ready database=…`. */
static bool
says_ready(const struct bench_daemon *daemon)
{
    char line[4096];
    bool ready = false;
    FILE *file = fopen(daemon->log, "re");
    while (file != NULL && !ready && fgets(line, sizeof line, file) != NULL)
        ready = strstr(line, "ready database=") != NULL;
    if (file != NULL)
        fclose(file);
    return ready;
}

static int
wait_until_ready(struct bench_daemon *daemon, jobq_error *err)
{
    int64_t until = bench_now_ns() + START_MS * INT64_C(1000000);
    int rc = 0;
    while (rc == 0 && !says_ready(daemon)) {
        rc = bench_daemon_check(daemon, err);
        if (rc == 0 && bench_now_ns() > until)
            rc = jobq__error(err, JOBQ_ESTATE, "jobqd did not become ready within %d s",
                             START_MS / 1000);
        if (rc == 0)
            rc = bench_pause_us(POLL_US, err);
    }
    return rc;
}

int
bench_daemon_start(struct bench_daemon *daemon, const struct bench *bench,
                   const struct bench_daemon_options *options, jobq_error *err)
{
    char self[PATH_MAX] = "", config[PATH_MAX];
    memset(daemon, 0, sizeof *daemon);
    daemon->bench = bench;
    snprintf(daemon->log, sizeof daemon->log, "%s/jobqd.log", bench->dir);
    snprintf(config, sizeof config, "%s/jobqd.conf", bench->dir);
    const char *jobqd = getenv("JOBQ_BENCH_JOBQD");
    if (!jobqd || *jobqd != '/')
        return jobq__error(err, JOBQ_EINVAL,
                           "JOBQ_BENCH_JOBQD must be the path of the jobqd to be "
                           "measured: `jobqd bench` sets it");
    if (readlink("/proc/self/exe", self, sizeof self - 1) < 0)
        return jobq__error(err, JOBQ_EIO, "cannot find this program's file: %s",
                           strerror(errno));
    int rc = put_config(config, bench, options, self, err);
    if (rc != 0)
        return rc;
    int log =
        open(daemon->log, O_WRONLY | O_CREAT | O_TRUNC | O_APPEND | O_CLOEXEC, 0600);
    if (log < 0)
        return jobq__error(err, JOBQ_EIO, "cannot write %s: %s", daemon->log,
                           strerror(errno));
    fflush(stdout);
    daemon->pid = fork();
    if (daemon->pid == 0)
        become_daemon(bench, jobqd, config, log);
    close(log);
    if (daemon->pid < 0) {
        daemon->pid = 0;
        return jobq__error(err, JOBQ_EIO, "cannot fork: %s", strerror(errno));
    }
    rc = wait_until_ready(daemon, err);
    if (rc != 0) {
        bench_daemon_tell(daemon);
        bench_daemon_stop(daemon, NULL);
    }
    return rc;
}

/* ---- Its end ---- */

static int
ended(struct bench_daemon *daemon, int status, jobq_error *err)
{
    daemon->pid = 0;
    if (WIFSIGNALED(status))
        return jobq__error(err, JOBQ_ESTATE, "jobqd was killed by signal %d",
                           WTERMSIG(status));
    return jobq__error(err, JOBQ_ESTATE, "jobqd exited with %d", WEXITSTATUS(status));
}

int
bench_daemon_check(struct bench_daemon *daemon, jobq_error *err)
{
    int status = 0;
    if (daemon->pid == 0 || waitpid(daemon->pid, &status, WNOHANG) == daemon->pid)
        return ended(daemon, status, err);
    return 0;
}

int
bench_daemon_stop(struct bench_daemon *daemon, jobq_error *err)
{
    int status = 0;
    if (daemon->pid == 0)
        return 0;
    int64_t until = bench_now_ns() + STOP_MS * INT64_C(1000000);
    kill(daemon->pid, SIGTERM);
    while (waitpid(daemon->pid, &status, WNOHANG) == 0) {
        if (bench_now_ns() > until)
            kill(daemon->pid, SIGKILL);
        usleep(POLL_US); /* not bench_pause_us: also when we are told to stop */
    }
    if (WIFEXITED(status) && WEXITSTATUS(status) == 0) {
        daemon->pid = 0;
        return 0;
    }
    bench_daemon_tell(daemon);
    return ended(daemon, status, err);
}

void
bench_daemon_tell(const struct bench_daemon *daemon)
{
    char text[TOLD_BYTES + 1];
    bool told_to_stop = bench_pause_us(0, NULL) != 0;
    FILE *file = told_to_stop ? NULL : fopen(daemon->log, "re");
    if (!file)
        return;
    if (fseek(file, -TOLD_BYTES, SEEK_END) != 0)
        rewind(file);
    text[fread(text, 1, TOLD_BYTES, file)] = '\0';
    fprintf(stderr, "---- the end of jobqd's log ----\n%s----\n", text);
    fclose(file);
}

/* ---- What processes used ---- */

int
bench_memory_kb(pid_t pid, int64_t *now, int64_t *peak, jobq_error *err)
{
    char path[64], line[256];
    int found = 0;
    snprintf(path, sizeof path, "/proc/%d/status", (int)pid);
    FILE *file = fopen(path, "re");
    while (file != NULL && fgets(line, sizeof line, file) != NULL)
        found += sscanf(line, "VmRSS: %" SCNd64, now) == 1 ||
                 sscanf(line, "VmHWM: %" SCNd64, peak) == 1;
    if (file != NULL)
        fclose(file);
    return found == 2
               ? 0
               : jobq__error(err, JOBQ_EIO, "cannot read VmRSS and VmHWM of %s", path);
}

double
bench_cpu_s(pid_t pid)
{
    char path[64], line[1024] = "";
    unsigned long user = 0, system = 0;
    snprintf(path, sizeof path, "/proc/%d/stat", (int)pid);
    FILE *file = fopen(path, "re");
    if (!file)
        return 0;
    /* The name, in brackets, may hold anything; fields 14 and 15 are the 12th and 13th
     * after it. */
    const char *rest = fgets(line, sizeof line, file) != NULL ? strrchr(line, ')') : NULL;
    if (rest != NULL)
        (void)sscanf(rest + 1, " %*c %*d %*d %*d %*d %*d %*u %*u %*u %*u %*u %lu %lu",
                     &user, &system);
    fclose(file);
    return (double)(user + system) / (double)sysconf(_SC_CLK_TCK);
}

double
bench_workers_cpu_s(const struct bench_shared *shared)
{
    size_t n = atomic_load(&shared->n_workers);
    double sum = 0;
    for (size_t i = 0; i < n && i < BENCH_WORKERS; i++)
        sum += bench_cpu_s(shared->workers[i]);
    return sum;
}
