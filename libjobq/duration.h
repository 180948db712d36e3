/* duration.h (internal): a duration as people read it: "15 s", "2 min", "300 ms". */
#ifndef JOBQ__DURATION_H
#define JOBQ__DURATION_H

#include <stdint.h>

enum { JOBQ__DURATION_TEXT = 32 };

struct jobq__duration {
    char text[JOBQ__DURATION_TEXT];
};

/* In the largest unit in which it is a whole number; what is more than ten seconds, or a
 * second and tenths of it, as "11.5 s". By value, so that several fit into one message.
 */
struct jobq__duration jobq__duration_show(int64_t ms);

#endif
