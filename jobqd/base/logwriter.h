/* logwriter.h: gets the log's lines out without making their writer wait.
 *
 * Whoever reads our stderr may stand still: a paused pager, a terminal after ^S, a log
 * driver that hangs, a file on a server that is away. write(2) then waits, and a jobqd
 * that waits loses its lease. O_NONBLOCK is no way out: it belongs to the open file,
 * which the shell and our other processes share, and it does nothing for files. poll(2)
 * says that a pipe takes some bytes, not that it takes a line. Opening the file anew
 * through /proc fails for sockets and for files of another user, and a file on a dead
 * server hangs all the same. So there is a thread that does nothing but write(2), and a
 * buffer of LOGWRITER_BYTES before it. When that is full, lines are dropped and counted;
 * once the reader is back, a line in their place says how many.
 *
 * A write that fails (no space, a pipe without a reader) is tried again every second:
 * what is in the buffer is not lost by it.
 *
 * Lines come from one thread. Nothing here locks, so a forked child finds no lock that is
 * held; it has no writer either, and logwriter_runs tells it so.
 */
#ifndef JOBQD_LOGWRITER_H
#define JOBQD_LOGWRITER_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "libjobq/buf.h"

enum { LOGWRITER_BYTES = 1024 * 1024 };

/* Lines that were dropped. */
struct logwriter_loss {
    uint64_t lines;
    int64_t since_ms; /* when the first one was; milliseconds since 1970 */
    int why;          /* errno of the write that failed; 0: it did not end */
};

/* Appends a line that says so, with its newline. Called on either thread. */
typedef void (*logwriter_tell)(struct jobq__buf *out, const struct logwriter_loss *loss);

/* Starts the thread. loss: of the program before us in this process. Returns 0, or
 * errno. */
int logwriter_start(logwriter_tell tell, const struct logwriter_loss *loss);
bool logwriter_runs(void);

/* One line, with its newline; copied, or dropped. */
void logwriter_put(const char *line, size_t len);

/* Waits until everything is written, at most so long; not for writes that fail. */
void logwriter_flush(int64_t most_ms);

/* What would be lost if this process ended now. */
struct logwriter_loss logwriter_unwritten(void);

#endif
