/* jsontree.c: see jsontree.h. */
#include "jobqd/base/jsontree.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "jobqd/base/escape.h"
#include "libjobq/utf8.h"

/* Takes the item; NULL is what cJSON returns when it is out of memory. */
static cJSON *
add(cJSON *parent, const char *name, cJSON *item)
{
    if (item && (name ? cJSON_AddItemToObject(parent, name, item)
                      : cJSON_AddItemToArray(parent, item)))
        return item;
    cJSON_Delete(item);
    if (parent)
        parent->type &= ~0xff; /* the bits above tell cJSON_Delete who owns what */
    return NULL;
}

cJSON *
tree_add_object(cJSON *parent, const char *name)
{
    return add(parent, name, cJSON_CreateObject());
}

cJSON *
tree_add_list(cJSON *parent, const char *name)
{
    return add(parent, name, cJSON_CreateArray());
}

void
tree_add_text(cJSON *parent, const char *name, const char *text)
{
    add(parent, name, text ? cJSON_CreateString(text) : cJSON_CreateNull());
}

void
tree_add_buf(cJSON *parent, const char *name, struct jobq__buf *text)
{
    const char *bytes = jobq__buf_cstr(text);
    add(parent, name, bytes ? cJSON_CreateString(bytes) : NULL);
}

void
tree_add_int(cJSON *parent, const char *name, int64_t value)
{
    char text[24];
    snprintf(text, sizeof text, "%" PRId64, value);
    tree_add_raw(parent, name, text);
}

void
tree_add_real(cJSON *parent, const char *name, double value, int decimals)
{
    char text[400];
    snprintf(text, sizeof text, "%.*f", decimals, value);
    tree_add_raw(parent, name, text);
}

void
tree_add_bool(cJSON *parent, const char *name, bool value)
{
    add(parent, name, cJSON_CreateBool(value));
}

void
tree_add_raw(cJSON *parent, const char *name, const char *json)
{
    if (json)
        add(parent, name, cJSON_CreateRaw(json));
}

void
tree_put(struct jobq__buf *out, cJSON *document)
{
    char *text = cJSON_PrintUnformatted(document);
    size_t len = text ? strlen(text) : 0, plain = 0;
    for (size_t i = 0; i < len;) {
        size_t n = jobq__utf8_len((const unsigned char *)text + i, len - i);
        i += n > 0 ? n : 1;
        if (n > 0)
            continue;
        jobq__buf_add(out, text + plain, i - 1 - plain);
        jobq__buf_adds(out, "\xEF\xBF\xBD");
        plain = i;
    }
    if (text)
        jobq__buf_add(out, text + plain, len - plain);
    else
        out->failed = true;
    cJSON_free(text);
    cJSON_Delete(document);
}

static bool print_failed;

void
tree_print(cJSON *document)
{
    char *text = cJSON_PrintUnformatted(document);
    struct jobq__buf out = {0};
    if (text)
        escape_put_json(&out, text, strlen(text));
    jobq__buf_addc(&out, '\n');
    if (text && !out.failed) {
        fwrite(out.data, 1, out.len, stdout);
    } else {
        fputs("jobqd: out of memory for the answer\n", stderr);
        print_failed = true;
    }
    jobq__buf_clear(&out);
    cJSON_free(text);
    cJSON_Delete(document);
}

bool
tree_print_failed(void)
{
    return print_failed;
}
