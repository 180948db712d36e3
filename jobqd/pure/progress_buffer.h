/* progress_buffer.h: what running attempts have said last of how far they are, one note an attempt,
 * until it is written down. A worker may say so thousands of times a second; what counts
 * is the newest.
 *
 * Bounded: a full buffer takes no further attempt until it is cleared; those that are on
 * it go on being renewed. It takes no memory before the first note.
 */
#ifndef JOBQD_PROGRESS_BUFFER_H
#define JOBQD_PROGRESS_BUFFER_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum { PROGRESS_BUFFER_MAX = 4096, PROGRESS_BUFFER_TEXT = 256 };

struct progress_buffer_note {
    int64_t id;
    int32_t attempt;
    int32_t millionths; /* done */
    bool has_text;
    char text[PROGRESS_BUFFER_TEXT]; /* UTF-8, cut at the end of a character */
};

struct progress_buffer {
    struct progress_buffer_note *notes; /* the first n */
    size_t n;
    uint16_t *places; /* by the id's hash: an index of notes, plus one; 0: free */
};

void
progress_buffer_clear(struct progress_buffer *buffer); /* no notes; keeps its memory */
void progress_buffer_free(struct progress_buffer *buffer);
/* done: 0 to 1; text: UTF-8, or NULL. False: there is no room, or no memory. */
bool progress_buffer_put(struct progress_buffer *buffer, int64_t id, int32_t attempt,
                         double done, const char *text);

#endif
