/* job.c: the names of verdicts, from the one list in job.h. */
#include "jobqd/pure/job.h"

const char *
verdict_name(enum verdict_kind kind)
{
    switch (kind) {
#define X(name, label)                                                                   \
    case name:                                                                           \
        return #name + sizeof "VERDICT_" - 1;
        VERDICTS(X)
#undef X
    }
    return "?";
}

const char *
verdict_error_kind(enum verdict_kind kind)
{
    switch (kind) {
#define X(name, label)                                                                   \
    case name:                                                                           \
        return label;
        VERDICTS(X)
#undef X
    }
    return NULL;
}
