/* config_check.h: what must hold beyond a single value: the names of sections, what a
 * section needs, and what one option allows of another. Inside this folder only; what
 * others may ask (config_where, config_check_zones, config_keep_…) is in config.h.
 */
#ifndef JOBQD_CONFIG_CHECK_H
#define JOBQD_CONFIG_CHECK_H

#include "jobqd/config/config.h"

/* Each returns 0 or JOBQ_EINVAL; err says FILE:LINE and the section. */

/* The name in [WHAT NAME], which stands in this line. */
int config_check_name(const struct config *config, int line, const char *what,
                      const char *name, jobq_error *err);
/* A section that was read to its end. */
int config_check_queue(const struct config *config, const struct queue_config *queue,
                       jobq_error *err);
int config_check_cron(const struct config *config, const struct cron_config *cron,
                      jobq_error *err);
/* How long each queue keeps its history, when all sources were read. */
int config_check_retention(const struct config *config, jobq_error *err);

#endif
