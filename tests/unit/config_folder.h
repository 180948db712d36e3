/* config_folder.h: what the tests of the configuration share: a folder of their own, which is
 * the current one, and loading of a text as its t.conf. */
#ifndef TESTS_CONFIG_FOLDER_H
#define TESTS_CONFIG_FOLDER_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>
#include <cmocka.h>

#include "jobqd/config/config.h"

static char folder[] = "/tmp/jobq-test-config-XXXXXX";
static char *const no_environment[] = {(char[]){"PATH=/usr/bin:/bin"}, NULL};

static inline void
write_file(const char *name, const char *text)
{
    FILE *file = fopen(name, "w");
    assert_non_null(file);
    assert_true(fputs(text, file) >= 0);
    assert_int_equal(fclose(file), 0);
}

static inline int
enter_folder(void **state)
{
    (void)state;
    if (mkdtemp(folder) == NULL || chdir(folder) != 0)
        return -1;
    write_file("worker", "#!/bin/sh\n");
    write_file("plain", "not a program\n");
    return chmod("worker", 0755) != 0 || chmod("plain", 0644) != 0 ||
           mkdir("dir", 0755) != 0;
}

static inline int
leave_folder(void **state)
{
    (void)state;
    unlink("worker");
    unlink("plain");
    unlink("t.conf");
    rmdir("dir");
    return chdir("/") != 0 || rmdir(folder) != 0;
}

static inline struct config *
load(const char *text, char *const *environment)
{
    struct config *config = NULL;
    jobq_error err = {0};
    write_file("t.conf", text);
    int rc = config_load(&config, "t.conf", environment, NULL, 0, &err);
    assert_string_equal(err.message, "");
    assert_int_equal(rc, 0);
    return config;
}

#endif
