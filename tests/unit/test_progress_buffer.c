/* test_progress_buffer.c: the newest note of each attempt, bounded, its text whole characters. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <string.h>

#include "jobqd/pure/progress_buffer.h"

static void
the_newest_note_counts(void **state)
{
    (void)state;
    struct progress_buffer buffer = {0};
    assert_null(buffer.notes);
    for (int i = 0; i <= 1000; i++) {
        assert_true(progress_buffer_put(&buffer, 7, 1, i / 1000.0, i % 2 ? "odd" : NULL));
        assert_true(progress_buffer_put(&buffer, -8, 2, 0.25, "other"));
    }
    assert_int_equal(buffer.n, 2);
    assert_int_equal(buffer.notes[0].id, 7);
    assert_int_equal(buffer.notes[0].attempt, 1);
    assert_int_equal(buffer.notes[0].millionths, 1000000);
    assert_false(buffer.notes[0].has_text);
    assert_int_equal(buffer.notes[1].millionths, 250000);
    assert_string_equal(buffer.notes[1].text, "other");
    progress_buffer_put(&buffer, 7, 2, 0, "again");
    assert_int_equal(buffer.n, 2);
    assert_int_equal(buffer.notes[0].attempt, 2);
    assert_int_equal(buffer.notes[0].millionths, 0);
    progress_buffer_free(&buffer);
}

static void
a_full_board_renews_what_is_on_it(void **state)
{
    (void)state;
    struct progress_buffer buffer = {0};
    for (int64_t id = 1; id <= PROGRESS_BUFFER_MAX; id++)
        assert_true(progress_buffer_put(&buffer, id * 4096, 1, 0.5, NULL));
    assert_false(progress_buffer_put(&buffer, 1, 1, 0.5, NULL));
    for (int64_t id = 1; id <= PROGRESS_BUFFER_MAX; id++)
        assert_true(progress_buffer_put(&buffer, id * 4096, 1, 1, "done"));
    assert_int_equal(buffer.n, PROGRESS_BUFFER_MAX);
    for (size_t i = 0; i < PROGRESS_BUFFER_MAX; i++)
        assert_int_equal(buffer.notes[i].millionths, 1000000);
    progress_buffer_clear(&buffer);
    assert_true(progress_buffer_put(&buffer, 1, 1, 0.5, NULL));
    assert_int_equal(buffer.n, 1);
    progress_buffer_free(&buffer);
}

static void
a_text_is_cut_at_a_character(void **state)
{
    (void)state;
    static const char *const letters[] = {"x", "\xc3\xb6", "\xe2\x82\xac",
                                          "\xf0\x9f\x90\x98"};
    for (size_t l = 0; l < 4; l++) {
        for (size_t shift = 0; shift < 4; shift++) {
            struct progress_buffer buffer = {0};
            char text[PROGRESS_BUFFER_TEXT * 2 + 8] = "yyy";
            size_t width = strlen(letters[l]), len = shift;
            while (len < PROGRESS_BUFFER_TEXT + 20) {
                memcpy(text + len, letters[l], width + 1);
                len += width;
            }
            progress_buffer_put(&buffer, 1, 1, 0, text);
            size_t kept = strlen(buffer.notes[0].text);
            assert_memory_equal(buffer.notes[0].text, text, kept);
            assert_true(kept < PROGRESS_BUFFER_TEXT &&
                        kept + width >= PROGRESS_BUFFER_TEXT);
            assert_int_equal((kept - shift) % width, 0);
            progress_buffer_free(&buffer);
        }
    }
    struct progress_buffer buffer = {0};
    progress_buffer_put(&buffer, 1, 1, 0, "");
    assert_true(buffer.notes[0].has_text);
    progress_buffer_put(&buffer, 1, 1, 0,
                        "good\xff"
                        "bad");
    assert_string_equal(buffer.notes[0].text, "good");
    progress_buffer_free(&buffer);
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_newest_note_counts),
        cmocka_unit_test(a_full_board_renews_what_is_on_it),
        cmocka_unit_test(a_text_is_cut_at_a_character),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
