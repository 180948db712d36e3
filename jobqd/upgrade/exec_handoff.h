/* exec_handoff.h: the program that takes this one's place: how it is executed, and how the
 * old one comes back where the new one does not come up.
 *
 * The exec keeps the process: its id, its children and the descriptors that the handover
 * names. There is no way back from an exec by itself, so the old program goes along as a
 * descriptor. Until the new one has said that it is up (exec_handoff_is_up), whatever
 * befalls it (it returns from main, a signal ends it, it takes longer than
 * SUCCESSOR_LIMIT_S) makes it execute the old program with the same handover. A program
 * that is not a jobqd at all could not do that: the rehearsal (upgrade.h) finds those out
 * before.
 *
 * It knows no workers, and needs no loop. One a process: its state is the process's.
 */
#ifndef JOBQD_EXEC_HANDOFF_H
#define JOBQD_EXEC_HANDOFF_H

#include <jobq/error.h>
#include <stdbool.h>
#include <sys/types.h>

#include "jobqd/upgrade/handover.h"

enum { SUCCESSOR_LIMIT_S = 20 };

/* First thing in main: remembers the program (base/self.h); takes
 * the handover out of the environment, if there is one, and arms the way back. argv
 * outlives everything. */
void exec_handoff_begin(char **argv);

/* Executes the file at self_path() with our arguments. document: what handover_seal gave for handover.
 * Signals that are blocked stay so until the new one has its handlers. Returns only when
 * nothing was executed: JOBQ_EIO, and everything is as before. */
int exec_handoff_execute(const struct handover *handover, int document, jobq_error *err);

/* *out: the document that this program was executed with; -1: it starts afresh.
 * JOBQ_EINVAL: the environment names one that there is not. */
int exec_handoff_document(int *out, jobq_error *err);
/* A child of ours that ends with us where we do not come up. */
void exec_handoff_takes_along(pid_t pid);
/* Why the program that should have taken over did not come up, as it or the kernel put
 * it; NULL: this is no return. */
const char *exec_handoff_failure(void);

/* This program has the way back before it: it is not up yet. */
bool exec_handoff_may_go_back(void);

/* The workers are taken over, and signals handled: there is no way back from here on. The
 * descriptors of the document are close-on-exec again. */
void exec_handoff_is_up(void);

/* This program ends for that reason, which a way back tells. The first one counts. */
void exec_handoff_explain(const char *why);

/* The last thing in main, with its exit code: goes back to the old program if this one is
 * not up yet, else does nothing. */
void exec_handoff_give_up(int code);

#endif
