/* test_sdnotify.c: the service manager's variables, and datagrams to both kinds of
 * address.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <stdio.h>
#include <string.h>
#include <sys/un.h>
#include <unistd.h>

#include "jobqd/daemon/sdnotify.h"

static void
the_watchdogs_interval(void **state)
{
    (void)state;
    char ours[32];
    snprintf(ours, sizeof ours, "%d", (int)getpid());
    assert_int_equal(sdnotify_watchdog_ms("30000000", NULL), 30000);
    assert_int_equal(sdnotify_watchdog_ms("30000000", ""), 30000);
    assert_int_equal(sdnotify_watchdog_ms("30000000", ours), 30000);
    assert_int_equal(sdnotify_watchdog_ms("30000000", "1"), 0);
    assert_int_equal(sdnotify_watchdog_ms("30000000", "x"), 0);
    assert_int_equal(sdnotify_watchdog_ms("10", NULL), 1);
    assert_int_equal(sdnotify_watchdog_ms(NULL, NULL), 0);
    assert_int_equal(sdnotify_watchdog_ms("", NULL), 0);
    assert_int_equal(sdnotify_watchdog_ms("0", NULL), 0);
    assert_int_equal(sdnotify_watchdog_ms("-1", NULL), 0);
    assert_int_equal(sdnotify_watchdog_ms("1s", NULL), 0);
    assert_int_equal(sdnotify_watchdog_ms("99999999999999999999", NULL), 0);
}

static void
addresses_that_are_none(void **state)
{
    (void)state;
    char of_107[109], of_108[110];
    memset(of_107, 'x', sizeof of_107);
    memset(of_108, 'x', sizeof of_108);
    of_107[0] = of_108[0] = '/';
    of_107[107] = of_108[108] = '\0';
    const char *const bad[] = {NULL, "", "@", "/", "relative", "vsock:2:1", of_108};
    struct sdnotify notify;
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        sdnotify_open(&notify, bad[i]);
        assert_false(sdnotify_listened(&notify));
        assert_true(sdnotify_send(&notify, "READY=1"));
        sdnotify_close(&notify);
    }
    sdnotify_open(&notify, of_107);
    assert_true(sdnotify_listened(&notify));
    assert_false(sdnotify_send(&notify, "READY=1")); /* nobody is there */
    sdnotify_close(&notify);
}

static void
both_kinds_are_heard(void **state)
{
    (void)state;
    char names[2][64], text[32];
    snprintf(names[0], sizeof names[0], "/tmp/jobq-notify-%d", (int)getpid());
    snprintf(names[1], sizeof names[1], "@jobq-notify-%d", (int)getpid());
    for (int i = 0; i < 2; i++) {
        struct sdnotify notify;
        struct sockaddr_un address = {.sun_family = AF_UNIX};
        size_t len = strlen(names[i]);
        memcpy(address.sun_path, names[i], len);
        if (i == 1)
            address.sun_path[0] = '\0';
        int fd = socket(AF_UNIX, SOCK_DGRAM, 0);
        assert_int_equal(bind(fd, (struct sockaddr *)&address,
                              (socklen_t)(offsetof(struct sockaddr_un, sun_path) + len)),
                         0);
        sdnotify_open(&notify, names[i]);
        assert_true(sdnotify_send(&notify, "READY=1\n"));
        assert_int_equal(recv(fd, text, sizeof text, 0), 8);
        assert_memory_equal(text, "READY=1\n", 8);
        int sent = 0; /* a full queue is no reason to wait */
        while (sent < 100000 && sdnotify_send(&notify, "WATCHDOG=1\n"))
            sent++;
        assert_in_range(sent, 1, 99999);
        assert_int_equal(recv(fd, text, sizeof text, 0), 11);
        assert_true(sdnotify_send(&notify, "WATCHDOG=1\n"));
        sdnotify_close(&notify);
        close(fd);
        if (i == 0)
            unlink(names[i]);
    }
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_watchdogs_interval),
        cmocka_unit_test(addresses_that_are_none),
        cmocka_unit_test(both_kinds_are_heard),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
