/* ageing.c: see ageing.h. */
#include "jobqd/pure/ageing.h"

#include <string.h>

void
ageing_init(struct ageing *ageing, int64_t step_ms)
{
    memset(ageing, 0, sizeof *ageing);
    ageing->step_ms = step_ms;
}

/* Rounded down, also before the clock's beginning. */
static int64_t
step_of(const struct ageing *ageing, int64_t ms)
{
    int64_t step = ms / ageing->step_ms;
    return step * ageing->step_ms > ms ? step - 1 : step;
}

/* Every second one of the older half goes: what lies behind it counts as older then, by
 * less than half of its age. */
static void
thin_out(struct ageing *ageing)
{
    size_t kept = 0;
    for (size_t i = 0; i < ageing->n; i++)
        if (i >= ageing->n / 2 || i % 2 == 0)
            ageing->samples[kept++] = ageing->samples[i];
    ageing->n = kept;
}

static void
add(struct ageing *ageing, int64_t step, int64_t position)
{
    struct ageing_sample *last = ageing->n > 0 ? &ageing->samples[ageing->n - 1] : NULL;
    if (last && step <= last->step)
        return;
    if (last && position == last->position) {
        last->step = step; /* nobody came in between */
        return;
    }
    if (ageing->n == AGEING_SAMPLES)
        thin_out(ageing);
    ageing->samples[ageing->n++] =
        (struct ageing_sample){.step = step, .position = position};
}

void
ageing_note(struct ageing *ageing, int64_t now_ms, int64_t position)
{
    if (ageing->step_ms <= 0)
        return;
    if (ageing->n > 0 && position < ageing->samples[ageing->n - 1].position)
        ageing->n = 0;
    add(ageing, step_of(ageing, now_ms), position);
}

void
ageing_recall(struct ageing *ageing, int64_t now_ms, const struct ageing_head *heads,
              size_t n)
{
    struct ageing known = *ageing;
    if (ageing->step_ms <= 0)
        return;
    ageing->n = 0;
    for (size_t i = 0; i < n; i++) {
        int64_t before = heads[i].position - 1;
        if (known.n > 0 && before >= known.samples[0].position)
            break;
        add(ageing, step_of(ageing, now_ms - heads[i].age_ms), before);
    }
    for (size_t i = 0; i < known.n; i++)
        add(ageing, known.samples[i].step, known.samples[i].position);
}

/* ---- the walk ---- */

/* A line's next segment is the one of this sample; the first one has all before it, too.
 */
static int64_t
upto_of(const struct ageing *ageing, size_t sample)
{
    return sample + 1 < ageing->n ? ageing->samples[sample + 1].position : INT64_MAX;
}

static size_t
last_sample(const struct ageing *ageing)
{
    return ageing->n > 0 ? ageing->n - 1 : 0;
}

struct walk {
    const struct ageing *ageing;
    size_t sample[CURSOR_PRIORITIES]; /* beyond last_sample: the line is done */
    int64_t after[CURSOR_PRIORITIES];
    struct segment *out;
    size_t n;
};

/* The line whose next segment has the smallest rank; negative: all are done. */
static int
next_line(const struct walk *walk)
{
    int best = -1;
    int64_t best_rank = 0;
    for (int p = 0; p < CURSOR_PRIORITIES; p++) {
        if (walk->sample[p] > last_sample(walk->ageing))
            continue;
        int64_t rank = walk->ageing->samples[walk->sample[p]].step + p;
        if (best < 0 || rank < best_rank) {
            best = p;
            best_rank = rank;
        }
    }
    return best;
}

/* The line's part up to there is next. */
static void
put(struct walk *walk, int p, int64_t upto)
{
    struct segment *last = walk->n > 0 ? &walk->out[walk->n - 1] : NULL;
    if (last && last->priority == p)
        last->upto = upto;
    else
        walk->out[walk->n++] =
            (struct segment){.priority = p, .after = walk->after[p], .upto = upto};
    walk->after[p] = upto;
}

size_t
ageing_segments(const struct ageing *ageing, const int64_t after[CURSOR_PRIORITIES],
                struct segment out[AGEING_SEGMENTS])
{
    struct walk walk = {.ageing = ageing, .out = out};
    for (int p = 0; p < CURSOR_PRIORITIES; p++) {
        walk.after[p] = after[p];
        while (upto_of(ageing, walk.sample[p]) <= after[p])
            walk.sample[p]++;
    }
    int p;
    while (walk.n < AGEING_SEGMENTS - CURSOR_PRIORITIES && (p = next_line(&walk)) >= 0) {
        put(&walk, p, upto_of(ageing, walk.sample[p]));
        walk.sample[p]++;
    }
    for (p = 0; p < CURSOR_PRIORITIES; p++) /* so far behind is not looked at now */
        if (walk.sample[p] <= last_sample(ageing))
            put(&walk, p, INT64_MAX);
    return walk.n;
}
