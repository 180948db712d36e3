/* descriptors.h: the standard descriptors; and marks open files close-on-exec, also where
 * the kernel has no single call for it (CLOSE_RANGE_CLOEXEC came with Linux 5.11; jobqd
 * runs from 5.3 on). */
#ifndef JOBQD_DESCRIPTORS_H
#define JOBQD_DESCRIPTORS_H

#include <stdbool.h>

/* Sees to it that 0, 1 and 2 are open before anything else is, or whatever comes first
 * would be taken for them: a socket written to as if it were the log. What is not there
 * is /dev/null the wrong way round, so that its use fails and is told. false: it cannot
 * be opened. */
bool descriptors_open_standard(void);

/* All that are open from `first` on. Async-signal-safe: asks for no memory. Without
 * /proc, too, an old kernel leaves them as they are. */
void descriptors_seal(int first);

#endif
