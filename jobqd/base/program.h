/* program.h: why a file cannot be executed. The kernel says "No such file or directory"
 * of a script that is there when its interpreter is not, and "Exec format error" of one
 * that does not begin with #!. */
#ifndef JOBQD_PROGRAM_H
#define JOBQD_PROGRAM_H

#include <stdbool.h>

enum { PROGRAM_WHY = 256 };

enum program_fault {
    PROGRAM_SOUND,   /* nothing that could be seen */
    PROGRAM_MISSING, /* no file can be reached by that path */
    PROGRAM_FAULTY   /* there is one, and it cannot be executed */
};

/* What the file at that path lacks, as it is found by this process's rights. search: the
 * PATH by which `#!/usr/bin/env NAME` finds NAME; NULL: not looked at.
 * Async-signal-safe. */
enum program_fault program_fault(const char *path, const char *search,
                                 char why[PROGRAM_WHY]);

/* The PATH that env(1) and execvp(3) go by where the environment has none. Ownership:
 * lent, static. Async-signal-safe. */
const char *program_default_path(void);

/* Where the kernel lists the formats that it was told of (binfmt_misc). */
#define PROGRAM_FORMATS "/proc/sys/fs/binfmt_misc"

/* Whether one of the formats in that folder takes such a file: then a fault of its own
 * format is none. */
bool program_is_registered(const char *formats, const char *path);

#endif
