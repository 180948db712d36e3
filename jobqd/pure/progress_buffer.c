/* progress_buffer.c: see progress_buffer.h. An open-addressed table of indexes beside the notes. */
#include "jobqd/pure/progress_buffer.h"

#include <stdlib.h>
#include <string.h>

#include "libjobq/utf8.h"

enum { PLACES = 2 * PROGRESS_BUFFER_MAX }; /* a power of two */

void
progress_buffer_clear(struct progress_buffer *buffer)
{
    buffer->n = 0;
    if (buffer->places)
        memset(buffer->places, 0, PLACES * sizeof buffer->places[0]);
}

void
progress_buffer_free(struct progress_buffer *buffer)
{
    free(buffer->notes);
    free(buffer->places);
    memset(buffer, 0, sizeof *buffer);
}

static bool
reserve(struct progress_buffer *buffer)
{
    if (!buffer->notes)
        buffer->notes = malloc(PROGRESS_BUFFER_MAX * sizeof buffer->notes[0]);
    if (!buffer->places)
        buffer->places = calloc(PLACES, sizeof buffer->places[0]);
    return buffer->notes && buffer->places;
}

/* The place of the id, or the free one where it belongs. */
static uint16_t *
find(struct progress_buffer *buffer, int64_t id)
{
    size_t at = (size_t)((uint64_t)id * UINT64_C(0x9E3779B97F4A7C15) >> 32) % PLACES;
    while (buffer->places[at] != 0 && buffer->notes[buffer->places[at] - 1].id != id)
        at = (at + 1) % PLACES;
    return &buffer->places[at];
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
progress_buffer_put(struct progress_buffer *buffer, int64_t id, int32_t attempt,
                    double done, const char *text)
{
    if (!reserve(buffer))
        return false;
    uint16_t *place = find(buffer, id);
    if (*place == 0) {
        if (buffer->n == PROGRESS_BUFFER_MAX)
            return false;
        *place = (uint16_t)++buffer->n;
    }
    struct progress_buffer_note *note = &buffer->notes[*place - 1];
    note->id = id;
    note->attempt = attempt;
    note->millionths = (int32_t)(done * 1e6 + 0.5);
    put_text(note, text);
    return true;
}
