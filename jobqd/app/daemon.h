/* daemon.h: `jobqd run`: one process, one loop, and the actors on it. */
#ifndef JOBQD_DAEMON_H
#define JOBQD_DAEMON_H

#include "jobqd/base/config.h"

/* Runs until told to stop; returns the exit code (sysexits). Signals: TERM and INT drain,
 * a second one stops at once; TSTP stops claiming, CONT goes on; USR1 logs the state;
 * HUP, TTIN, TTOU and USR2 are logged and change nothing. */
int cmd_run(const struct config *config);

#endif
