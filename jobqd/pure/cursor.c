/* cursor.c: see cursor.h for the argument why a job is never left behind. */
#include "jobqd/pure/cursor.h"

#include <assert.h>
#include <string.h>

void
cursor_init(struct cursor *cursor, bool unsafe)
{
    memset(cursor, 0, sizeof *cursor);
    cursor->unsafe = unsafe;
}

/* Drops the notes that have become safe and remembers the last of them. */
static void
settle_notes(struct cursor *cursor, int64_t oldest)
{
    size_t done = 0;
    while (done < cursor->n_notes && cursor->notes[done].upto <= oldest)
        done++;
    if (done == 0)
        return;
    cursor->safe = cursor->notes[done - 1].position;
    cursor->n_notes -= done;
    memmove(cursor->notes, cursor->notes + done,
            cursor->n_notes * sizeof cursor->notes[0]);
}

void
cursor_noted(struct cursor *cursor, int64_t position, int64_t upto, int64_t oldest)
{
    if (position < cursor->noted) {
        cursor_init(cursor, cursor->unsafe);
        return;
    }
    /* First the old notes: the new one's own transaction is still running in its
     * snapshot's eyes. */
    settle_notes(cursor, oldest);
    if (upto <= 0)
        return;
    cursor->noted = position;
    if (cursor->unsafe) {
        cursor->safe = position;
        return;
    }
    if (cursor->n_notes == CURSOR_NOTES)
        cursor->n_notes--;
    cursor->notes[cursor->n_notes++] =
        (struct cursor_note){.position = position, .upto = upto};
}

/* The position after which a claim finds that one. */
static int64_t
before(int64_t position)
{
    return position > INT64_MIN ? position - 1 : position;
}

bool
cursor_looked(struct cursor *cursor, const int64_t first[CURSOR_PRIORITIES])
{
    bool found = false;
    for (size_t p = 0; p < CURSOR_PRIORITIES; p++) {
        int64_t clear = cursor->safe;
        if (first[p] != 0) {
            found = true;
            int64_t ahead = before(first[p]);
            if (ahead < clear)
                clear = ahead;
            if (ahead < cursor->base[p])
                cursor->base[p] = ahead;
            if (ahead < cursor->after[p])
                cursor->after[p] = ahead;
        }
        if (clear > cursor->base[p])
            cursor->base[p] = clear;
        if (cursor->after[p] < cursor->base[p])
            cursor->after[p] = cursor->base[p];
    }
    return found;
}

bool
cursor_is_behind(const struct cursor *cursor, const int64_t sent[CURSOR_PRIORITIES])
{
    for (size_t p = 0; p < CURSOR_PRIORITIES; p++)
        if (cursor->after[p] < sent[p])
            return true;
    return false;
}

void
cursor_claimed(struct cursor *cursor, const int64_t sent[CURSOR_PRIORITIES], int priority,
               int64_t position)
{
    assert(priority >= 0 && priority < CURSOR_PRIORITIES);
    size_t p = (size_t)priority;
    bool moved_back = cursor->after[p] < sent[p];
    if (!moved_back && position > cursor->after[p])
        cursor->after[p] = position;
}
