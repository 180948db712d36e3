/* config_file.h: the configuration file: its sections and their options. Inside this folder
 * only.
 */
#ifndef JOBQD_CONFIG_FILE_H
#define JOBQD_CONFIG_FILE_H

#include "jobqd/config/config.h"

/* Reads config->file over what config holds. Each section is checked where it ends. path:
 * $PATH, for the names of programs. On failure config is read in part, and fit only for
 * config_free. JOBQ_EINVAL: err says FILE:LINE; JOBQ_EIO, JOBQ_ENOMEM. */
int config_file_read(struct config *config, const char *path, jobq_error *err);

#endif
