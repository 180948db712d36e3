/* main.c: jobq-bench, which `jobqd bench` executes. A program of its own, so that the
 * daemon does not carry it. */
#include <stdio.h>
#include <sys/prctl.h>
#include <sysexits.h>

#include "jobqd/base/folder.h"
#include "jobqd/base/self.h"
#include "jobqd/bench/bench.h"
#include "jobqd/config/arguments.h"
#include "jobqd/proc/descriptors.h"

int
main(int argc, char **argv)
{
    prctl(PR_SET_DUMPABLE, 0); /* it may know a database's password */
    if (!descriptors_open_standard())
        return EX_OSFILE;
    char **words = arguments_hide(argc, argv);
    if (!words) {
        fputs("jobq-bench: out of memory\n", stderr);
        return EX_OSERR;
    }
    folder_note();
    self_remember(argv, NULL);
    return bench_main(argc, words);
}
