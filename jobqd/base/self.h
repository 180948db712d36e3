/* self.h: which program this process runs, and with what arguments: for whoever executes
 * it again (the guard, an upgrade). One a process.
 */
#ifndef JOBQD_SELF_H
#define JOBQD_SELF_H

/* First thing in main. given: an absolute path that the program before this one in the
 * process was found by; NULL: there was none. argv outlives everything. */
void self_remember(char **argv, const char *given);

/* Where this program was found at its start and the next version will be: the name that it
 * was started by, made absolute, which may be a symbolic link; where that name does not
 * lead to this program, the file that the kernel names. The same for all programs that
 * follow each other in a process. "": unknown. */
const char *self_path(void);
char *const *self_argv(void);

#endif
