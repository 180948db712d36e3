/* handover.c: see handover.h. */
#include "jobqd/upgrade/handover.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "jobqd/base/seams.h"
#include "libjobq/error.h"

/* MAX_BYTES: a thousand workers with full mailboxes are far below it. */
enum { FORMAT = 1, HEAD_LEN = 64, NAME_LEN = 63, MAX_BYTES = 1 << 30 };

/* ---- writing ---- */

void
handover_record(struct handover *handover, const char *name)
{
    jobq__buf_addc(&handover->text, '[');
    jobq__buf_adds(&handover->text, name);
    jobq__buf_adds(&handover->text, "]\n");
}

void
handover_put_bytes(struct handover *handover, const char *name, const void *bytes,
                   size_t len)
{
    struct jobq__buf *text = &handover->text;
    jobq__buf_adds(text, name);
    jobq__buf_addc(text, ' ');
    jobq__buf_add_i64(text, (int64_t)len);
    jobq__buf_addc(text, ' ');
    if (len > 0)
        jobq__buf_add(text, bytes, len);
    jobq__buf_addc(text, '\n');
}

void
handover_put_text(struct handover *handover, const char *name, const char *text)
{
    handover_put_bytes(handover, name, text, strlen(text));
}

void
handover_put_int(struct handover *handover, const char *name, int64_t value)
{
    char digits[24];
    int len = snprintf(digits, sizeof digits, "%" PRId64, value);
    handover_put_bytes(handover, name, digits, (size_t)len);
}

void
handover_put_fd(struct handover *handover, const char *name, int fd)
{
    handover_put_int(handover, name, fd);
    if (fd >= 0)
        jobq__buf_add(&handover->fds, &fd, sizeof fd);
}

static int
write_all(int fd, const char *bytes, size_t len)
{
    while (len > 0) {
        ssize_t n = write(fd, bytes, len);
        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0)
            return -1;
        bytes += n;
        len -= (size_t)n;
    }
    return 0;
}

int
handover_seal(const struct handover *handover, int *fd, jobq_error *err)
{
    if (handover->text.failed || handover->fds.failed)
        return jobq__error(err, JOBQ_ENOMEM, "no memory to write the handover");
    char head[HEAD_LEN];
    int len = snprintf(head, sizeof head, "jobqd-handover %d %zu\n", FORMAT,
                       handover->text.len);
    int file = memfd_create("jobqd-handover", MFD_CLOEXEC);
    if (file < 0)
        return jobq__error(err, JOBQ_EIO, "memfd_create: %s", strerror(errno));
    if (write_all(file, head, (size_t)len) < 0 ||
        write_all(file, handover->text.data, handover->text.len) < 0) {
        int rc =
            jobq__error(err, JOBQ_EIO, "cannot write the handover: %s", strerror(errno));
        close(file);
        return rc;
    }
    *fd = file;
    return 0;
}

int
handover_inherit(const struct handover *handover, bool inherit, jobq_error *err)
{
    size_t n = handover->fds.len / sizeof(int);
    for (size_t i = 0; i < n; i++) {
        int fd;
        memcpy(&fd, handover->fds.data + i * sizeof fd, sizeof fd);
        if (fcntl(fd, F_SETFD, inherit ? 0 : FD_CLOEXEC) < 0)
            return jobq__error(err, JOBQ_EIO, "descriptor %d: %s", fd, strerror(errno));
    }
    return 0;
}

void
handover_clear(struct handover *handover)
{
    jobq__buf_clear(&handover->text);
    jobq__buf_clear(&handover->fds);
}

/* ---- reading ---- */

struct field {
    const char *name;
    const char *value;
    size_t len;
};

struct handover_entry {
    const char *name;
    const struct handover_reader *reader;
    size_t first, n; /* its fields */
};

struct handover_reader {
    char *text;
    struct handover_entry *entries;
    struct field *fields;
    size_t n_entries, n_fields;
};

static int
broken(jobq_error *err, const char *what)
{
    return jobq__error(err, JOBQ_EINVAL, "the handover is broken: %s", what);
}

static int
read_whole(char **out, size_t *len, int fd, jobq_error *err)
{
    struct stat st;
    if (fstat(fd, &st) < 0)
        return jobq__error(err, JOBQ_EIO, "the handover: %s", strerror(errno));
    if (st.st_size < 0 || st.st_size > MAX_BYTES)
        return broken(err, "its size is impossible");
    char *text = malloc((size_t)st.st_size + 1);
    if (!text)
        return jobq__error(err, JOBQ_ENOMEM, "no memory to read the handover");
    size_t got = 0;
    while (got < (size_t)st.st_size) {
        ssize_t n = pread(fd, text + got, (size_t)st.st_size - got, (off_t)got);
        if (n < 0 && errno == EINTR)
            continue;
        if (n <= 0)
            break;
        got += (size_t)n;
    }
    text[got] = '\0';
    *out = text;
    *len = got;
    return 0;
}

/* Splits one field off, at *at; NUL-terminates its name and its value in place. */
static bool
take_field(char **at, char *end, struct field *out)
{
    char *name = *at;
    char *space = memchr(name, ' ', (size_t)(end - name));
    if (!space || space == name || space - name > NAME_LEN)
        return false;
    char *after;
    errno = 0;
    unsigned long long len = strtoull(space + 1, &after, 10);
    if (errno != 0 || after == space + 1 || *after != ' ')
        return false;
    char *value = after + 1;
    if (len >= (size_t)(end - value) || value[len] != '\n')
        return false;
    *space = '\0';
    value[len] = '\0';
    *out = (struct field){name, value, (size_t)len};
    *at = value + len + 1;
    return true;
}

static bool
take_entry(char **at, char *end, struct handover_entry *out)
{
    char *line_end = memchr(*at, '\n', (size_t)(end - *at));
    if (!line_end || line_end - *at < 3 || line_end[-1] != ']')
        return false;
    line_end[-1] = '\0';
    *out = (struct handover_entry){.name = *at + 1};
    *at = line_end + 1;
    return true;
}

/* At most one entry or field for each line. */
static size_t
count_lines(const char *at, const char *end)
{
    size_t n = 0;
    for (; at < end; at++)
        n += *at == '\n';
    return n;
}

static int
parse(struct handover_reader *reader, char *at, char *end, jobq_error *err)
{
    size_t most = count_lines(at, end) + 1;
    reader->entries = calloc(most, sizeof *reader->entries);
    reader->fields = calloc(most, sizeof *reader->fields);
    if (!reader->entries || !reader->fields)
        return jobq__error(err, JOBQ_ENOMEM, "no memory to read the handover");
    while (at < end) {
        if (*at == '[') {
            struct handover_entry *entry = &reader->entries[reader->n_entries];
            if (!take_entry(&at, end, entry))
                return broken(err, "a record's name");
            entry->reader = reader;
            entry->first = reader->n_fields;
            reader->n_entries++;
            continue;
        }
        if (reader->n_entries == 0)
            return broken(err, "a field before the first record");
        if (!take_field(&at, end, &reader->fields[reader->n_fields]))
            return broken(err, "a field");
        reader->n_fields++;
        reader->entries[reader->n_entries - 1].n++;
    }
    return 0;
}

/* The first line: what this is, and how much follows. */
static int
check_head(const char *text, size_t len, size_t *head, jobq_error *err)
{
    int format = 0, at = 0;
    size_t body = 0;
    if (sscanf(text, "jobqd-handover %d %zu%n", &format, &body, &at) != 2 ||
        text[at] != '\n')
        return broken(err, "it does not begin with a handover's first line");
    if (format != FORMAT)
        return jobq__error(err, JOBQ_EINVAL,
                           "the handover has format %d; this jobqd reads format %d",
                           format, FORMAT);
    *head = (size_t)at + 1;
    return body == len - *head ? 0 : broken(err, "it is cut off");
}

int
handover_open(struct handover_reader **out, int fd, jobq_error *err)
{
    struct handover_reader *reader = calloc(1, sizeof *reader);
    if (!reader)
        return jobq__error(err, JOBQ_ENOMEM, "no memory to read the handover");
    size_t len = 0, head = 0;
    int rc = read_whole(&reader->text, &len, fd, err);
    if (rc == 0)
        rc = check_head(reader->text, len, &head, err);
    if (rc == 0)
        rc = parse(reader, reader->text + head, reader->text + len, err);
    if (rc < 0) {
        handover_close(reader);
        return rc;
    }
    *out = reader;
    return 0;
}

void
handover_close(struct handover_reader *reader)
{
    if (!reader)
        return;
    free(reader->entries);
    free(reader->fields);
    free(reader->text);
    free(reader);
}

const struct handover_entry *
handover_next(const struct handover_reader *reader, const struct handover_entry *after)
{
    const struct handover_entry *next = after ? after + 1 : reader->entries;
    return next < reader->entries + reader->n_entries ? next : NULL;
}

bool
handover_is(const struct handover_entry *entry, const char *name)
{
    return strcmp(entry->name, name) == 0;
}

static const struct field *
look_up(const struct handover_entry *entry, const char *name)
{
    const struct field *fields = entry->reader->fields + entry->first;
    const char *lacks = seam_text(SEAM_HANDOVER_LACKS);
    if (lacks && strcmp(lacks, name) == 0)
        return NULL;
    for (size_t i = 0; i < entry->n; i++)
        if (strcmp(fields[i].name, name) == 0)
            return &fields[i];
    return NULL;
}

bool
handover_has(const struct handover_entry *entry, const char *name)
{
    return look_up(entry, name) != NULL;
}

static const struct field *
find(const struct handover_entry *entry, const char *name, jobq_error *err)
{
    const struct field *field = look_up(entry, name);
    if (field)
        return field;
    jobq__error(
        err, JOBQ_EINVAL,
        "the state handed over by the old jobqd is incomplete: record \"%s\" has no "
        "field \"%s\"",
        entry->name, name);
    return NULL;
}

int
handover_get_int(const struct handover_entry *entry, const char *name, int64_t min,
                 int64_t max, int64_t *out, jobq_error *err)
{
    const struct field *field = find(entry, name, err);
    if (!field)
        return JOBQ_EINVAL;
    char *end;
    errno = 0;
    intmax_t value = strtoimax(field->value, &end, 10);
    if (field->len == 0 || *end != '\0' || errno != 0 || value < min || value > max)
        return jobq__error(err, JOBQ_EINVAL,
                           "the handover's field \"%s.%s\" is \"%.40s\": it must be a "
                           "number from %" PRId64 " to %" PRId64,
                           entry->name, name, field->value, min, max);
    *out = value;
    return 0;
}

int
handover_get_bytes(const struct handover_entry *entry, const char *name, const char **out,
                   size_t *len, jobq_error *err)
{
    const struct field *field = find(entry, name, err);
    if (!field)
        return JOBQ_EINVAL;
    if (!len && strlen(field->value) != field->len)
        return jobq__error(err, JOBQ_EINVAL,
                           "the handover's field \"%s.%s\" holds a NUL byte", entry->name,
                           name);
    *out = field->value;
    if (len)
        *len = field->len;
    return 0;
}
