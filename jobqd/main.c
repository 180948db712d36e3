/* main.c: nothing but the entry. Everything else is linked by the unit tests, too. */
#include "jobqd/commands/commands.h"
#include "jobqd/io/successor.h"

int
main(int argc, char **argv)
{
    successor_begin(argv);
    int code = commands_main(argc, argv);
    successor_give_up(code);
    return code;
}
