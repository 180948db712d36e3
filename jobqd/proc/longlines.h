/* longlines.h: the memory that the unfinished lines of all channels take together.
 *
 * A line of megabytes comes in many reads, and what has come of it is kept until its end.
 * Were all workers to answer so at once, jobqd would hold all of them. So only as many
 * grow at a time as fit into LONG_LINES_MAX, each counted as the longest line that it
 * may become; the others wait in their sockets, first come, first served. One goes on in
 * any case, however long its line may be.
 *
 * A worker that stops within a line must not stop the others: whoever has had nothing to
 * read for a second while others waited is not counted any more. So a worker that never
 * ends its line costs jobqd that line, until the job's deadline.
 */
#ifndef JOBQD_LONGLINES_H
#define JOBQD_LONGLINES_H

#include <stdbool.h>
#include <stddef.h>
#include <uv.h>

#include "jobqd/pure/list.h"

enum { LONG_LINES_MAX = 16 * 1024 * 1024 };

enum longline_state {
    LONGLINE_NONE,    /* no line is unfinished, or it has not asked to grow */
    LONGLINE_WAITS,   /* for room */
    LONGLINE_GROWS,   /* and is counted */
    LONGLINE_STALLED, /* it may grow, but nothing came: not counted */
};

/* One channel's. Begins zeroed, but for its list. */
struct longline {
    enum longline_state state;
    struct list link; /* among those of its state: waiting, or growing */
    size_t most;      /* bytes, when it grows */
    bool moved;       /* something came since the last look */
    void (*on_turn)(struct longline *line);
};

/* The line is unfinished and there may be more of it to read. Returns whether it may be
 * read: if not, on_turn is called once it may. on_turn calls nothing of this file. */
bool longline_may_grow(struct longline *line, uv_loop_t *loop, size_t most);
/* The line has ended, or nothing more of it is read. Others may have their turn within
 * this call. */
void longline_end(struct longline *line);
/* Whether some line waits. */
bool longlines_wait(void);

#endif
