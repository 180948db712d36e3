/* version.c: see jobq/version.h. */
#include <jobq/version.h>

const char *
jobq_version(void)
{
    return JOBQ_VERSION_STRING;
}
