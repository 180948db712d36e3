/* running.h: the jobqd of a node, as a command on the same host sees it: its row in
 * jobq.nodes, and its process, which takes signals. */
#ifndef JOBQD_RUNNING_H
#define JOBQD_RUNNING_H

#include <stdbool.h>
#include <stdint.h>

#include "jobqd/cli/session.h"

/* What the statement node_seen returns. Texts are the database's word: anything may be in them. */
struct running {
    int pid;
    int64_t start;
    char host[160];
    char version[64];
    struct {
        char at[64]; /* "" when there was none */
        char from[64];
        char error[600]; /* "" when it took place */
    } upgrade;           /* the last one */
    struct {
        char at[64];      /* likewise */
        char state[16];   /* begun, done, failed or refused */
        char leaving[24]; /* processes from before that run a job */
        char error[800];
        char file[4096]; /* which it reads; "": none */
        char crons[800]; /* which of them the database refuses */
        bool tells_file; /* it has noted that */
    } reload;
};

/* Returns 0 or a negative JOBQ_E…: JOBQ_ENOTFOUND, no node is called so. */
int running_look(struct session *session, const char *node, struct running *out,
                 jobq_error *err);

/* Whether its process lives, here. */
int running_check(const char *node, const struct running *seen, jobq_error *err);

/* Sends the signal to the process, if that is a jobqd: the row may say anything. */
int running_signal(const char *node, const struct running *seen, int number,
                   jobq_error *err);

#endif
