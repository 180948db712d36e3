/* bench_report.c: see bench_report.h. */
#include "jobqd/bench/bench_report.h"

#include <assert.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* ---- Names and brackets ---- */

enum { NAME_WIDTH = 40 };

/* For people: a name as words, filled up to width. */
static void
put_name(const struct report *report, const char *name, int width)
{
    int indent = ((int)report->depth - 1) * 2;
    char words[64];
    snprintf(words, sizeof words, "%s", name);
    for (char *at = words; *at != '\0'; at++) {
        if (*at == '_')
            *at = ' ';
    }
    printf("%*s%-*s", indent, "", width > 0 ? width - indent : 0, words);
}

/* The innermost of what is open. */
static cJSON *
inner(const struct report *report)
{
    return report->open[report->depth - 1];
}

static void
open_bracket(struct report *report, cJSON *item)
{
    assert(report->depth < REPORT_DEPTH);
    report->open[report->depth++] = item;
}

void
report_close(struct report *report)
{
    assert(report->depth > 0);
    report->depth--;
}

void
report_begin(struct report *report, bool json)
{
    memset(report, 0, sizeof *report);
    report->json = json;
    open_bracket(report, json ? cJSON_CreateObject() : NULL);
}

void
report_end(struct report *report, bool complete)
{
    if (report->json && complete)
        tree_print(report->open[0]);
    else
        cJSON_Delete(report->open[0]);
}

static void
end_line(void)
{
    putchar('\n');
    fflush(stdout); /* a measurement takes long: what is known is shown */
}

static void
put_head(const struct report *report, const char *name)
{
    if (report->json)
        return;
    put_name(report, name, 0);
    end_line();
}

void
report_group(struct report *report, const char *name)
{
    put_head(report, name);
    open_bracket(report, tree_add_object(inner(report), name));
}

void
report_list(struct report *report, const char *name)
{
    put_head(report, name);
    report->items = 0;
    open_bracket(report, tree_add_list(inner(report), name));
}

void
report_item(struct report *report)
{
    report->items++;
    if (!report->json)
        printf("%*s%zu\n", (int)(report->depth - 1) * 2, "", report->items);
    open_bracket(report, tree_add_object(inner(report), NULL));
}

/* ---- Values ---- */

/* 1234567.8 as 1,234,567.8 */
static void
put_grouped(double value, int decimals)
{
    char digits[64];
    snprintf(digits, sizeof digits, "%.*f", decimals, value);
    size_t whole = strcspn(digits, ".");
    size_t sign = digits[0] == '-' ? 1 : 0;
    char text[96];
    size_t len = 0;
    for (size_t i = 0; digits[i] != '\0' && len + 2 < sizeof text; i++) {
        if (i > sign && i < whole && (whole - i) % 3 == 0)
            text[len++] = ',';
        text[len++] = digits[i];
    }
    text[len] = '\0';
    printf("%14s", text);
}

static void
put_number(const struct report *report, const char *name, double value, int decimals)
{
    put_name(report, name, NAME_WIDTH);
    put_grouped(value, decimals);
    end_line();
}

void
report_int(struct report *report, const char *name, int64_t value)
{
    if (report->json)
        tree_add_int(inner(report), name, value);
    else
        put_number(report, name, (double)value, 0);
}

void
report_real(struct report *report, const char *name, double value, int decimals)
{
    if (report->json)
        tree_add_real(inner(report), name, value, decimals);
    else
        put_number(report, name, value, decimals);
}

void
report_text(struct report *report, const char *name, const char *text)
{
    if (report->json) {
        tree_add_text(inner(report), name, text);
        return;
    }
    put_name(report, name, NAME_WIDTH);
    if (strchr(text, '\n') == NULL) {
        printf("%14s", text);
    } else {
        for (const char *at = text; *at != '\0'; at += *at == '\n' ? 1 : 0) {
            size_t len = strcspn(at, "\n");
            printf("\n  %.*s", (int)len, at);
            at += len;
        }
    }
    end_line();
}

/* ---- Samples ---- */

static int
compare_ns(const void *a, const void *b)
{
    int64_t left = *(const int64_t *)a, right = *(const int64_t *)b;
    return left < right ? -1 : left > right ? 1 : 0;
}

static int
compare_double(const void *a, const void *b)
{
    double left = *(const double *)a, right = *(const double *)b;
    return left < right ? -1 : left > right ? 1 : 0;
}

double
report_percentile_ms(const int64_t *sorted, size_t n, double share)
{
    size_t nth = (size_t)(share * (double)n);
    if ((double)nth < share * (double)n)
        nth++;
    return (double)sorted[nth > 0 ? nth - 1 : 0] / 1e6;
}

void
report_percentiles(struct report *report, const char *name, int64_t *ns, size_t n)
{
    static const struct {
        const char *name;
        double share;
    } wanted[] = {{"p50_ms", 0.5},
                  {"p90_ms", 0.9},
                  {"p99_ms", 0.99},
                  {"p99.9_ms", 0.999},
                  {"max_ms", 1.0}};
    assert(n > 0);
    qsort(ns, n, sizeof *ns, compare_ns);
    report_group(report, name);
    for (size_t i = 0; i < sizeof wanted / sizeof wanted[0]; i++)
        report_real(report, wanted[i].name, report_percentile_ms(ns, n, wanted[i].share),
                    3);
    report_close(report);
}

double
report_median(double *values, size_t n)
{
    assert(n > 0);
    qsort(values, n, sizeof *values, compare_double);
    return n % 2 == 1 ? values[n / 2] : (values[n / 2 - 1] + values[n / 2]) / 2;
}

void
report_rates(struct report *report, const char *best, const char *median, double *rates,
             size_t n)
{
    double middle = report_median(rates, n);
    report_real(report, best, rates[n - 1], 0);
    report_real(report, median, middle, 0);
}
