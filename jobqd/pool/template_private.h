/* template_private.h: what the files of a template share. Not for anybody else.
 *
 * From the bottom: template_state.c: its states; template_says.c: requests, and what it
 * says; template.c: its beginning and its end.
 */
#ifndef JOBQD_TEMPLATE_PRIVATE_H
#define JOBQD_TEMPLATE_PRIVATE_H

#include "jobqd/pool/launch.h"
#include "jobqd/pool/template.h"
#include "jobqd/pool/worker.h"
#include "jobqd/proc/birth.h"
#include "jobqd/proc/channel.h"
#include "jobqd/proc/output.h"
#include "jobqd/pure/outcome.h"
#include "libjobq/wire.h"

enum template_wanted { WANTED_OPEN, WANTED_CLOSED, WANTED_KILLED };

struct template
{
    enum template_state state; /* changed by set_state alone */
    enum template_wanted wanted;
    char subject[192]; /* for the log: "template QUEUE pid P" */
    struct worker_program *program;
    const struct template_events *events;
    void *owner;

    struct list waiting;            /* requests, oldest first */
    bool asking;                    /* a request was sent and has no answer yet */
    struct template_request *asked; /* whose; NULL: it was forgotten */
    struct birth birth;             /* its descriptors */
    int64_t serial;                 /* its id */

    struct child child; /* the process, in the states from BOOTING to KILLING */
    struct watched watched;
    enum intent intent;
    int sent_signal;
    bool said_hello;
    char complaint[256]; /* how it broke the protocol, or "" */
    uint64_t entered_ns; /* when the state was entered */

    struct output_rate rate;
    struct output output;
    struct channel channel;
    uv_poll_t exit_poll;
    int n_process_handles; /* of the three above, not yet closed */

    uv_timer_cb on_timer; /* template.c's */
    uv_timer_t timer;     /* a state's patience; READY: the next step */
};

/* ---- template_state.c ---- */

void template_set_state(struct template *template, enum template_state state);
void template_kill_process(struct template *template, enum intent intent);
int64_t template_memory_limit_kb(const struct template *template);
/* It gets no control group: the workers would begin in it, and what they share with it
 * stay charged to it. */
void template_begin_watch(struct template *template);
/* It does not do what a template does. Returns false, for template_on_line to return. */
bool __attribute__((format(printf, 2, 3)))
template_complain(struct template *template, const char *format, ...);

/* ---- template_says.c ---- */

void template_step(struct template *template);
/* Nobody is to come from this process any more. The first one carries the blame, so that
 * one end of a template counts once. */
void template_disappoint(struct template *template, const char *why, bool bad);
bool template_on_line(void *owner, char *line, size_t len);
void template_on_lines_end(void *owner);
void template_on_channel_end(void *owner);
void template_on_output_line(void *owner, const char *line);
void template_on_output_dropped(void *owner, uint64_t lines);

/* ---- template.c ---- */

#endif
