/* daemon.h: `jobqd run`: one process, one loop, and the actors on it. */
#ifndef JOBQD_DAEMON_H
#define JOBQD_DAEMON_H

#include "jobqd/cli/cli.h"
#include "jobqd/config/config.h"

/* Runs until told to stop; returns the exit code (sysexits). cli: where the configuration
 * came from, to be read again. Signals: TERM and INT drain, a second one stops at once;
 * HUP reads the configuration again and replaces the workers one by one; TTIN and TTOU
 * add or take one worker of each queue; TSTP stops claiming, CONT goes on; USR1 logs the
 * state; USR2 executes the newest version of the program, which keeps the workers. */
int cmd_run(struct config *config, const struct cli *cli);

#endif
