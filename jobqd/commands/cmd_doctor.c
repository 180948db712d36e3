/* cmd_doctor.c: `doctor`: what is wrong here, and what to do about it. */
#include <sysexits.h>

#include "jobqd/commands/commands.h"
#include "jobqd/commands/doctor.h"
#include "libjobq/backoff.h"
#include "libjobq/error.h"

#define HELD_DEFAULT_MS (5 * 60 * 1000)

static int
run(struct cli *cli)
{
    struct doctor doctor = {.cli = cli, .held_ms = HELD_DEFAULT_MS, .exit_code = EX_OK};
    jobq_error err = {0}, why = {0};
    const char *held = cli_get(cli, "held");
    if (held && jobq__duration_parse(held, &doctor.held_ms, &why) != 0) {
        jobq__error(&err, JOBQ_EINVAL, "--held %s: %s", held, why.message);
        return cli_fail_as(cli, EX_USAGE, &err);
    }
    int code = doctor_examine(&doctor);
    session_close(&doctor.session);
    return code;
}

static const struct cli_option options[] = {
    {"held", "TIME",
     "report what has held vacuum back for longer than TIME (default: 5m)"},
    {0}};

const struct command command_doctor = {
    .name = "doctor",
    .role = "jobq_viewer",
    .args = "",
    .summary = "Find what is wrong, and say how to fix it",
    .details =
        "It prints one line per finding: ok, warn (jobs run, but not as well as they "
        "could) or fail (jobs do not run, or may be lost), then the check, what was "
        "found, and after -> what to do. With -c it also tries the programs of the "
        "queues. It changes nothing. The exit code is 0 unless a check fails. If the "
        "role lacks pg_monitor, it says what it could not see.",
    .examples = "jobqd doctor -c jobqd.conf\n"
                "jobqd doctor --json",
    .options = options,
    .flags = CLI_DATABASE_FLAGS,
    .json = true,
    .run = run};
