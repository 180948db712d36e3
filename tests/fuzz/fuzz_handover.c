/* fuzz_handover.c: the document by which one jobqd leaves its workers to the next
 * (jobqd/upgrade/handover.h). It comes from another release: whatever it holds, it is
 * refused in words, or read within its bounds; and what is written is read as it was.
 */
#include "tests/fuzz/fuzz.h"

#include <sys/mman.h>
#include <unistd.h>

#include "jobqd/upgrade/handover.h"

static const char *const fields[] = {"pid", "rest", "fd", "id", "queue"};

static void
read_entry(const struct handover_entry *entry)
{
    for (size_t i = 0; i < sizeof fields / sizeof fields[0]; i++) {
        int64_t number = 0;
        const char *bytes = NULL;
        size_t len = 0;
        jobq_error err = {0};
        if (handover_get_int(entry, fields[i], 1, 1000, &number, &err) == 0)
            must(number >= 1 && number <= 1000);
        else
            must(number == 0 && err.message[0] != '\0');
        if (handover_get_bytes(entry, fields[i], &bytes, &len, &err) == 0)
            must(bytes[len] == '\0');
        if (handover_get_bytes(entry, fields[i], &bytes, NULL, &err) == 0)
            must(strlen(bytes) == len);
    }
    handover_is(entry, "worker");
}

static void
check_written(const uint8_t *data, size_t size)
{
    struct handover out = {0};
    struct handover_reader *reader = NULL;
    const char *bytes;
    size_t len;
    int fd;
    jobq_error err = {0};
    handover_record(&out, "worker");
    handover_put_bytes(&out, "rest", data, size);
    handover_put_int(&out, "id", (int64_t)size);
    must(handover_seal(&out, &fd, &err) == 0);
    must(handover_open(&reader, fd, &err) == 0);
    const struct handover_entry *entry = handover_next(reader, NULL);
    must(entry && handover_is(entry, "worker") && !handover_next(reader, entry));
    must(handover_get_bytes(entry, "rest", &bytes, &len, &err) == 0);
    must(len == size && memcmp(bytes, data, size) == 0);
    handover_close(reader);
    handover_clear(&out);
    close(fd);
}

int
LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct handover_reader *reader = NULL;
    jobq_error err = {0};
    int fd = memfd_create("fuzz", MFD_CLOEXEC);
    must(fd >= 0 && write(fd, data, size) == (ssize_t)size);
    if (handover_open(&reader, fd, &err) == 0) {
        const struct handover_entry *entry = NULL;
        while ((entry = handover_next(reader, entry)) != NULL)
            read_entry(entry);
        handover_close(reader);
    } else {
        must(reader == NULL && err.message[0] != '\0');
    }
    close(fd);
    if (size > 0)
        check_written(data, size);
    return 0;
}
