/* folder.h: the folder that jobqd was started in, by the name that whoever started it
 * used ($PWD). Under that name it may be another one by now: a deployment points a link
 * such as /srv/app/current to the next release, and deletes the one before. Programs that
 * follow each other in a process, or by its guard, keep the name (JOBQ_FOLDER).
 */
#ifndef JOBQD_FOLDER_H
#define JOBQD_FOLDER_H

#include <stdbool.h>

/* First thing in main: remembers it. */
void folder_note(void);

/* Its name, absolute; "": not known, since it was gone already. Without folder_note that
 * of the folder we are in. */
const char *folder_name(void);

/* What a relative path that was given at the start means now, for free(); an absolute one
 * as it is. NULL: out of memory. */
char *folder_resolve(const char *path);

/* Goes to the folder that has the name now. Where there is none we stay in ours, which
 * was renamed; or false: it was deleted, and we go to /, since programs that are started
 * in such a folder fail by accident. */
bool folder_enter(void);

#endif
