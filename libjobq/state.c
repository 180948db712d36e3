/* state.c: see state.h. */
#include "libjobq/state.h"

#include <string.h>

static const struct {
    const char *label;
    bool live;
} states[] = {
#define X(name, label, meaning, live) {label, live},
    JOBQ__STATES(X)
#undef X
};

const char *
jobq__state_label(enum jobq__state state)
{
    return states[state].label;
}

const char *
jobq__state_find(const char *text, unsigned long len)
{
    for (unsigned i = 0; i < JOBQ__STATE_COUNT; i++)
        if (strlen(states[i].label) == len && memcmp(states[i].label, text, len) == 0)
            return states[i].label;
    return NULL;
}

bool
jobq__state_is_live(enum jobq__state state)
{
    return states[state].live;
}
