/* repeats.c: see repeats.h. */
#include "jobqd/pure/repeats.h"

#include <string.h>

static bool
is_word(char c)
{
    return (c >= '0' && c <= '9') || (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') ||
           (unsigned char)c >= 0x80;
}

/* The text with '#' for each word that has a digit; never empty. */
static void
make_key(const char *text, char key[REPEATS_KEY])
{
    size_t len = 0;
    key[len++] = ':';
    while (*text && len + 1 < REPEATS_KEY) {
        size_t word = 0;
        bool digit = false;
        for (; is_word(text[word]); word++)
            digit = digit || (text[word] >= '0' && text[word] <= '9');
        if (word == 0) {
            key[len++] = *text++;
            continue;
        }
        if (digit)
            key[len++] = '#';
        else
            for (size_t i = 0; i < word && len + 1 < REPEATS_KEY; i++)
                key[len++] = text[i];
        text += word;
    }
    key[len] = '\0';
}

bool
repeats_note(struct repeats *repeats, const char *text, uint64_t now_ms, size_t *entry)
{
    char key[REPEATS_KEY];
    struct repeats_entry *free_one = NULL;
    make_key(text, key);
    for (size_t i = 0; i < REPEATS_KEYS; i++) {
        struct repeats_entry *at = &repeats->entries[i];
        if (at->key[0] == '\0') {
            free_one = free_one ? free_one : at;
        } else if (strcmp(at->key, key) == 0) {
            *entry = i;
            if (at->shown < REPEATS_SHOWN) {
                at->shown++;
                return true;
            }
            at->hidden++;
            return false;
        }
    }
    if (!free_one) {
        if (repeats->rest.hidden++ == 0) {
            repeats->rest.since_ms = now_ms;
            repeats->rest.due_ms = now_ms + REPEATS_FIRST_MS;
        }
        *entry = REPEATS_KEYS;
        return false;
    }
    memcpy(free_one->key, key, sizeof key);
    free_one->shown = 1;
    free_one->hidden = 0;
    free_one->since_ms = now_ms;
    free_one->due_ms = now_ms + REPEATS_FIRST_MS;
    *entry = (size_t)(free_one - repeats->entries);
    return true;
}

bool
repeats_due(struct repeats *repeats, uint64_t now_ms, bool all, struct repeats_count *out)
{
    for (size_t i = 0; i <= REPEATS_KEYS; i++) {
        bool rest = i == REPEATS_KEYS;
        struct repeats_entry *at = rest ? &repeats->rest : &repeats->entries[i];
        if (rest ? at->hidden == 0 : at->key[0] == '\0')
            continue;
        if (!all && now_ms < at->due_ms)
            continue;
        *out = (struct repeats_count){
            .entry = i, .n = at->hidden, .within_ms = now_ms - at->since_ms};
        if (at->hidden == 0 || rest) /* it has stopped */
            memset(at, 0, sizeof *at);
        at->hidden = 0;
        at->since_ms = now_ms;
        at->due_ms = now_ms + REPEATS_NEXT_MS;
        if (out->n > 0)
            return true;
    }
    return false;
}

uint64_t
repeats_due_ms(const struct repeats *repeats)
{
    uint64_t due = repeats->rest.hidden > 0 ? repeats->rest.due_ms : UINT64_MAX;
    for (size_t i = 0; i < REPEATS_KEYS; i++)
        if (repeats->entries[i].key[0] != '\0' && repeats->entries[i].due_ms < due)
            due = repeats->entries[i].due_ms;
    return due;
}
