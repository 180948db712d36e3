/* boots.h: how many workers of all queues boot at a time.
 *
 * A program may need much processor time before it says hello. Were all workers of a
 * hundred queues to boot at once, each would have so little of it that none is up within
 * its boot_timeout: all are killed, and it begins anew. And jobqd itself would come to
 * nothing between them. So some are started, and others when these have said hello.
 *
 * A worker that takes its time holds up nobody: it is counted for a moment only, longer
 * where processor time is short (as the time that starts take tells). exec programs and
 * forkservers are not counted.
 */
#ifndef JOBQD_BOOTS_H
#define JOBQD_BOOTS_H

#include <stdbool.h>
#include <stdint.h>
#include <uv.h>

#include "jobqd/pure/list.h"

/* One worker's, from its start to its hello or its end. Begins zeroed. */
struct boot {
    struct list link; /* among those that are counted */
    uint64_t since_ns;
};

/* Whoever starts workers. */
struct boots_asker {
    struct list link; /* among those that wait; list_init'ed */
    void (*on_room)(struct boots_asker *asker);
};

/* Whether another may be started. If not, on_room is called when one may, once. */
bool boots_have_room(struct boots_asker *asker, uv_loop_t *loop);
void boots_leave(struct boots_asker *asker);

void boot_begin(struct boot *boot);
void boot_end(struct boot *boot); /* harmless when it has not begun, or has ended */

#endif
