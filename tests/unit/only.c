/* only.c: linked into each unit test: `test_pool_crashes '*kill*'` runs the tests whose
 * names match (* and ? as in a shell). cmocka's output says which tests there are. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

/* glibc gives constructors what it gives main. */
__attribute__((constructor)) static void
choose(int argc, char **argv)
{
    if (argc > 1 && argv[1][0] != '-')
        cmocka_set_test_filter(argv[1]);
}
