/* commands.h: the table of jobqd's commands, and the one function that main calls.
 *
 * Each command is a function from its parsed command line to its exit code (sysexits).
 * Data goes to stdout, errors to stderr, and nothing is done before the whole command
 * line has been understood.
 */
#ifndef JOBQD_COMMANDS_H
#define JOBQD_COMMANDS_H

#include <stddef.h>

#include "jobqd/cli/cli.h"

/* Finds the command that argv names, reads its command line and runs it; without one it
 * prints the usage.
 * Returns the exit code. */
int commands_main(int argc, char **argv);

/* cmd_NAME.c; job is in cmd_jobs.c, and cancel, retry, delete and purge are in
 * cmd_steer.c. */
extern const struct command command_migrate;
extern const struct command command_enqueue;
extern const struct command command_jobs;
extern const struct command command_job;
extern const struct command command_cancel;
extern const struct command command_retry;
extern const struct command command_delete;
extern const struct command command_purge;
extern const struct command command_queues;
extern const struct command command_pause;
extern const struct command command_resume;
extern const struct command command_scale;
extern const struct command command_config;
extern const struct command command_cron;
extern const struct command command_doctor;
extern const struct command command_reload;
extern const struct command command_upgrade;
extern const struct command command_bench;
extern const struct command command_version;

#endif
