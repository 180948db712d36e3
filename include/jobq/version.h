/* jobq/version.h: which libjobq this is. */
#ifndef JOBQ_VERSION_H
#define JOBQ_VERSION_H

#include <jobq/export.h>

#define JOBQ_VERSION_MAJOR 0
#define JOBQ_VERSION_MINOR 1
#define JOBQ_VERSION_PATCH 0
#define JOBQ_VERSION_STRING "0.1.0"

#ifdef __cplusplus
extern "C" {
#endif

/* The version of the library that runs, such as "0.1.0"; JOBQ_VERSION_STRING is the one
 * that the program was compiled with.
 *
 * Ownership: a static string. Thread: any. */
JOBQ_API const char *jobq_version(void);

#ifdef __cplusplus
}
#endif

#endif
