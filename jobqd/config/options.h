/* options.h: every option that jobqd knows, one row each.
 *
 * The same rows read the file, the environment and the flags (config.c), print the
 * configuration, `--help` and the man page's tables: an option is added by adding its row
 * and its field in config.h, and cannot be documented differently from what it does.
 */
#ifndef JOBQD_OPTIONS_H
#define JOBQD_OPTIONS_H

#include <jobq/error.h>
#include <stddef.h>
#include <stdio.h>

#include "jobqd/config/option_types.h"

extern const struct option_row jobqd_options[]; /* of [jobqd] */
extern const size_t jobqd_options_count;
extern const struct option_row queue_options[]; /* of [queue NAME] */
extern const size_t queue_options_count;
extern const struct option_row cron_options[]; /* of [cron NAME] */
extern const size_t cron_options_count;

/* The row called name, where - and _ are the same; NULL: none. */
const struct option_row *option_find(const struct option_row *rows, size_t n,
                                     const char *name);

/* Sets the fields of base whose rows have a default; the others stay as they are. */
int options_set_defaults(const struct option_row *rows, size_t n, void *base,
                         jobq_error *err);

/* The rows as `--help` shows them (flags) and as the man page shows them (scdoc text,
 * keys). Returns 0 or JOBQ_ENOMEM. */
int options_print_flags(FILE *out, const struct option_row *rows, size_t n);
int options_print_man(FILE *out, const struct option_row *rows, size_t n);

#endif
