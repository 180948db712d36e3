/* bench_report.h: what a measurement prints: names and values, for people (indented
 * lines) or as one JSON object. A name says its unit: "wal_bytes_per_job". */
#ifndef JOBQD_BENCH_REPORT_H
#define JOBQD_BENCH_REPORT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "jobqd/base/jsontree.h"

#define REPORT_DEPTH 8

/* With --json a tree, printed in the end; for people, lines at once. */
struct report {
    bool json;
    size_t depth;
    cJSON *open[REPORT_DEPTH]; /* objects and lists, from the outermost inwards */
    size_t items;              /* of the innermost list so far */
};

void report_begin(struct report *report, bool json);
/* Prints the tree if it is complete, and deletes it. */
void report_end(struct report *report, bool complete);

void report_int(struct report *report, const char *name, int64_t value);
void report_real(struct report *report, const char *name, double value, int decimals);
void report_text(struct report *report, const char *name, const char *text);

/* A named object, or a list of objects; report_close closes the innermost. In a list,
 * each object begins with report_item. */
void report_group(struct report *report, const char *name);
void report_list(struct report *report, const char *name);
void report_item(struct report *report);
void report_close(struct report *report);

/* A group of percentiles, in milliseconds. Sorts the samples (nanoseconds). */
void report_percentiles(struct report *report, const char *name, int64_t *ns, size_t n);

/* The smallest of the sorted samples that at least `share` of all do not exceed. */
double report_percentile_ms(const int64_t *sorted, size_t n, double share);

/* The best (largest) and the median of some rates. Sorts them. */
void report_rates(struct report *report, const char *best, const char *median,
                  double *rates, size_t n);
double report_median(double *values, size_t n); /* sorts them */

#endif
