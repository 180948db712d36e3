/* duration.h (internal): a duration as people read it: "15 s", "2 min", "300 ms". */
#ifndef JOBQ__DURATION_H
#define JOBQ__DURATION_H

#include <stdint.h>

enum { JOBQ__DURATION_TEXT = 32 };

struct jobq__duration {
    char text[JOBQ__DURATION_TEXT];
};

/* In the largest unit in which it is a whole number; else in milliseconds below one second
 * and in seconds, rounded to a tenth, above: "1.2 s". For messages only: the configuration
 * prints durations exactly, in its own syntax (units_put_duration). By value, so that
 * several fit into one message.
 */
struct jobq__duration jobq__duration_show(int64_t ms);
/* The same of a measured time, rounded to milliseconds. */
struct jobq__duration jobq__duration_show_ns(uint64_t ns);

#endif
