/* board.c: see board.h. An open-addressed table of indexes beside the notes. */
#include "jobqd/pure/board.h"

#include <stdlib.h>
#include <string.h>

#include "libjobq/utf8.h"

enum { PLACES = 2 * BOARD_MOST }; /* a power of two */

void
board_clear(struct board *board)
{
    board->n = 0;
    if (board->places)
        memset(board->places, 0, PLACES * sizeof board->places[0]);
}

void
board_free(struct board *board)
{
    free(board->notes);
    free(board->places);
    memset(board, 0, sizeof *board);
}

static bool
reserve(struct board *board)
{
    if (!board->notes)
        board->notes = malloc(BOARD_MOST * sizeof board->notes[0]);
    if (!board->places)
        board->places = calloc(PLACES, sizeof board->places[0]);
    return board->notes && board->places;
}

/* The place of the id, or the free one where it belongs. */
static uint16_t *
find(struct board *board, int64_t id)
{
    size_t at = (size_t)((uint64_t)id * UINT64_C(0x9E3779B97F4A7C15) >> 32) % PLACES;
    while (board->places[at] != 0 && board->notes[board->places[at] - 1].id != id)
        at = (at + 1) % PLACES;
    return &board->places[at];
}

/* As many whole characters as there is room for. */
static void
put_text(struct board_note *note, const char *text)
{
    size_t len = text ? strlen(text) : 0, keep = 0;
    note->has_text = text != NULL;
    while (keep < len) {
        size_t n = jobq__utf8_len((const unsigned char *)text + keep, len - keep);
        if (n == 0 || keep + n >= BOARD_TEXT)
            break;
        keep += n;
    }
    if (keep > 0)
        memcpy(note->text, text, keep);
    note->text[keep] = '\0';
}

bool
board_put(struct board *board, int64_t id, int32_t attempt, double done, const char *text)
{
    if (!reserve(board))
        return false;
    uint16_t *place = find(board, id);
    if (*place == 0) {
        if (board->n == BOARD_MOST)
            return false;
        *place = (uint16_t)++board->n;
    }
    struct board_note *note = &board->notes[*place - 1];
    note->id = id;
    note->attempt = attempt;
    note->millionths = (int32_t)(done * 1e6 + 0.5);
    put_text(note, text);
    return true;
}
