/* nearest.c: see nearest.h. */
#include "jobqd/pure/nearest.h"

#include <ctype.h>
#include <stdbool.h>
#include <string.h>

static int
letter(char c)
{
    return c == '-' ? '_' : tolower((unsigned char)c);
}

static size_t
least(size_t a, size_t b)
{
    return a < b ? a : b;
}

/* Optimal string alignment: three rows of its table are enough. */
size_t
nearest_distance(const char *a, const char *b)
{
    size_t rows[3][NEAREST_MAX + 1];
    size_t *before = rows[0], *above = rows[1], *row = rows[2];
    size_t a_len = strnlen(a, NEAREST_MAX), b_len = strnlen(b, NEAREST_MAX);
    for (size_t j = 0; j <= b_len; j++)
        above[j] = j;
    for (size_t i = 1; i <= a_len; i++) {
        row[0] = i;
        for (size_t j = 1; j <= b_len; j++) {
            int x = letter(a[i - 1]), y = letter(b[j - 1]);
            row[j] = least(least(above[j], row[j - 1]) + 1, above[j - 1] + (x != y));
            bool swapped =
                i > 1 && j > 1 && x == letter(b[j - 2]) && y == letter(a[i - 2]);
            if (swapped)
                row[j] = least(row[j], before[j - 2] + 1);
        }
        size_t *free_row = before;
        before = above;
        above = row;
        row = free_row;
    }
    return above[b_len];
}

void
nearest_begin(struct nearest *nearest, const char *word)
{
    *nearest = (struct nearest){.word = word};
}

/* A beginning of three letters or more counts as near, as does a slip in each three
 * letters. */
void
nearest_offer(struct nearest *nearest, const char *allowed)
{
    size_t len = strlen(nearest->word);
    size_t distance = nearest_distance(nearest->word, allowed);
    if (len >= 3 && strlen(allowed) > len) {
        size_t same = 0;
        while (same < len && letter(nearest->word[same]) == letter(allowed[same]))
            same++;
        distance = same == len ? 1 : distance;
    }
    size_t most = least(1 + len / 4, 3);
    if (distance <= most && distance < len &&
        (!nearest->best || distance < nearest->distance)) {
        nearest->best = allowed;
        nearest->distance = distance;
    }
}
