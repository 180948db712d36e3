/* leader.c: see leader.h. */
#include "jobqd/actors/leader.h"

#include <stdlib.h>

#include "jobqd/actors/rounds.h"
#include "jobqd/base/clock.h"
#include "jobqd/base/log.h"

/* Of the node's lease: how long the lead lasts without a renewal, and how often it is
 * renewed, or tried for. Together less than one: so soon another node leads,
 * however it was lost. */
enum { LASTS_PERCENT = 66, TRY_PERCENT = 25 };

enum leader_state {
    LEADER_OFF,       /* not a candidate */
    LEADER_CANDIDATE, /* waits for the lead to be free */
    LEADER_LEADS      /* renews it */
};

struct leader {
    struct leader_options options;
    enum leader_state state;
    struct rounds rounds; /* of tries */
    int64_t node;
    int64_t asked_as; /* the node that the try under way is for */
    bool able;        /* what a leader does can be done from here */
    uint64_t sent_ns; /* when the last try was sent */
    uint64_t ends_ns; /* when the lead ends unless renewed */
};

static int64_t
percent(const struct leader *leader, int64_t n)
{
    return leader->options.lease_ms * n / 100;
}

static void
change(struct leader *leader, enum leader_state state)
{
    if (leader->state == state)
        return;
    leader->state = state;
    log_info("leader", state == LEADER_LEADS ? "this node is now the leader"
                                             : "this node is no longer the leader");
    leader->options.on_change(leader->options.owner, state == LEADER_LEADS);
}

/* Without a renewal, somebody else may have the lead after that. */
static void
let_it_end(struct leader *leader)
{
    if (leader->state == LEADER_LEADS && clock_ns() >= leader->ends_ns)
        change(leader, LEADER_CANDIDATE);
}

static void
on_answer(void *data, const struct store_answer *answer)
{
    struct leader *leader = data;
    if (!rounds_take(&leader->rounds))
        return;
    if (leader->asked_as != leader->node) {
        rounds_sleep(&leader->rounds, 0);
        return;
    }
    int64_t took_ms = (int64_t)((clock_ns() - leader->sent_ns) / 1000000u);
    int64_t pause_ms = percent(leader, TRY_PERCENT) - took_ms; /* from the sending on */
    rounds_answered(&leader->rounds, pause_ms > 0 ? pause_ms : 0);
    if (answer->code == 0) {
        if (answer->rows > 0)
            leader->ends_ns =
                leader->sent_ns + (uint64_t)percent(leader, LASTS_PERCENT) * 1000000u;
        change(leader, answer->rows > 0 ? LEADER_LEADS : LEADER_CANDIDATE);
        return;
    }
    if (answer->code != JOBQ_ECONN)
        log_warning("leader", "could not take or renew the lead: %s",
                    answer->error->message);
    let_it_end(leader);
}

static bool
try_to_lead(void *owner)
{
    struct leader *leader = owner;
    if (leader->options.always)
        change(leader, LEADER_LEADS);
    else if (!leader->able)
        let_it_end(leader);
    if (leader->options.always || !leader->able)
        return false;
    leader->sent_ns = clock_ns();
    leader->asked_as = leader->node;
    return store_lead(leader->options.store, leader->node, percent(leader, LASTS_PERCENT),
                      on_answer, leader) == 0;
}

int
leader_new(struct leader **out, const struct leader_options *options)
{
    struct leader *leader = calloc(1, sizeof *leader);
    if (!leader)
        return JOBQ_ENOMEM;
    leader->options = *options;
    rounds_init(&leader->rounds,
                &(struct rounds_options){.loop = options->loop,
                                         .ask = try_to_lead,
                                         .owner = leader,
                                         .idle_ms = percent(leader, TRY_PERCENT)});
    *out = leader;
    return 0;
}

void
leader_start(struct leader *leader, int64_t node)
{
    leader->node = node;
    leader->state = LEADER_CANDIDATE;
    rounds_start(&leader->rounds);
    rounds_poke(&leader->rounds);
}

void
leader_stop(struct leader *leader)
{
    leader->state = LEADER_OFF;
    rounds_stop(&leader->rounds);
}

void
leader_set_able(struct leader *leader, bool able)
{
    leader->able = able;
    if (able)
        leader_poke(leader);
}

void
leader_poke(struct leader *leader)
{
    if (leader->state == LEADER_CANDIDATE)
        rounds_poke(&leader->rounds);
}

bool
leader_leads(const struct leader *leader)
{
    return leader->state == LEADER_LEADS;
}

static void
on_closed(void *owner)
{
    free(owner);
}

void
leader_close(struct leader *leader)
{
    rounds_close(&leader->rounds, on_closed);
}
