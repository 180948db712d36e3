/* arguments.h: the command line without its passwords, which every user of the host could
 * read there (ps).
 *
 * A program that takes this one's place is given the words that can be read, and finds
 * the others in its environment, which only its user can read: JOBQ_ARGUMENT_N is word N
 * as it was.
 */
#ifndef JOBQD_ARGUMENTS_H
#define JOBQD_ARGUMENTS_H

/* Hides the password in each word that has one, in argv itself: a connection string
 * behind
 * --database, a URI with a user's password, password=… Returns the words as they were,
 * for as long as the process lives; NULL: out of memory. */
char **arguments_hide(int argc, char **argv);

#endif
