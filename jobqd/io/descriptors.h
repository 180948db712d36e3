/* descriptors.h: marks open files close-on-exec, also where the kernel has no single call
 * for it (CLOSE_RANGE_CLOEXEC came with Linux 5.11; jobqd runs from 5.3 on). */
#ifndef JOBQD_DESCRIPTORS_H
#define JOBQD_DESCRIPTORS_H

/* All that are open from `first` on. Async-signal-safe: asks for no memory. Without
 * /proc, too, an old kernel leaves them as they are. */
void descriptors_seal(int first);

#endif
