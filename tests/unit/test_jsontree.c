/* test_jsontree.c: a document is printed whole or not at all, whatever step runs out of
 * memory; numbers are exact; text from elsewhere stays valid JSON. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <cmocka.h>

#include "jobqd/base/jsontree.h"
#include "libjobq/json.h"

static int allocations_left = -1; /* -1: no end */

static void *
scarce(size_t size)
{
    if (allocations_left == 0)
        return NULL;
    allocations_left -= allocations_left > 0;
    return malloc(size);
}

static cJSON *
build(void)
{
    cJSON *document = cJSON_CreateObject();
    struct jobq__buf word = {0};
    jobq__buf_adds(&word, "skip");
    tree_add_text(document, "kind", "mail \"now\"\n");
    tree_add_text(document, "none", NULL);
    tree_add_int(document, "id", INT64_MAX);
    tree_add_int(document, "least", INT64_MIN);
    tree_add_real(document, "share", 0.125, 2);
    tree_add_bool(document, "new", true);
    tree_add_raw(document, "args", "{\"n\":9007199254740993, \"x\":1.10}");
    tree_add_raw(document, "meta", NULL);
    cJSON *list = tree_add_list(document, "list");
    tree_add_buf(list, NULL, &word);
    tree_add_int(tree_add_object(list, NULL), "deep", -1);
    tree_add_list(list, NULL);
    jobq__buf_clear(&word);
    return document;
}

static const char built[] =
    "{\"kind\":\"mail \\\"now\\\"\\n\",\"none\":null,\"id\":9223372036854775807,"
    "\"least\":-9223372036854775808,\"share\":0.12,\"new\":true,"
    "\"args\":{\"n\":9007199254740993, \"x\":1.10},\"list\":[\"skip\",{\"deep\":-1},[]]}";

static void
members_keep_their_order_and_numbers_their_digits(void **state)
{
    (void)state;
    struct jobq__buf out = {0};
    jobq__buf_adds(&out, "before ");
    tree_put(&out, build());
    assert_string_equal(jobq__buf_cstr(&out) + strlen("before "), built);
    jobq__buf_clear(&out);
}

/* Each allocation of cJSON in its turn is the first that fails. */
static void
a_document_that_lacks_something_is_not_printed(void **state)
{
    (void)state;
    int failed = 0;
    cJSON_InitHooks(&(cJSON_Hooks){.malloc_fn = scarce, .free_fn = free});
    for (bool whole = false; !whole;) {
        struct jobq__buf out = {0};
        allocations_left = failed;
        tree_put(&out, build());
        whole = !out.failed;
        assert_true(whole ? strcmp(jobq__buf_cstr(&out), built) == 0 : out.len == 0);
        failed += !whole;
        jobq__buf_clear(&out);
    }
    cJSON_InitHooks(NULL);
    assert_in_range(failed, 30, 100);
}

static void
a_buffer_that_failed_fails_the_document(void **state)
{
    (void)state;
    struct jobq__buf word = {.failed = true}, out = {0};
    cJSON *document = cJSON_CreateObject();
    tree_add_buf(document, "word", &word);
    tree_put(&out, document);
    assert_true(out.failed);
}

static void
bytes_that_are_not_utf8_become_replacement_characters(void **state)
{
    (void)state;
    struct jobq__buf out = {0};
    cJSON *document = cJSON_CreateObject();
    tree_add_text(document, "a\xff", "\xc3\xa9\xe2\x82|\xed\xa0\x80\x7f");
    tree_put(&out, document);
    const char *text = jobq__buf_cstr(&out);
    assert_string_equal(text, "{\"a\xef\xbf\xbd\":\"\xc3\xa9\xef\xbf\xbd\xef\xbf\xbd|"
                              "\xef\xbf\xbd\xef\xbf\xbd\xef\xbf\xbd\x7f\"}");
    assert_int_equal(jobq__json_check(text, out.len, "x", NULL), 0);
    jobq__buf_clear(&out);
}

/* What tree_print prints. */
static void
print(cJSON *document, char *out, size_t size)
{
    FILE *file = tmpfile();
    assert_non_null(file);
    fflush(stdout);
    int was = dup(STDOUT_FILENO);
    dup2(fileno(file), STDOUT_FILENO);
    tree_print(document);
    fflush(stdout);
    dup2(was, STDOUT_FILENO);
    close(was);
    rewind(file);
    size_t len = fread(out, 1, size - 1, file);
    out[len] = '\0';
    fclose(file);
}

static void
nothing_that_steers_a_terminal_is_printed(void **state)
{
    (void)state;
    char out[400];
    cJSON *document = cJSON_CreateArray();
    tree_add_text(document, NULL, "\x1b[31m\x7f\xc2\x9b\xe2\x80\xae\xf3\xa0\x81\x81\x9b");
    tree_add_raw(document, NULL, "\"\xe2\x80\xaa\"");
    print(document, out, sizeof out);
    assert_string_equal(
        out, "[\"\\u001b[31m\\u007f\\u009b\\u202e\\udb40\\udc41\\\\x9b\",\"\\u202a\"]\n");
    assert_int_equal(jobq__json_check(out, strlen(out), "x", NULL), 0);
    print(build(), out, sizeof out);
    assert_int_equal(strncmp(out, built, strlen(built)), 0);
}

static void
an_answer_that_is_not_printed_is_told(void **state)
{
    (void)state;
    char out[400];
    assert_false(tree_print_failed());
    print(NULL, out, sizeof out);
    assert_string_equal(out, "");
    assert_true(tree_print_failed());
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(members_keep_their_order_and_numbers_their_digits),
        cmocka_unit_test(a_document_that_lacks_something_is_not_printed),
        cmocka_unit_test(a_buffer_that_failed_fails_the_document),
        cmocka_unit_test(bytes_that_are_not_utf8_become_replacement_characters),
        cmocka_unit_test(nothing_that_steers_a_terminal_is_printed),
        cmocka_unit_test(an_answer_that_is_not_printed_is_told),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
