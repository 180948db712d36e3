/* cron_times.c: schedules by the daemon's own reading of them, many in one process, for
 * the comparison with SQL's (integration/test_cron.py). A line SCHEDULE|ZONE|TIME on
 * stdin is answered by a line: the next three times, or what is wrong. */
#include <stdio.h>
#include <string.h>

#include "jobqd/config/timezone.h"
#include "jobqd/pure/cron.h"
#include "jobqd/pure/rfc3339.h"

static void
answer(const char *schedule, const char *zone, const char *from)
{
    struct cron cron;
    jobq_error err = {0};
    int64_t at_ms = 0;
    if (cron_parse(schedule, &cron, &err) != 0) {
        printf("schedule: %s\n", err.message);
        return;
    }
    if (timezone_check(zone, &err) != 0 || timezone_use(zone, &err) != 0) {
        printf("%s\n", err.message);
        return;
    }
    if (!rfc3339_parse(from, &at_ms)) {
        puts("no time");
        return;
    }
    for (int i = 0; i < 3; i++) {
        char text[RFC3339_SIZE];
        if (!cron_next(&cron, at_ms, timezone_offset, NULL, &at_ms))
            break;
        rfc3339_print(text, at_ms, 0);
        printf("%s%s", i > 0 ? " " : "", text);
    }
    putchar('\n');
}

int
main(void)
{
    char line[1000];
    while (fgets(line, sizeof line, stdin) != NULL) {
        line[strcspn(line, "\n")] = '\0';
        char *rest = line;
        const char *schedule = strsep(&rest, "|");
        const char *zone = strsep(&rest, "|");
        if (zone == NULL || rest == NULL)
            return 1;
        answer(schedule, zone, rest);
    }
    return 0;
}
