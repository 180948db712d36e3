/* json.h (internal): strict JSON, skimmed. Text is checked and found, never turned into a
 * tree: a job's numbers are the user's bytes, and must not pass through a double.
 *
 * Strict is RFC 8259 plus what jsonb can hold, since all of it ends there: no \u0000, no
 * lone surrogate, no number beyond numeric's range, at most JOBQ__JSON_MAX_DEPTH levels.
 * Allocates nothing.
 */
#ifndef JOBQ__JSON_H
#define JOBQ__JSON_H

#include <jobq/error.h>
#include <stdbool.h>
#include <stddef.h>

#include "libjobq/buf.h"

#define JOBQ__JSON_MAX_DEPTH 128

/* A place in a text, and what is wrong there. */
struct jobq__json {
    const char *text;  /* where the text begins */
    const char *at;    /* the next byte */
    const char *end;   /* behind the last byte */
    const char *fault; /* what was expected at `at`, such as "a value"; NULL: nothing is
                          wrong so far */
    unsigned depth;    /* levels that are open */
    bool text_only;    /* \u0000 is let through: for strings that become text of ours */
};

/* Each returns false and sets fault when the text is wrong. */
void jobq__json_skip_space(struct jobq__json *json);
/* One value of any type, from its first byte to behind its last. */
bool jobq__json_skip_value(struct jobq__json *json);
/* A string, from its opening quote to behind its closing one; *escaped: it holds escapes.
 */
bool jobq__json_skip_string(struct jobq__json *json, bool *escaped);

/* Decodes the inside of a checked string (without quotes) in place and returns its new
 * length; \u0000 becomes U+FFFD. */
size_t jobq__json_decode(char *text, size_t len);

/* Fills in err from json->fault: "expected X at byte N, found Y". Returns code. what
 * names the text, such as "args". */
int jobq__json_error(const struct jobq__json *json, jobq_error *err, int code,
                     const char *what);

/* Checks that text is exactly one JSON value. JOBQ_EINVAL with a message that begins with
 * what and says what was expected, where, and what was found. */
int jobq__json_check(const char *text, size_t len, const char *what, jobq_error *err);
/* The same, and the value must be an object. */
int jobq__json_check_object(const char *text, size_t len, const char *what,
                            jobq_error *err);

/* Appends a checked text without the white space between its tokens, every other byte as
 * it is. A frame is one line, so newlines must go. */
void jobq__json_compact(struct jobq__buf *buf, const char *text, size_t len);

#endif
