/* postgres_dir.h: the embedded cluster's directory on disk: whose it is, who holds it,
 * what is in it.
 *
 * Checks that a directory is one of ours (or can become one), takes its lock, lays out
 * the files around PGDATA, and reads what a running postmaster left there. Starts
 * nothing. Never changes a directory that it refuses, and never deletes a cluster.
 */
#ifndef JOBQD_POSTGRES_DIR_H
#define JOBQD_POSTGRES_DIR_H

#include <jobq/error.h>
#include <stdbool.h>
#include <stddef.h>
#include <sys/types.h>

#include "jobqd/embedded/postgres_child.h"

/* What a look at the directory told, before anything is changed. Strings are malloc'ed
 * absolute paths. */
struct postgres_dir {
    char *path; /* DIR, resolved */
    char *data; /* DIR/data */
    /* DIR/data.new: where initdb works, renamed to data once it is complete */
    char *fresh;
    char *log;     /* DIR/postgres.log */
    char *sockets; /* where the socket goes: at most 93 bytes, letters that need no
                      quoting */
    char *uri;
    struct postgres_user user;
    struct postgres_user invoker; /* who has called sudo, and may connect, too; uid 0:
                                     nobody has */
    bool exists;                  /* DIR is there */
    bool cluster;                 /* DIR/data is there, complete */
    int major;                    /* of the cluster; 0: none yet */
    int lock;                     /* file descriptor that holds the lock; -1: not taken */
};

/* Looks, changes nothing. JOBQ_EINVAL: dir is foreign or broken; JOBQ_EIO. Ownership:
 * clear with postgres_dir_clear, also after a failure. */
int postgres_dir_inspect(struct postgres_dir *dir, const char *path, jobq_error *err);
void postgres_dir_clear(struct postgres_dir *dir); /* gives the lock back, too */

/* Who holds a directory's lock, as written in the lock file. */
enum postgres_holder { HOLDER_NONE, HOLDER_DAEMON, HOLDER_COMMAND };
/* Asks without taking the lock, so that it is in nobody's way. */
enum postgres_holder postgres_dir_holder(const struct postgres_dir *dir);

/* Makes DIR if it is not there, takes the lock, and looks for a cluster again: whoever
 * held the lock may have made one. JOBQ_ESTATE: somebody holds it: *held_by (may be NULL)
 * says what it is. */
int postgres_dir_lock(struct postgres_dir *dir, enum postgres_holder as,
                      enum postgres_holder *held_by, jobq_error *err);

/* Writes the configuration, pg_hba and pg_ident, the uri, and makes the socket's
 * directory. */
int postgres_dir_write_files(const struct postgres_dir *dir, jobq_error *err);

/* Makes an empty DIR/data.new for initdb (what an interrupted initdb left there goes),
 * and after its success turns it into the cluster. */
int postgres_dir_prepare_fresh(const struct postgres_dir *dir, jobq_error *err);
int postgres_dir_adopt_fresh(struct postgres_dir *dir, int major, jobq_error *err);

/* Opens the log for appending. *size (may be NULL) is its length so far. */
int postgres_dir_open_log(const struct postgres_dir *dir, int *fd, off_t *size,
                          jobq_error *err);
/* The last lines written after `from`, as one line ("a | b | c"), for an error's end.
 * Empty when there is none. */
void postgres_dir_log_tail(const struct postgres_dir *dir, off_t from, char *text,
                           size_t size);
/* Empties a log of more than 64 MiB; its last MiB goes to postgres.log.1. */
void postgres_dir_trim_log(const struct postgres_dir *dir);

/* What DIR/data/postmaster.pid says. */
struct postgres_pidfile {
    pid_t pid;
    bool ready; /* it takes connections, and is not in recovery */
};
/* 0, JOBQ_ENOTFOUND (no such file, or not written in full yet) or JOBQ_EIO (not ours to
 * read). */
int postgres_dir_read_pidfile(const struct postgres_dir *dir,
                              struct postgres_pidfile *out, jobq_error *err);

/* The processes of this cluster that run, found by name and working directory (so that a
 * pid used again does not deceive). */
struct postgres_processes {
    int count;
    pid_t postmaster; /* the one of postmaster.pid, if it runs; else 0: what runs are
                         orphans */
};
void postgres_dir_processes(const struct postgres_dir *dir,
                            struct postgres_processes *out);
/* Sends SIGQUIT to all processes of the cluster. For backends whose postmaster was
 * killed: they hold the shared memory that keeps the next one from starting. */
void postgres_dir_quit_orphans(const struct postgres_dir *dir);
/* Removes a postmaster.pid whose pid now belongs to another program of the same user
 * (postgres would refuse to start). Call only with no process of the cluster running. */
void postgres_dir_remove_stale_pidfile(const struct postgres_dir *dir);

#endif
