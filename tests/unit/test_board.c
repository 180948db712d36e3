/* test_board.c: the newest note of each attempt, bounded, its text whole characters. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <string.h>

#include "jobqd/pure/board.h"

static void
the_newest_note_counts(void **state)
{
    (void)state;
    struct board board = {0};
    assert_null(board.notes);
    for (int i = 0; i <= 1000; i++) {
        assert_true(board_put(&board, 7, 1, i / 1000.0, i % 2 ? "odd" : NULL));
        assert_true(board_put(&board, -8, 2, 0.25, "other"));
    }
    assert_int_equal(board.n, 2);
    assert_int_equal(board.notes[0].id, 7);
    assert_int_equal(board.notes[0].attempt, 1);
    assert_int_equal(board.notes[0].millionths, 1000000);
    assert_false(board.notes[0].has_text);
    assert_int_equal(board.notes[1].millionths, 250000);
    assert_string_equal(board.notes[1].text, "other");
    board_put(&board, 7, 2, 0, "again");
    assert_int_equal(board.n, 2);
    assert_int_equal(board.notes[0].attempt, 2);
    assert_int_equal(board.notes[0].millionths, 0);
    board_free(&board);
}

static void
a_full_board_renews_what_is_on_it(void **state)
{
    (void)state;
    struct board board = {0};
    for (int64_t id = 1; id <= BOARD_MOST; id++)
        assert_true(board_put(&board, id * 4096, 1, 0.5, NULL));
    assert_false(board_put(&board, 1, 1, 0.5, NULL));
    for (int64_t id = 1; id <= BOARD_MOST; id++)
        assert_true(board_put(&board, id * 4096, 1, 1, "done"));
    assert_int_equal(board.n, BOARD_MOST);
    for (size_t i = 0; i < BOARD_MOST; i++)
        assert_int_equal(board.notes[i].millionths, 1000000);
    board_clear(&board);
    assert_true(board_put(&board, 1, 1, 0.5, NULL));
    assert_int_equal(board.n, 1);
    board_free(&board);
}

static void
a_text_is_cut_at_a_character(void **state)
{
    (void)state;
    static const char *const letters[] = {"x", "\xc3\xb6", "\xe2\x82\xac",
                                          "\xf0\x9f\x90\x98"};
    for (size_t l = 0; l < 4; l++) {
        for (size_t shift = 0; shift < 4; shift++) {
            struct board board = {0};
            char text[BOARD_TEXT * 2 + 8] = "yyy";
            size_t width = strlen(letters[l]), len = shift;
            while (len < BOARD_TEXT + 20) {
                memcpy(text + len, letters[l], width + 1);
                len += width;
            }
            board_put(&board, 1, 1, 0, text);
            size_t kept = strlen(board.notes[0].text);
            assert_memory_equal(board.notes[0].text, text, kept);
            assert_true(kept < BOARD_TEXT && kept + width >= BOARD_TEXT);
            assert_int_equal((kept - shift) % width, 0);
            board_free(&board);
        }
    }
    struct board board = {0};
    board_put(&board, 1, 1, 0, "");
    assert_true(board.notes[0].has_text);
    board_put(&board, 1, 1, 0,
              "good\xff"
              "bad");
    assert_string_equal(board.notes[0].text, "good");
    board_free(&board);
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
