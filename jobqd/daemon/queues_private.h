/* queues_private.h: what the files of the queues share. No other file includes it.
 *
 * From the bottom: queues_slot.c: one queue's place; queues_settings.c: what operators
 * have set; queues_handover.c: the hand-over in an upgrade; queues_describe.c: all queues
 * in figures; queues.c: which queues there are, and what goes to each of them.
 */
#ifndef JOBQD_QUEUES_PRIVATE_H
#define JOBQD_QUEUES_PRIVATE_H

#include "jobqd/actors/producer.h"
#include "jobqd/daemon/queues.h"

enum { QUEUES_MAX_WORKERS = 1000 }; /* as the option `concurrency` allows */

/* Whether `paused` and `scaled` are known. Values that were read once stay in force while
 * the database is away, but nothing is claimed before they have been read again. */
enum settings_state {
    SETTINGS_UNREAD, /* not since the session was opened, or the queue came */
    SETTINGS_ASKED,  /* a request that was sent since then is under way, or was lost */
    SETTINGS_READ
};

/* A queue's place: its producer, and what replaces it after a lost lease. */
struct slot {
    struct queues *queues;
    char subject[160];                /* for the log: "queue NAME" */
    const struct queue_config *queue; /* held */
    int workers;                      /* how many are wanted */
    int scaled;                       /* workers that jobq.scale has set; -1: none */
    bool paused;                      /* jobq.pause, as was read last */
    enum settings_state settings;
    struct producer *producer;
    bool removed; /* by a reload: it drains */
    bool stopped; /* the producer is, and waits to be freed */
};

/* ---- queues_slot.c ---- */

/* The queue of that name that this node goes on serving, or NULL. */
struct slot *queues_slot_find(const struct queues *queues, const char *name);
/* Tells the producer what the settings say about claiming. */
void queues_slot_hold(struct slot *slot);
/* How many workers the settings, or else this configuration, ask for: without the effect
 * of TTIN and TTOU. */
int queues_slot_base(const struct slot *slot, const struct queue_config *queue);
/* That many workers more; fewer, if negative. Out of range: nothing changes. */
void queues_slot_resize(struct slot *slot, int by);
/* jobq.scale asks for that many workers; -1: for none, so that the configuration
 * counts. A new value undoes TTIN and TTOU. */
void queues_slot_scale(struct slot *slot, int scaled);

#endif
