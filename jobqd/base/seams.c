/* seams.c: see seams.h. The only file that reads a JOBQ_TEST_ variable. */
#include "jobqd/base/seams.h"

#include <stdlib.h>

#ifdef JOBQ_TEST_SEAMS
static const char *const variables[] = {
#define X(name, variable) [name] = variable,
    SEAMS(X)
#undef X
};

const char *
seam_text(enum seam seam)
{
    return getenv(variables[seam]);
}

void
seam_forget(enum seam seam)
{
    unsetenv(variables[seam]);
}
#endif

int64_t
seam_number(enum seam seam)
{
    const char *text = seam_text(seam);
    return text ? strtoll(text, NULL, 10) : 0;
}
