/* outbox.h: what became of a queue's attempts, until the database has confirmed it.
 *
 * Plain completions are two parallel arrays (100,000 a second pass here), everything else
 * a list of settlements that own their text. What is sent stays here until it is
 * confirmed; if the connection breaks, it is sent again. The fence in the statements
 * makes that harmless.
 */
#ifndef JOBQD_OUTBOX_H
#define JOBQD_OUTBOX_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "jobqd/base/config.h"
#include "jobqd/pure/job.h"
#include "jobqd/pure/list.h"
#include "jobqd/service/store.h"

struct outbox_acks {
    int64_t *ids;
    int32_t *attempts;
    size_t n;
    size_t cap;
};

struct outbox {
    struct outbox_acks pending;
    struct outbox_acks sent;
    struct list settled; /* pending settlements, oldest first */
    struct list settled_sent;
    size_t n_settled;
    size_t n_settled_sent;
    struct settlement *lent; /* what outbox_take gave to the cycle */
    size_t lent_cap;
    size_t
        most; /* settlements a cycle; 1 while one of them is suspected of being refused */
};

enum { OUTBOX_BATCH = 1024 }; /* acks, and settlements, in one transaction */

void outbox_init(struct outbox *outbox);
void outbox_clear(struct outbox *outbox); /* forgets everything: the lease is lost */

/* Records a verdict on job (which is only read). queue gives back-off and whether usage
 * is kept; random: 32 random bits for the jitter. JOBQ_ENOMEM: nothing was recorded. */
int outbox_add(struct outbox *outbox, const struct queue_config *queue,
               const struct job *job, const struct verdict *verdict, uint32_t random);

bool outbox_is_empty(const struct outbox *outbox); /* nothing pending, nothing sent */
size_t outbox_pending(const struct outbox *outbox);

/* Moves what is pending to sent, at most OUTBOX_BATCH of each sort, and points the cycle
 * to it. Only when nothing is sent. JOBQ_ENOMEM: nothing moved. */
int outbox_take(struct outbox *outbox, struct store_cycle *cycle);
void outbox_confirmed(
    struct outbox *outbox); /* the database has it, or has refused it for good */
void outbox_returned(
    struct outbox *outbox); /* unknown or rolled back: to be sent again, first */

/* The database refused the transaction because of its data: narrows down to the
 * settlement that it does not take, one a cycle, and then replaces that one by a failure
 * that says so. Call after outbox_returned. */
void outbox_suspect(struct outbox *outbox, const char *why);

/* Appends the ids of all attempts in here to ids (room for outbox_count of them); returns
 * how many. */
size_t outbox_count(const struct outbox *outbox);
size_t outbox_ids(const struct outbox *outbox, int64_t *ids);

#endif
