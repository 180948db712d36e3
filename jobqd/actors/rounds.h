/* rounds.h: "ask the database, take its answer, sleep, ask again": the machine that the
 * housekeeping actors share. It knows neither what is asked nor what the answer says: the
 * actor sends the request in `ask`, and hands on what came of it.
 *
 *     OFF ─ start ─▶ SLEEPING ─ timer, poke ─▶ ASKING ─ poke ─▶ ASKED_AGAIN
 *                        ▲                        │                  │
 *                        └── answered, refused ───┴──────────────────┘
 *
 * One request is under way at a time. A poke that comes meanwhile is not lost: what is
 * under way may have been read before it. After a refusal the pause doubles, and pokes
 * wait for it. Stopped while a request is under way, it is off once the answer has come.
 */
#ifndef JOBQD_ROUNDS_H
#define JOBQD_ROUNDS_H

#include <stdbool.h>
#include <stdint.h>
#include <uv.h>

enum rounds_state {
    ROUNDS_OFF,        /* not started */
    ROUNDS_SLEEPING,   /* until its time, or a poke */
    ROUNDS_ASKING,     /* a request is under way */
    ROUNDS_ASKED_AGAIN /* the same, and a poke came: another follows at once */
};

/* Until a poke. */
enum { ROUNDS_NEVER = -1 };

struct rounds_options {
    uv_loop_t *loop;
    /* Sends the request. False: none was sent, since there was nothing to ask, or no
     * memory: the next try is in idle_ms. */
    bool (*ask)(void *owner);
    void *owner;
    int64_t idle_ms;        /* or ROUNDS_NEVER */
    int64_t retry_first_ms; /* the first pause after a refusal … */
    int64_t retry_most_ms;  /* … and the longest */
};

struct rounds {
    struct rounds_options options;
    enum rounds_state state;
    int64_t retry_ms; /* the pause that was made, or is; 0: the last answer was good */
    bool stopped;     /* while a request is under way: do not go on after it */
    uv_timer_t timer;
    void (*on_closed)(void *owner);
};

void rounds_init(struct rounds *rounds, const struct rounds_options *options);
/* Asks before the loop waits again. What it had to wait for before is forgotten. */
void rounds_start(struct rounds *rounds);
void rounds_stop(struct rounds *rounds);
/* There may be something new. */
void rounds_poke(struct rounds *rounds);
/* The same, and a pause after a refusal ends. */
void rounds_poke_now(struct rounds *rounds);

/* First of all in the request's callback. False: it was stopped meanwhile, and the answer
 * does not count. True: one of the three below follows. */
bool rounds_take(struct rounds *rounds);
/* The answer is good: the next round in `ms` (ROUNDS_NEVER: when poked), or at once if a
 * poke came meanwhile. */
void rounds_answered(struct rounds *rounds, int64_t ms);
/* There is no answer, and nothing is known to be wrong: the next round in `ms`, or at once
 * if a poke came meanwhile: the connection may be back since. */
void rounds_sleep(struct rounds *rounds, int64_t ms);
/* The database refused: backs off. Returns the pause in ms, for the log. */
int64_t rounds_refused(struct rounds *rounds);

/* on_closed may free the memory that it lies in. */
void rounds_close(struct rounds *rounds, void (*on_closed)(void *owner));

#endif
