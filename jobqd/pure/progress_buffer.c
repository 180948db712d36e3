/* progress_buffer.c: see progress_buffer.h. An open-addressed table of indexes beside the notes. */
#include "jobqd/pure/progress_buffer.h"

#include <stdlib.h>
#include <string.h>

#include "libjobq/utf8.h"

enum { PLACES = 2 * PROGRESS_BUFFER_MAX }; /* a power of two */

void
progress_buffer_clear(struct progress_buffer *progress_buffer)
{
    progress_buffer->n = 0;
    if (progress_buffer->places)
        memset(progress_buffer->places, 0, PLACES * sizeof progress_buffer->places[0]);
}

void
progress_buffer_free(struct progress_buffer *progress_buffer)
{
    free(progress_buffer->notes);
    free(progress_buffer->places);
    memset(progress_buffer, 0, sizeof *progress_buffer);
}

static bool
reserve(struct progress_buffer *progress_buffer)
{
    if (!progress_buffer->notes)
        progress_buffer->notes =
            malloc(PROGRESS_BUFFER_MAX * sizeof progress_buffer->notes[0]);
    if (!progress_buffer->places)
        progress_buffer->places = calloc(PLACES, sizeof progress_buffer->places[0]);
    return progress_buffer->notes && progress_buffer->places;
}

/* The place of the id, or the free one where it belongs. */
static uint16_t *
find(struct progress_buffer *progress_buffer, int64_t id)
{
    size_t at = (size_t)((uint64_t)id * UINT64_C(0x9E3779B97F4A7C15) >> 32) % PLACES;
    while (progress_buffer->places[at] != 0 &&
           progress_buffer->notes[progress_buffer->places[at] - 1].id != id)
        at = (at + 1) % PLACES;
    return &progress_buffer->places[at];
}

/* As many whole characters as there is room for. */
static void
put_text(struct progress_buffer_note *note, const char *text)
{
    size_t len = text ? strlen(text) : 0, keep = 0;
    note->has_text = text != NULL;
    while (keep < len) {
        size_t n = jobq__utf8_len((const unsigned char *)text + keep, len - keep);
        if (n == 0 || keep + n >= PROGRESS_BUFFER_TEXT)
            break;
        keep += n;
    }
    if (keep > 0)
        memcpy(note->text, text, keep);
    note->text[keep] = '\0';
}

bool
progress_buffer_put(struct progress_buffer *progress_buffer, int64_t id, int32_t attempt,
                    double done, const char *text)
{
    if (!reserve(progress_buffer))
        return false;
    uint16_t *place = find(progress_buffer, id);
    if (*place == 0) {
        if (progress_buffer->n == PROGRESS_BUFFER_MAX)
            return false;
        *place = (uint16_t)++progress_buffer->n;
    }
    struct progress_buffer_note *note = &progress_buffer->notes[*place - 1];
    note->id = id;
    note->attempt = attempt;
    note->millionths = (int32_t)(done * 1e6 + 0.5);
    put_text(note, text);
    return true;
}
