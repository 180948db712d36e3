/* inifile.h: reads an INI file with inih and tells of sections and values with their line
 * numbers. Knows no options.
 *
 * What inih alone would not give: the line of each value (its packaged builds do not pass
 * it), sections without a value, and lines over 200 bytes. Leading blanks do not count
 * (no continuation lines); a comment is a line beginning with ; or #, or what follows a
 * blank and a ; on a line.
 */
#ifndef JOBQD_INIFILE_H
#define JOBQD_INIFILE_H

#include <jobq/error.h>

/* Either returns 0, or a negative JOBQ_E… with err filled in, which ends the reading. The
 * strings are lent. */
struct inifile_events {
    int (*on_section)(void *data, const char *section, int line, jobq_error *err);
    int (*on_value)(void *data, const char *key, const char *value, int line,
                    jobq_error *err);
};

/* JOBQ_EIO when the file cannot be read, JOBQ_EINVAL when it is no INI file (the message
 * begins with FILE:LINE), JOBQ_ENOMEM, or what a callback returned. */
int inifile_read(const char *file, const struct inifile_events *events, void *data,
                 jobq_error *err);

#endif
