/* table.c: see table.h. Knows no jobs. */
#include "jobqd/cli/table.h"

#include <ctype.h>
#include <stdbool.h>
#include <stddef.h>
#include <string.h>

#include "jobqd/base/escape.h"

#define MAX_COLUMNS 32

/* The type's oid in pg_type.dat: never changes. */
static bool
is_number(Oid type)
{
    return type == 20 || type == 21 || type == 23 || type == 1700;
}

/* How many columns it takes on the screen. */
static int
width_of(const char *text)
{
    struct jobq__buf shown = {0};
    int width = 0;
    escape_put(&shown, text, strlen(text));
    /* The rest of a UTF-8 character takes no column of its own. */
    for (size_t i = 0; i < shown.len; i++)
        width += ((unsigned char)shown.data[i] & 0xc0) != 0x80;
    jobq__buf_clear(&shown);
    return width;
}

void
table_print_value(FILE *out, const char *text, const char *indent)
{
    struct jobq__buf shown = {0};
    while (indent != NULL && strchr(text, '\n') != NULL) {
        size_t len = strcspn(text, "\n");
        escape_put(&shown, text, len);
        text += len + 1;
        jobq__buf_addc(&shown, '\n');
        jobq__buf_adds(&shown, *text != '\0' ? indent : "");
    }
    escape_put(&shown, text, strlen(text));
    const char *shown_text = jobq__buf_cstr(&shown);
    fputs(shown_text != NULL ? shown_text : "(out of memory)", out);
    jobq__buf_clear(&shown);
}

static void
pad(FILE *out, int n)
{
    for (; n > 0; n--)
        fputc(' ', out);
}

static void
print_row(FILE *out, const PGresult *result, int row, int n, const int *widths)
{
    for (int column = 0; column < n; column++) {
        const char *value = PQgetvalue(result, row, column);
        bool right = is_number(PQftype(result, column));
        int missing = widths[column] - width_of(value);
        if (column > 0)
            fputs("  ", out);
        if (right)
            pad(out, missing);
        table_print_value(out, value, NULL);
        if (!right && column + 1 < n)
            pad(out, missing);
    }
    fputc('\n', out);
}

static void
print_header(FILE *out, const PGresult *result, int n, const int *widths)
{
    for (int column = 0; column < n; column++) {
        const char *name = PQfname(result, column);
        bool right = is_number(PQftype(result, column));
        int missing = widths[column] - width_of(name);
        if (column > 0)
            fputs("  ", out);
        if (right)
            pad(out, missing);
        for (; *name != '\0'; name++)
            fputc(*name == '_' ? ' ' : toupper((unsigned char)*name), out);
        if (!right && column + 1 < n)
            pad(out, missing);
    }
    fputc('\n', out);
}

void
table_print(FILE *out, const PGresult *result, int n_columns)
{
    int widths[MAX_COLUMNS];
    int n = n_columns < MAX_COLUMNS ? n_columns : MAX_COLUMNS;
    for (int column = 0; column < n; column++) {
        widths[column] = width_of(PQfname(result, column));
        for (int row = 0; row < PQntuples(result); row++) {
            int width = width_of(PQgetvalue(result, row, column));
            if (width > widths[column])
                widths[column] = width;
        }
    }
    print_header(out, result, n, widths);
    for (int row = 0; row < PQntuples(result); row++)
        print_row(out, result, row, n, widths);
}

void
table_print_json(FILE *out, const PGresult *result, int column)
{
    fputc('[', out);
    for (int row = 0; row < PQntuples(result); row++) {
        fputs(row > 0 ? ",\n" : "\n", out);
        escape_print_json(out, PQgetvalue(result, row, column));
    }
    fputs(PQntuples(result) > 0 ? "\n]" : "]", out);
}
