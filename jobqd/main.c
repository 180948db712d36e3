/* main.c: nothing but the entry. Everything else is linked by the unit tests, too. */
#include "jobqd/app/commands.h"

int
main(int argc, char **argv)
{
    return commands_main(argc, argv);
}
