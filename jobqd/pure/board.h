/* board.h: what running attempts have said last of how far they are, one note an attempt,
 * until it is written down. A worker may say so thousands of times a second; what counts
 * is the newest.
 *
 * Bounded: a full board takes no further attempt until it is cleared; those that are on
 * it go on being renewed. It takes no memory before the first note.
 */
#ifndef JOBQD_BOARD_H
#define JOBQD_BOARD_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum { BOARD_MOST = 4096, BOARD_TEXT = 256 };

struct board_note {
    int64_t id;
    int32_t attempt;
    int32_t millionths; /* done */
    bool has_text;
    char text[BOARD_TEXT]; /* UTF-8, cut at the end of a character */
};

struct board {
    struct board_note *notes; /* the first n */
    size_t n;
    uint16_t *places; /* by the id's hash: an index of notes, plus one; 0: free */
};

void board_clear(struct board *board); /* no notes; keeps its memory */
void board_free(struct board *board);
/* done: 0 to 1; text: UTF-8, or NULL. False: there is no room, or no memory. */
bool board_put(struct board *board, int64_t id, int32_t attempt, double done,
               const char *text);

#endif
