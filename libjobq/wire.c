/* wire.c: reads and writes the frames of the worker protocol. A line is skimmed once: the
 * place of each known member is noted, then the frame's type says which of them count and
 * what they must be. Knows no sockets, allocates nothing while parsing. */
#include "libjobq/wire.h"

#include <stdio.h>
#include <string.h>

#include "libjobq/error.h"
#include "libjobq/json.h"

/* The members that the protocol knows. X(enumerator, name, is it text of ours: then
 * \u0000 is let through and decoded to U+FFFD) */
#define MEMBERS(X)                                                                       \
    X(M_T, "t", true)                                                                    \
    X(M_ID, "id", false)                                                                 \
    X(M_ATTEMPT, "attempt", false)                                                       \
    X(M_MAX_ATTEMPTS, "max_attempts", false)                                             \
    X(M_QUEUE, "queue", true)                                                            \
    X(M_KIND, "kind", true)                                                              \
    X(M_ARGS, "args", false)                                                             \
    X(M_META, "meta", false)                                                             \
    X(M_TIMEOUT_MS, "timeout_ms", false)                                                 \
    X(M_RESULT, "result", false)                                                         \
    X(M_ERROR, "error", true)                                                            \
    X(M_DETAIL, "detail", true)                                                          \
    X(M_REASON, "reason", true)                                                          \
    X(M_NOTE, "note", true)                                                              \
    X(M_RETRY_IN_MS, "retry_in_ms", false)                                               \
    X(M_IN_MS, "in_ms", false)                                                           \
    X(M_DONE, "done", false)                                                             \
    X(M_PROTOCOL, "protocol", false)                                                     \
    X(M_KINDS, "kinds", true)                                                            \
    X(M_CONCURRENCY, "concurrency", false)                                               \
    X(M_FORKSERVER, "forkserver", false)                                                 \
    X(M_PID, "pid", false)                                                               \
    X(M_PARENT, "parent", false)

enum member {
#define X(name, wire, text) name,
    MEMBERS(X)
#undef X
        N_MEMBERS
};

static const struct {
    const char *name;
    size_t len;
    bool text;
} MEMBER[N_MEMBERS] = {
#define X(name, wire, text) {wire, sizeof wire - 1, text},
    MEMBERS(X)
#undef X
};

static const struct {
    const char *name;
    size_t len;
    unsigned what;
} TYPE[JOBQ__N_FRAMES] = {
#define X(name, wire, what) {wire, sizeof wire - 1, what},
    JOBQ__FRAMES(X)
#undef X
};

/* A line under way: where its members' values lie, raw. A member that is null counts as
 * absent, except args, meta and result, which are carried as they are. */
struct line {
    const char *text;
    char *writable;   /* the same, where it may be changed; NULL in a peek */
    const char *type; /* for messages; "" until it is known */
    struct jobq__span value[N_MEMBERS];
    jobq_error *err;
};

/* ---- finding the members ---- */

/* Looks from `first` on and around: our own writers keep the order of the list, so the
 * first look hits. */
static enum member
member_named(const char *name, size_t len, enum member first)
{
    enum member m = first;
    for (size_t i = 0; i < N_MEMBERS; i++) {
        if (MEMBER[m].len == len && memcmp(MEMBER[m].name, name, len) == 0)
            return m;
        m = m + 1 == N_MEMBERS ? 0 : m + 1;
    }
    return N_MEMBERS;
}

/* A name with its colon. Names are compared as they stand: nobody writes "id" as
 * "\u0069d". */
static bool
take_name(struct jobq__json *json, enum member *member)
{
    bool escaped;
    const char *start = json->at;
    if (!jobq__json_skip_string(json, &escaped))
        return false;
    *member = member_named(start + 1, (size_t)(json->at - start) - 2, *member);
    jobq__json_skip_space(json);
    if (json->at == json->end || *json->at != ':') {
        json->fault = "':' after the member's name";
        return false;
    }
    json->at++;
    jobq__json_skip_space(json);
    return true;
}

static bool
take_member(struct jobq__json *json, struct line *line, enum member *next)
{
    enum member member = *next;
    const char *name = json->at;
    if (!take_name(json, &member))
        return false;
    const char *start = json->at;
    json->text_only = member < N_MEMBERS && MEMBER[member].text;
    if (!jobq__json_skip_value(json))
        return false;
    json->text_only = false;
    if (member == N_MEMBERS)
        return true;
    if (line->value[member].at) {
        json->at = name;
        json->fault = "each member once";
        return false;
    }
    line->value[member] = (struct jobq__span){start, (size_t)(json->at - start)};
    *next = member + 1 == N_MEMBERS ? 0 : member + 1;
    return true;
}

static bool
take_object(struct jobq__json *json, struct line *line)
{
    jobq__json_skip_space(json);
    if (json->at == json->end || *json->at != '{') {
        json->fault = "an object";
        return false;
    }
    json->at++;
    jobq__json_skip_space(json);
    bool first = true;
    enum member next = M_T;
    while (json->at < json->end && *json->at != '}') {
        if (!first && *json->at != ',')
            break;
        json->at += !first;
        jobq__json_skip_space(json);
        if (!take_member(json, line, &next))
            return false;
        jobq__json_skip_space(json);
        first = false;
    }
    if (json->at == json->end || *json->at != '}') {
        json->fault = "',' or '}'";
        return false;
    }
    json->at++;
    jobq__json_skip_space(json);
    if (json->at < json->end)
        json->fault = "the end of the line";
    return !json->fault;
}

/* ---- what a member must be ---- */

/* A raw value that is there and not null. */
static bool
has(const struct line *line, enum member member)
{
    const struct jobq__span *value = &line->value[member];
    return value->at && !(value->len == 4 && *value->at == 'n');
}

static int
wrong(const struct line *line, enum member member, const char *must)
{
    const struct jobq__span *value = &line->value[member];
    if (!value->at)
        return jobq__error(line->err, JOBQ_EPROTO, "%s frame: \"%s\" is missing",
                           line->type, MEMBER[member].name);
    return jobq__error(line->err, JOBQ_EPROTO,
                       "%s frame: \"%s\" must be %s, got %.*s at byte %zu", line->type,
                       MEMBER[member].name, must, value->len > 60 ? 60 : (int)value->len,
                       value->at, (size_t)(value->at - line->text) + 1);
}

/* A whole number without fraction or exponent. */
static bool
as_i64(struct jobq__span raw, int64_t *out)
{
    bool negative = raw.len > 0 && *raw.at == '-';
    uint64_t value = 0;
    if (raw.len == negative)
        return false;
    for (size_t i = negative; i < raw.len; i++) {
        unsigned digit = (unsigned)(raw.at[i] - '0');
        if (digit > 9 || value > ((uint64_t)INT64_MAX - digit) / 10)
            return false;
        value = value * 10 + digit;
    }
    *out = negative ? -(int64_t)value : (int64_t)value;
    return true;
}

static int
take_i64(const struct line *line, enum member member, int64_t least, int64_t most,
         const char *must, int64_t *out)
{
    int64_t value;
    if (!line->value[member].at || !as_i64(line->value[member], &value) ||
        value < least || value > most)
        return wrong(line, member, must);
    *out = value;
    return JOBQ_OK;
}

static int
take_i32(const struct line *line, enum member member, int32_t *out)
{
    int64_t value = 0;
    int rc = take_i64(line, member, 1, INT32_MAX, "a whole number from 1 to 2147483647",
                      &value);
    if (rc == JOBQ_OK)
        *out = (int32_t)value;
    return rc;
}

static int
take_id(const struct line *line, int64_t *out)
{
    return take_i64(line, M_ID, 1, INT64_MAX,
                    "a whole number from 1 to 9223372036854775807", out);
}

/* A duration that may be absent or null: then it stays as it is. */
static int
take_ms(const struct line *line, enum member member, int64_t *out)
{
    if (!has(line, member))
        return JOBQ_OK;
    return take_i64(line, member, 0, INT64_MAX / 1000000,
                    "a whole number of milliseconds, 0 or more", out);
}

/* The decoded inside of a string value. Its bytes change, so each is taken once. */
static struct jobq__span
decoded(struct line *line, struct jobq__span raw)
{
    char *inside = line->writable + (raw.at - line->text) + 1;
    return (struct jobq__span){inside, jobq__json_decode(inside, raw.len - 2)};
}

static int
take_text(struct line *line, enum member member, bool required, struct jobq__span *out)
{
    if (!has(line, member) && !required)
        return JOBQ_OK;
    struct jobq__span raw = line->value[member];
    if (!raw.at || *raw.at != '"')
        return wrong(line, member, "a text");
    *out = decoded(line, raw);
    return JOBQ_OK;
}

/* A JSON number as a double: exact enough for a share of 1, and free of the locale. */
static double
as_double(struct jobq__span raw)
{
    double value = 0;
    int64_t scale = 0, exponent = 0;
    bool fraction = false;
    size_t i = *raw.at == '-';
    for (; i < raw.len && raw.at[i] != 'e' && raw.at[i] != 'E'; i++) {
        if (raw.at[i] == '.') {
            fraction = true;
            continue;
        }
        value = value * 10 + (raw.at[i] - '0');
        scale -= fraction;
    }
    if (i < raw.len) {
        size_t skip = raw.at[i + 1] == '+' ? 2 : 1;
        as_i64((struct jobq__span){raw.at + i + skip, raw.len - i - skip}, &exponent);
    }
    scale += exponent;
    for (; scale < 0 && value > 0; scale++)
        value /= 10;
    for (; scale > 0 && value > 0 && value < 1e9; scale--)
        value *= 10;
    return *raw.at == '-' ? -value : value;
}

static int
take_done(const struct line *line, double *out)
{
    struct jobq__span raw = line->value[M_DONE];
    if (!raw.at || !(*raw.at == '-' || (*raw.at >= '0' && *raw.at <= '9')))
        return wrong(line, M_DONE, "a number from 0 to 1");
    double value = as_double(raw);
    if (!(value >= 0 && value <= 1))
        return wrong(line, M_DONE, "a number from 0 to 1");
    *out = value;
    return JOBQ_OK;
}

/* The next element of a checked array; NULL at its end. rest begins behind the bracket or
 * an element, and advances behind the element. */
static const char *
next_element(struct jobq__json *json)
{
    jobq__json_skip_space(json);
    if (json->at < json->end && *json->at == ',')
        json->at++;
    jobq__json_skip_space(json);
    if (json->at == json->end || *json->at == ']')
        return NULL;
    const char *start = json->at;
    return jobq__json_skip_value(json) ? start : NULL;
}

static int
take_kinds(const struct line *line, struct jobq__span *out)
{
    const char *must = "an array of one or more texts";
    if (!has(line, M_KINDS))
        return JOBQ_OK;
    struct jobq__span raw = line->value[M_KINDS];
    if (*raw.at != '[')
        return wrong(line, M_KINDS, must);
    struct jobq__json json = {
        .text = raw.at, .at = raw.at + 1, .end = raw.at + raw.len, .text_only = true};
    size_t n = 0;
    for (const char *at; (at = next_element(&json)); n++)
        if (*at != '"' || json.at - at == 2)
            return wrong(line, M_KINDS, must);
    if (n == 0)
        return wrong(line, M_KINDS, must);
    *out = raw;
    return JOBQ_OK;
}

/* ---- what each type needs ---- */

static int
take_job(struct line *line, struct jobq__frame *out)
{
    int rc = take_id(line, &out->id);
    if (!rc)
        rc = take_i32(line, M_ATTEMPT, &out->attempt);
    if (!rc)
        rc = take_i32(line, M_MAX_ATTEMPTS, &out->max_attempts);
    if (!rc)
        rc = take_text(line, M_QUEUE, true, &out->queue);
    if (!rc)
        rc = take_text(line, M_KIND, true, &out->kind);
    if (!rc)
        rc = take_ms(line, M_TIMEOUT_MS, &out->timeout_ms);
    if (!rc && !line->value[M_ARGS].at)
        rc = wrong(line, M_ARGS, "");
    out->args = line->value[M_ARGS];
    out->meta = line->value[M_META];
    return rc;
}

static int
take_forkserver(const struct line *line, bool *out)
{
    if (!has(line, M_FORKSERVER))
        return JOBQ_OK;
    struct jobq__span raw = line->value[M_FORKSERVER];
    if (*raw.at != 't' && *raw.at != 'f')
        return wrong(line, M_FORKSERVER, "true or false");
    *out = *raw.at == 't';
    return JOBQ_OK;
}

static int
take_concurrency(const struct line *line, int32_t *out)
{
    int64_t value = 1;
    int rc = JOBQ_OK;
    if (has(line, M_CONCURRENCY))
        rc = take_i64(line, M_CONCURRENCY, 1, JOBQ__CONCURRENCY_MAX,
                      "a whole number from 1 to 1000", &value);
    *out = (int32_t)value;
    return rc;
}

static int
take_hello(struct line *line, struct jobq__frame *out)
{
    int64_t protocol = 0;
    int rc = take_i64(line, M_PROTOCOL, 1, INT32_MAX,
                      "a whole number from 1 to 2147483647", &protocol);
    if (rc)
        return rc;
    out->protocol = (int32_t)protocol;
    rc = take_forkserver(line, &out->forkserver);
    if (!rc)
        rc = take_concurrency(line, &out->concurrency);
    return rc ? rc : take_kinds(line, &out->kinds);
}

static int
take_pid(struct line *line, enum member member, struct jobq__frame *out)
{
    int rc = take_id(line, &out->id);
    return rc ? rc : take_i32(line, member, &out->pid);
}

static int
take_error(struct line *line, struct jobq__frame *out)
{
    int rc = take_id(line, &out->id);
    if (!rc)
        rc = take_text(line, M_ERROR, true, &out->error);
    if (!rc)
        rc = take_text(line, M_DETAIL, false, &out->detail);
    return rc ? rc : take_ms(line, M_RETRY_IN_MS, &out->delay_ms);
}

static int
take_nothing(struct line *line, struct jobq__frame *out)
{
    (void)line;
    (void)out;
    return JOBQ_OK;
}

static int
take_fork(struct line *line, struct jobq__frame *out)
{
    return take_pid(line, M_PARENT, out);
}

static int
take_forked(struct line *line, struct jobq__frame *out)
{
    return take_pid(line, M_PID, out);
}

static int
take_ok(struct line *line, struct jobq__frame *out)
{
    int rc = take_id(line, &out->id);
    if (!rc && has(line, M_RESULT))
        out->result = line->value[M_RESULT];
    /* Version 1 began without it, and ignored what is not known. */
    if (!rc && has(line, M_ERROR) && *line->value[M_ERROR].at == '"')
        rc = take_text(line, M_ERROR, false, &out->error);
    return rc;
}

static int
take_snooze(struct line *line, struct jobq__frame *out)
{
    int rc = take_id(line, &out->id);
    if (!rc && !has(line, M_IN_MS))
        rc = wrong(line, M_IN_MS, "a whole number of milliseconds, 0 or more");
    return rc ? rc : take_ms(line, M_IN_MS, &out->delay_ms);
}

/* cancel and discard */
static int
take_reason(struct line *line, struct jobq__frame *out)
{
    int rc = take_id(line, &out->id);
    return rc ? rc : take_text(line, M_REASON, false, &out->reason);
}

static int
take_progress(struct line *line, struct jobq__frame *out)
{
    int rc = take_id(line, &out->id);
    if (!rc)
        rc = take_done(line, &out->done);
    return rc ? rc : take_text(line, M_NOTE, false, &out->note);
}

static int (*const take_members[JOBQ__N_FRAMES])(struct line *, struct jobq__frame *) = {
    [JOBQ__FRAME_JOB] = take_job,
    [JOBQ__FRAME_CANCEL] = take_reason,
    [JOBQ__FRAME_STOP] = take_nothing,
    [JOBQ__FRAME_HELLO] = take_hello,
    [JOBQ__FRAME_OK] = take_ok,
    [JOBQ__FRAME_ERROR] = take_error,
    [JOBQ__FRAME_SNOOZE] = take_snooze,
    [JOBQ__FRAME_DISCARD] = take_reason,
    [JOBQ__FRAME_PROGRESS] = take_progress,
    [JOBQ__FRAME_FORK] = take_fork,
    [JOBQ__FRAME_FORKED] = take_forked,
    [JOBQ__FRAME_START] = take_nothing,
};

/* "job, cancel … and start". */
static int
refuse_type(const struct line *line, struct jobq__span raw)
{
    char known[256] = "";
    size_t len = 0;
    for (size_t i = 0; i < JOBQ__N_FRAMES; i++)
        len += (size_t)snprintf(known + len, sizeof known - len, "%s%s",
                                i == 0                    ? ""
                                : i + 1 == JOBQ__N_FRAMES ? " and "
                                                          : ", ",
                                TYPE[i].name);
    return jobq__error(line->err, JOBQ_EPROTO,
                       "frame: unknown type %.*s at byte %zu; known are %s",
                       raw.len > 60 ? 60 : (int)raw.len, raw.at,
                       (size_t)(raw.at - line->text) + 1, known);
}

static int
take_type(struct line *line, enum jobq__frame_type *out)
{
    struct jobq__span raw = line->value[M_T];
    if (!raw.at)
        return jobq__error(line->err, JOBQ_EPROTO, "frame: \"t\", its type, is missing");
    if (*raw.at == '"') {
        for (int i = 0; i < JOBQ__N_FRAMES; i++) {
            if (TYPE[i].len == raw.len - 2 &&
                memcmp(TYPE[i].name, raw.at + 1, raw.len - 2) == 0) {
                *out = (enum jobq__frame_type)i;
                line->type = TYPE[i].name;
                return JOBQ_OK;
            }
        }
    }
    return refuse_type(line, raw);
}

/* Of a line that ends in a fault: the job's id, if it was seen to be a job's before that.
 */
static int64_t
id_of_job(struct line *line)
{
    enum jobq__frame_type type;
    int64_t id;
    line->err = NULL;
    if (take_type(line, &type) == JOBQ_OK && type == JOBQ__FRAME_JOB &&
        take_id(line, &id) == JOBQ_OK)
        return id;
    return 0;
}

int
jobq__frame_parse(char *text, size_t len, struct jobq__frame *out, jobq_error *err)
{
    struct line line = {.text = text, .writable = text, .type = "", .err = err};
    struct jobq__json json = {.text = text, .at = text, .end = text + len};
    *out = (struct jobq__frame){.delay_ms = -1};
    if (!take_object(&json, &line)) {
        out->id = id_of_job(&line);
        return jobq__json_error(&json, err, JOBQ_EPROTO, "frame");
    }
    int rc = take_type(&line, &out->type);
    if (!rc)
        rc = take_members[out->type](&line, out);
    if (rc)
        out->id = 0;
    return rc;
}

const char *
jobq__frame_name(enum jobq__frame_type type)
{
    return TYPE[type].name;
}

bool
jobq__frame_is(enum jobq__frame_type type, unsigned what)
{
    return (TYPE[type].what & what) == what;
}

int
jobq__frame_peek(const char *text, size_t len, enum jobq__frame_type *type, int64_t *id,
                 jobq_error *err)
{
    struct line line = {.text = text, .type = "", .err = err};
    struct jobq__json json = {.text = text, .at = text, .end = text + len};
    if (!take_object(&json, &line))
        return jobq__json_error(&json, err, JOBQ_EPROTO, "frame");
    int rc = take_type(&line, type);
    *id = 0;
    if (!rc && jobq__frame_is(*type, JOBQ__HAS_ID) && line.value[M_ID].at)
        rc = take_id(&line, id);
    return rc;
}

bool
jobq__frame_next_kind(struct jobq__span *rest, struct jobq__span *text)
{
    struct jobq__json json = {
        .text = rest->at, .at = rest->at, .end = rest->at + rest->len, .text_only = true};
    if (json.at < json.end && *json.at == '[')
        json.at++;
    const char *start = next_element(&json);
    if (!start)
        return false;
    struct jobq__span raw = {start, (size_t)(json.at - start)};
    /* The array lies in a line that was given to jobq__frame_parse to be changed. */
    union {
        const char *lent;
        char *own;
    } at = {.lent = start + 1};
    *text = (struct jobq__span){start + 1, jobq__json_decode(at.own, raw.len - 2)};
    *rest = (struct jobq__span){json.at, (size_t)(json.end - json.at)};
    return true;
}
