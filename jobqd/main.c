/* main.c: nothing but the entry, and what has to come before everything else. All else is
 * linked by the unit tests, too. */
#include <stdio.h>
#include <sys/prctl.h>
#include <sysexits.h>

#include "jobqd/config/arguments.h"
#include "jobqd/base/folder.h"
#include "jobqd/commands/commands.h"
#include "jobqd/proc/descriptors.h"
#include "jobqd/upgrade/exec_handoff.h"

int
main(int argc, char **argv)
{
    /* No other process of our user may look into this one, which knows the database's
     * password: neither at its memory nor at its environment. An exec undoes it. */
    prctl(PR_SET_DUMPABLE, 0);
    if (!descriptors_open_standard())
        return EX_OSFILE;
    char **words = arguments_hide(argc, argv);
    if (!words) {
        fputs("jobqd: out of memory\n", stderr);
        return EX_OSERR;
    }
    folder_note();
    exec_handoff_begin(argv);
    int code = commands_main(argc, words);
    exec_handoff_give_up(code);
    return code;
}
