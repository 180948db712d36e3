/* jobq/export.h: marks what libjobq.so exports. Everything else is hidden. */
#ifndef JOBQ_EXPORT_H
#define JOBQ_EXPORT_H

#if defined(__GNUC__)
#define JOBQ_API __attribute__((visibility("default")))
#else
#define JOBQ_API
#endif

#endif
