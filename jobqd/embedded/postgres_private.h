/* postgres_private.h: what the files of the embedded database's actor share. Not for
 * anybody else.
 *
 * From the bottom: postgres_state.c: its states, its timer, giving up; postgres_probe.c:
 * whether the server answers; postgres.c: what it does in each state.
 */
#ifndef JOBQD_POSTGRES_PRIVATE_H
#define JOBQD_POSTGRES_PRIVATE_H

#include <sys/types.h>

#include "jobqd/db/pgconn.h"
#include "jobqd/embedded/postgres.h"
#include "jobqd/embedded/postgres_binaries.h"
#include "jobqd/embedded/postgres_child.h"
#include "jobqd/embedded/postgres_dir.h"

#define SUBJECT "postgres"
#define LOOK_MS 20U    /* between looks at the processes and at postmaster.pid */
#define PROBE_MS 100U  /* between questions to a server in recovery */
#define TEND_MS 60000U /* between looks at the log's size */
#define NOTE_MS 5000U  /* between log lines of a long wait */
/* After this, backends without a postmaster are told to quit. */
#define OUST_ORPHANS_MS 3000
#define OUST_LIMIT_MS (5 * 60 * 1000)
/* A cluster that never came up is given up after this many. */
#define FIRST_START_TRIES 4
#define STEADY_MS 10000 /* up for so long: the back-off begins anew */
#define BACKOFF_BASE_MS 100U
#define BACKOFF_CAP_MS 30000U

struct embedded {
    uv_loop_t *loop;
    struct embedded_events events;
    void *owner;
    struct postgres_dir dir;
    struct postgres_binaries binaries;
    char **settings; /* NULL-terminated copies; NULL: none */
    bool for_command;
    enum embedded_state state;
    uint64_t since_ms;            /* when this state began, on the loop's clock */
    uint64_t noted_ms;            /* when a long wait was last logged */
    struct postgres_child *child; /* NULL: none runs */
    off_t log_from;               /* where the child's part of the log begins */
    struct pgconn *probe; /* asks for recovery, and for a checkpoint; NULL: closed */
    bool asking;          /* a question is under way */
    int failures;         /* starts and crashes in a row without a steady time */
    bool was_up;          /* at least once in this object's life */
    uv_timer_cb on_timer; /* postgres.c's */
    uv_timer_t timer;
    int closing; /* handles and connections whose close has not been confirmed */
};

/* ---- postgres_state.c ---- */

const char *embedded_meaning(enum embedded_state state);
void embedded_move(struct embedded *embedded, enum embedded_state to);
uint64_t embedded_waited_ms(const struct embedded *embedded);
/* True once every NOTE_MS of a long wait. */
bool embedded_is_time_to_note(struct embedded *embedded);
void embedded_wake_in(struct embedded *embedded, uint64_t delay_ms,
                      uint64_t then_every_ms);
void embedded_report_if_stopped(struct embedded *embedded);
void embedded_on_timer_closed(uv_handle_t *handle);
void embedded_close_probe(struct embedded *embedded);
void embedded_fail(struct embedded *embedded, const jobq_error *why);
void embedded_back_off(struct embedded *embedded);

/* ---- postgres_probe.c ---- */

void embedded_start_probing(struct embedded *embedded);
void embedded_probe_again(struct embedded *embedded);

/* ---- postgres.c ---- */

#endif
