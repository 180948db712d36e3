/* outbox.h: what became of a queue's attempts, until the database has confirmed it.
 *
 * Plain completions are two parallel arrays (100,000 a second pass here), everything else
 * a list of settlements that own their text. What is sent stays here until it is
 * confirmed; if the connection breaks, it is sent again. The fence in the statements
 * makes that harmless.
 *
 * The database can refuse one of them for a reason that lies in its row, and then refuses
 * all that went with it. Those are suspects: they are sent again apart (store.h), each
 * for itself, and the guilty one is found without a word against its neighbours. One that
 * is locked by another session, or that cannot be recorded at all, is kept for later:
 * nothing waits for it.
 */
#ifndef JOBQD_OUTBOX_H
#define JOBQD_OUTBOX_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "jobqd/actors/settled.h"

struct outbox_acks {
    int64_t *ids;
    int32_t *attempts;
    size_t n;
    size_t cap;
};

struct outbox_list {
    struct list list; /* of struct settled, oldest first */
    size_t n;
};

struct outbox {
    struct outbox_acks pending;
    struct outbox_acks sent;
    struct outbox_acks doubtful; /* confirmed, but some of them took no row away */
    struct outbox_list settled;
    struct outbox_list settled_sent;
    struct outbox_list suspects;
    struct outbox_list later;
    uint64_t later_due_ms;   /* when the first of `later` is due */
    bool sent_apart;         /* settled_sent is being settled apart */
    struct settlement *lent; /* what outbox_take gave to the cycle */
    size_t lent_cap;
    size_t bytes; /* of all settlements' texts, sent or not */
};

enum {
    OUTBOX_BATCH = 1024, /* acks, and settlements, in one transaction */
    OUTBOX_BATCH_BYTES =
        8 * 1024 * 1024, /* of settlements' texts in one; or a larger one */
    /* The texts of all queues together may weigh this much, before a queue with more than
     * its own bit of them takes no more answers; below the second it does again. */
    OUTBOX_HEAVY_BYTES = 32 * 1024 * 1024,
    OUTBOX_LIGHT_BYTES = 16 * 1024 * 1024,
    OUTBOX_OWN_BYTES = 256 * 1024
};

/* The last word that the database has said of a settlement, to be logged; of one that was
 * recorded only where an attempt failed. first: it has not been told before. Returns
 * whether it was told: else it is offered again, unless it was recorded. */
typedef bool (*outbox_tell)(void *owner, const struct settled *what,
                            const struct store_fate *fate, bool first);

void outbox_init(struct outbox *outbox);
void outbox_clear(struct outbox *outbox); /* forgets everything: the lease is lost */

/* Records a verdict on job (which is only read). queue gives back-off and whether usage
 * is kept; random: 32 random bits for the jitter. JOBQ_ENOMEM: nothing was recorded. */
int outbox_add(struct outbox *outbox, const struct queue_config *queue,
               const struct job *job, const struct verdict *verdict, uint32_t random);

bool outbox_is_empty(const struct outbox *outbox); /* nothing in here, nothing sent */
/* Whether the queue should take no more answers for now; was: whether it does not. */
bool outbox_is_heavy(const struct outbox *outbox, bool was);
/* What outbox_take would send. */
size_t outbox_pending(const struct outbox *outbox);
/* Whether outbox_take_apart would send something. now_ms: any clock that only grows. */
bool outbox_apart_due(const struct outbox *outbox, uint64_t now_ms);
/* How long until it would; -1: nothing is kept for later. */
int64_t outbox_due_in_ms(const struct outbox *outbox, uint64_t now_ms);

/* Moves what is pending to sent, at most OUTBOX_BATCH of each sort, and points the cycle
 * to it. Only when nothing is sent. JOBQ_ENOMEM: nothing moved. */
int outbox_take(struct outbox *outbox, struct store_cycle *cycle);
/* The same for suspects and for what is due again, at most STORE_MAX_APART of them. */
int outbox_take_apart(struct outbox *outbox, uint64_t now_ms, struct store_cycle *cycle);

/* How many settlements the database has recorded, in whatever form; how many it wanted
 * from this node no more. */
struct outbox_tally {
    size_t accepted;
    size_t refused;
};

/* The database has said what became of what was sent: fates (ordered by id) of the
 * settlements; acks are all done with. tell is called for each fate that is to be logged.
 */
struct outbox_tally outbox_confirmed(struct outbox *outbox,
                                     const struct store_fate *fates, size_t n,
                                     uint64_t now_ms, outbox_tell tell, void *owner);
/* Before outbox_confirmed: the database did not accept all of the acks that were sent.
 * Most have ended in another way; those that it still has as running (outbox_doubt_ended)
 * are sent again apart, which says what is in their way. */
void outbox_doubt(struct outbox *outbox);
/* The answer: which of them are still running. */
void outbox_doubt_ended(struct outbox *outbox, const int64_t *running, size_t n);
/* There was none: they are sent again. Without the memory for that they are forgotten. */
void outbox_doubt_returned(struct outbox *outbox);
/* Unknown, or rolled back for another reason: to be sent again, first, in the same way.
 */
void outbox_returned(struct outbox *outbox);
/* The database refused it, for a reason that may lie in one of its rows: to be sent
 * apart. Without the memory for that: as outbox_returned. */
void outbox_refused(struct outbox *outbox);

/* Appends the ids of all attempts in here to ids (room for outbox_count of them); returns
 * how many. */
size_t outbox_count(const struct outbox *outbox);
size_t outbox_ids(const struct outbox *outbox, int64_t *ids);

#endif
