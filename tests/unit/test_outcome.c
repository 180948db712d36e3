/* test_outcome.c: each way in which a process can end, a row each. */
#include <errno.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

#include "jobqd/pure/outcome.h"

enum { BAD = 1, FINE = 0 };

/* What is the same in most rows: an idle worker that had said hello. */
#define WORKER .program = PROGRAM_WORKER, .said_hello = true, .path = "/app/worker"
#define EXEC                                                                             \
    .program = PROGRAM_EXEC, .said_hello = true, .holds_job = true, .path = "/app/script"
#define EXITED(code) .exit_code = (code)
#define KILLED(number) .exit_code = -1, .signal = (number)
#define NO_VERDICT (-1)

static const struct row {
    const char *name;
    struct ending ending;
    enum outcome_kind kind;
    int bad;
    int verdict; /* NO_VERDICT: no job was held */
    const char *text;
} rows[] = {
    /* ---- workers that come up, or do not ---- */
    {"the program is missing",
     {.program = PROGRAM_WORKER,
      .path = "/app/worker",
      .exec_errno = ENOENT,
      EXITED(127)},
     OUTCOME_BOOT_FAILED,
     BAD,
     NO_VERDICT,
     "cannot execute /app/worker: No such file or directory"},
    {"the program may not be executed",
     {.program = PROGRAM_WORKER,
      .path = "/app/worker",
      .exec_errno = EACCES,
      EXITED(127)},
     OUTCOME_BOOT_FAILED,
     BAD,
     NO_VERDICT,
     "cannot execute /app/worker: Permission denied"},
    {"no hello in time",
     {.program = PROGRAM_WORKER,
      .intent = INTENT_BOOT_TIMEOUT,
      .sent_signal = SIGKILL,
      .limit_ms = 10000,
      KILLED(SIGKILL)},
     OUTCOME_BOOT_FAILED,
     BAD,
     NO_VERDICT,
     "said no hello within 10000 ms"},
    {"exits before its hello",
     {.program = PROGRAM_WORKER, EXITED(2)},
     OUTCOME_BOOT_FAILED,
     BAD,
     NO_VERDICT,
     "exited with status 2 before it said hello"},
    {"crashes before its hello",
     {.program = PROGRAM_WORKER, KILLED(SIGSEGV)},
     OUTCOME_BOOT_FAILED,
     BAD,
     NO_VERDICT,
     "was killed by signal 11 (SIGSEGV) before it said hello"},
    {"told to stop while it boots",
     {.program = PROGRAM_WORKER,
      .intent = INTENT_STOP,
      .sent_signal = SIGTERM,
      KILLED(SIGTERM)},
     OUTCOME_STOPPED,
     FINE,
     NO_VERDICT,
     "stopped as asked"},

    /* ---- workers that go as asked ---- */
    {"told to stop, idle",
     {WORKER, .intent = INTENT_STOP, EXITED(0)},
     OUTCOME_STOPPED,
     FINE,
     NO_VERDICT,
     "stopped as asked"},
    {"told to stop, leaves what it had not begun",
     {WORKER, .intent = INTENT_STOP, .holds_job = true, EXITED(0)},
     OUTCOME_STOPPED,
     FINE,
     VERDICT_RELEASED,
     "stopped as asked"},
    {"told to stop, needed SIGTERM",
     {WORKER, .intent = INTENT_STOP, .sent_signal = SIGTERM, KILLED(SIGTERM)},
     OUTCOME_STOPPED,
     FINE,
     NO_VERDICT,
     "stopped as asked"},
    {"told to stop, needed SIGTERM, and has an exit code for it",
     {WORKER, .intent = INTENT_STOP, .sent_signal = SIGTERM, EXITED(143)},
     OUTCOME_STOPPED,
     FINE,
     NO_VERDICT,
     "stopped as asked"},
    {"told to stop, needed SIGKILL",
     {WORKER, .intent = INTENT_STOP, .sent_signal = SIGKILL, KILLED(SIGKILL)},
     OUTCOME_STOPPED,
     FINE,
     NO_VERDICT,
     "stopped as asked"},
    {"told to stop, crashes in its last job",
     {WORKER, .intent = INTENT_STOP, .holds_job = true, KILLED(SIGSEGV)},
     OUTCOME_CRASHED,
     FINE,
     VERDICT_CRASH,
     "was killed by signal 11 (SIGSEGV) while it held the job"},
    {"told to stop, exits badly with a job",
     {WORKER, .intent = INTENT_STOP, .holds_job = true, EXITED(1)},
     OUTCOME_CRASHED,
     FINE,
     VERDICT_CRASH,
     "exited with status 1 while it held the job"},
    {"killed with its pool",
     {WORKER, .intent = INTENT_KILL, .holds_job = true, .sent_signal = SIGKILL,
      KILLED(SIGKILL)},
     OUTCOME_STOPPED,
     FINE,
     VERDICT_RELEASED,
     "killed with its pool"},
    {"killed with its pool while a deadline had passed",
     {WORKER, .intent = INTENT_KILL, .holds_job = true, .head_timed_out = true,
      .sent_signal = SIGKILL, KILLED(SIGKILL)},
     OUTCOME_STOPPED,
     FINE,
     VERDICT_RELEASED,
     "killed with its pool"},
    {"killed by the guard",
     {WORKER, .intent = INTENT_GUARD, .holds_job = true, KILLED(SIGKILL)},
     OUTCOME_ORPHANED,
     FINE,
     VERDICT_ORPHANED,
     "jobqd had not renewed its lease in time"},

    {"could not be served: that counts, or it would be tried again for ever",
     {WORKER, .intent = INTENT_GIVE_UP, .holds_job = true, .sent_signal = SIGKILL,
      KILLED(SIGKILL)},
     OUTCOME_STOPPED,
     BAD,
     VERDICT_RELEASED,
     "killed, since it could not be served"},

    /* ---- workers that go by themselves ---- */
    {"goes after work",
     {WORKER, .answered = 10, EXITED(0)},
     OUTCOME_FINISHED,
     FINE,
     NO_VERDICT,
     "exited with status 0 by itself"},
    {"comes and goes",
     {WORKER, .answered = 0, EXITED(0)},
     OUTCOME_FINISHED,
     BAD,
     NO_VERDICT,
     "exited with status 0 by itself"},
    {"fails while idle",
     {WORKER, .answered = 10, EXITED(1)},
     OUTCOME_CRASHED,
     BAD,
     NO_VERDICT,
     "exited with status 1"},
    {"is killed while idle",
     {WORKER, .answered = 10, KILLED(SIGKILL)},
     OUTCOME_CRASHED,
     BAD,
     NO_VERDICT,
     "was killed by signal 9 (SIGKILL)"},

    /* ---- workers that crash in a job ---- */
    {"segfault",
     {WORKER, .holds_job = true, KILLED(SIGSEGV)},
     OUTCOME_CRASHED,
     BAD,
     VERDICT_CRASH,
     "was killed by signal 11 (SIGSEGV) while it held the job"},
    {"killed from outside",
     {WORKER, .holds_job = true, KILLED(SIGKILL)},
     OUTCOME_CRASHED,
     BAD,
     VERDICT_CRASH,
     "was killed by signal 9 (SIGKILL) while it held the job"},
    {"a signal without a name",
     {WORKER, .holds_job = true, KILLED(40)},
     OUTCOME_CRASHED,
     BAD,
     VERDICT_CRASH,
     "was killed by signal 40 while it held the job"},
    {"exits with a job",
     {WORKER, .holds_job = true, EXITED(3)},
     OUTCOME_CRASHED,
     BAD,
     VERDICT_CRASH,
     "exited with status 3 while it held the job"},
    {"exits with 0 and a job",
     {WORKER, .holds_job = true, EXITED(0)},
     OUTCOME_CRASHED,
     BAD,
     VERDICT_CRASH,
     "exited with status 0 while it held the job"},
    {"killed within a line",
     {WORKER, .holds_job = true, .half_line = true, KILLED(SIGKILL)},
     OUTCOME_CRASHED,
     BAD,
     VERDICT_CRASH,
     "was killed by signal 9 (SIGKILL) while it held the job"},

    /* ---- workers that break the protocol ---- */
    {"garbage with a job",
     {WORKER, .intent = INTENT_PROTOCOL, .holds_job = true, .complaint = "said nonsense",
      .sent_signal = SIGKILL, KILLED(SIGKILL)},
     OUTCOME_BAD_PROTOCOL,
     BAD,
     VERDICT_PROTOCOL,
     "said nonsense"},
    {"garbage without a job",
     {WORKER, .intent = INTENT_PROTOCOL, .complaint = "said nonsense",
      .sent_signal = SIGKILL, KILLED(SIGKILL)},
     OUTCOME_BAD_PROTOCOL,
     BAD,
     NO_VERDICT,
     "said nonsense"},
    {"garbage, then exits by itself",
     {WORKER, .intent = INTENT_PROTOCOL, .holds_job = true, .complaint = "said nonsense",
      EXITED(1)},
     OUTCOME_BAD_PROTOCOL,
     BAD,
     VERDICT_PROTOCOL,
     "said nonsense"},
    {"garbage, then a crash: the crash explains it",
     {WORKER, .intent = INTENT_PROTOCOL, .holds_job = true, .complaint = "said nonsense",
      KILLED(SIGSEGV)},
     OUTCOME_CRASHED,
     BAD,
     VERDICT_CRASH,
     "was killed by signal 11 (SIGSEGV) while it held the job"},
    {"a bad hello",
     {.program = PROGRAM_WORKER,
      .intent = INTENT_PROTOCOL,
      .complaint = "speaks protocol 2",
      .sent_signal = SIGKILL,
      KILLED(SIGKILL)},
     OUTCOME_BAD_PROTOCOL,
     BAD,
     NO_VERDICT,
     "speaks protocol 2"},
    {"ends within a line",
     {WORKER, .holds_job = true, .half_line = true, EXITED(0)},
     OUTCOME_BAD_PROTOCOL,
     BAD,
     VERDICT_PROTOCOL,
     "the connection ended within a line"},
    {"closes its socket and stays",
     {WORKER, .holds_job = true, .complaint = "closed its socket but did not exit",
      .sent_signal = SIGTERM, KILLED(SIGTERM)},
     OUTCOME_BAD_PROTOCOL,
     BAD,
     VERDICT_PROTOCOL,
     "closed its socket but did not exit"},

    /* ---- workers that are late ---- */
    {"late, killed",
     {WORKER, .intent = INTENT_TIMEOUT, .holds_job = true, .head_timed_out = true,
      .limit_ms = 500, .sent_signal = SIGKILL, KILLED(SIGKILL)},
     OUTCOME_TIMED_OUT,
     FINE,
     VERDICT_TIMEOUT,
     "ran longer than its timeout of 500 ms and was killed by signal 9 (SIGKILL)"},
    {"late, goes at SIGTERM",
     {WORKER, .intent = INTENT_TIMEOUT, .holds_job = true, .head_timed_out = true,
      .limit_ms = 500, .sent_signal = SIGTERM, EXITED(0)},
     OUTCOME_TIMED_OUT,
     FINE,
     VERDICT_TIMEOUT,
     "ran longer than its timeout of 500 ms and exited with status 0"},
    {"late, crashes when told to stop",
     {WORKER, .intent = INTENT_TIMEOUT, .holds_job = true, .head_timed_out = true,
      .limit_ms = 500, KILLED(SIGSEGV)},
     OUTCOME_TIMED_OUT,
     FINE,
     VERDICT_TIMEOUT,
     "ran longer than its timeout of 500 ms and was killed by signal 11 (SIGSEGV)"},
    {"late, answers at the last moment: the next job is not to blame",
     {WORKER, .intent = INTENT_TIMEOUT, .holds_job = true, .sent_signal = SIGTERM,
      KILLED(SIGTERM)},
     OUTCOME_TIMED_OUT,
     FINE,
     VERDICT_RELEASED,
     "ended for a job that had run past its timeout"},

    /* ---- exec programs ---- */
    {"exec: exit 0",
     {EXEC, EXITED(0)},
     OUTCOME_FINISHED,
     FINE,
     VERDICT_OK,
     "exited with status 0"},
    {"exec: exit 65",
     {EXEC, EXITED(65)},
     OUTCOME_FINISHED,
     FINE,
     VERDICT_DISCARD,
     "exited with status 65"},
    {"exec: exit 75",
     {EXEC, EXITED(75)},
     OUTCOME_FINISHED,
     FINE,
     VERDICT_SNOOZE,
     "exited with status 75"},
    {"exec: exit 1",
     {EXEC, EXITED(1)},
     OUTCOME_FINISHED,
     FINE,
     VERDICT_ERROR,
     "exited with status 1"},
    {"exec: exit 127, by the program's own word",
     {EXEC, EXITED(127)},
     OUTCOME_FINISHED,
     FINE,
     VERDICT_ERROR,
     "exited with status 127"},
    {"exec: a signal",
     {EXEC, KILLED(SIGABRT)},
     OUTCOME_CRASHED,
     FINE,
     VERDICT_CRASH,
     "was killed by signal 6 (SIGABRT) while it held the job"},
    {"exec: late",
     {EXEC, .intent = INTENT_TIMEOUT, .head_timed_out = true, .limit_ms = 900,
      .sent_signal = SIGTERM, KILLED(SIGTERM)},
     OUTCOME_TIMED_OUT,
     FINE,
     VERDICT_TIMEOUT,
     "ran longer than its timeout of 900 ms and was killed by signal 15 (SIGTERM)"},
    {"exec: late, exit 0 after SIGTERM is obedience, not success",
     {EXEC, .intent = INTENT_TIMEOUT, .head_timed_out = true, .limit_ms = 900,
      .sent_signal = SIGTERM, EXITED(0)},
     OUTCOME_TIMED_OUT,
     FINE,
     VERDICT_TIMEOUT,
     "ran longer than its timeout of 900 ms and exited with status 0"},
    {"exec: killed with its pool",
     {EXEC, .intent = INTENT_KILL, .sent_signal = SIGKILL, KILLED(SIGKILL)},
     OUTCOME_STOPPED,
     FINE,
     VERDICT_RELEASED,
     "killed with its pool"},
    {"exec: had finished when its pool was killed",
     {EXEC, .intent = INTENT_KILL, .sent_signal = SIGKILL, EXITED(0)},
     OUTCOME_FINISHED,
     FINE,
     VERDICT_OK,
     "exited with status 0"},
    {"exec: killed by the guard",
     {EXEC, .intent = INTENT_GUARD, KILLED(SIGKILL)},
     OUTCOME_ORPHANED,
     FINE,
     VERDICT_ORPHANED,
     "jobqd had not renewed its lease in time"},
    {"exec: had finished when the guard came",
     {EXEC, .intent = INTENT_GUARD, EXITED(0)},
     OUTCOME_FINISHED,
     FINE,
     VERDICT_OK,
     "exited with status 0"},
    {"exec: the program is missing",
     {EXEC, .exec_errno = ENOENT, EXITED(127)},
     OUTCOME_BOOT_FAILED,
     BAD,
     VERDICT_RELEASED,
     "cannot execute /app/script: No such file or directory"},
};

static void
each_end_means_what_its_row_says(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        const struct row *row = &rows[i];
        struct outcome outcome;
        outcome_judge(&row->ending, &outcome);
        int verdict = outcome.charged ? (int)outcome.verdict : NO_VERDICT;
        if (outcome.kind != row->kind || outcome.bad != (row->bad == BAD) ||
            verdict != row->verdict || strcmp(outcome.text, row->text) != 0)
            fail_msg("%s: %s, %s, verdict %d, \"%s\"", row->name,
                     outcome_name(outcome.kind), outcome.bad ? "bad" : "fine", verdict,
                     outcome.text);
    }
}

static void
a_snooze_by_exit_code_has_its_delay(void **state)
{
    (void)state;
    struct outcome outcome;
    outcome_judge(&(struct ending){EXEC, EXITED(EXEC_EXIT_SNOOZE)}, &outcome);
    assert_int_equal(outcome.delay_ms, OUTCOME_SNOOZE_MS);
    outcome_judge(&(struct ending){EXEC, EXITED(1)}, &outcome);
    assert_int_equal(outcome.delay_ms, -1);
}

static void
every_outcome_has_a_row(void **state)
{
    (void)state;
    static const enum outcome_kind all[] = {
#define X(name, label) name,
        OUTCOMES(X)
#undef X
    };
    for (size_t i = 0; i < sizeof all / sizeof all[0]; i++) {
        size_t n = 0;
        for (size_t k = 0; k < sizeof rows / sizeof rows[0]; k++)
            n += rows[k].kind == all[i];
        assert_true(n > 0);
        assert_true(strlen(outcome_name(all[i])) > 0);
    }
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(each_end_means_what_its_row_says),
        cmocka_unit_test(a_snooze_by_exit_code_has_its_delay),
        cmocka_unit_test(every_outcome_has_a_row),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
