/* postgres_launch.h: starts initdb and postgres with the right words, in the right
 * directory. */
#ifndef JOBQD_POSTGRES_LAUNCH_H
#define JOBQD_POSTGRES_LAUNCH_H

#include <jobq/error.h>
#include <sys/types.h>
#include <uv.h>

#include "jobqd/embedded/postgres_binaries.h"
#include "jobqd/embedded/postgres_child.h"
#include "jobqd/embedded/postgres_dir.h"

/* A child that was started. */
struct postgres_launch {
    struct postgres_child *child;
    off_t log_from; /* where its part of the log begins */
};

struct postgres_launcher {
    uv_loop_t *loop;
    const struct postgres_dir *dir;
    const struct postgres_binaries *binaries;
    char *const *settings; /* "name=value", NULL-terminated; NULL: none */
    postgres_child_exit on_exit;
    void *owner;
};

/* JOBQ_EINVAL: the one of settings that is not name=value, or sets what is not for the
 * caller to set. */
int postgres_settings_check(const char *const *settings, jobq_error *err);

/* initdb, into DIR/data.new. */
int postgres_launch_initdb(const struct postgres_launcher *launcher,
                           struct postgres_launch *out, jobq_error *err);
/* The postmaster, after writing its files. */
int postgres_launch_server(const struct postgres_launcher *launcher,
                           struct postgres_launch *out, jobq_error *err);

#endif
