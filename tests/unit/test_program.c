/* test_program.c: why a file cannot be executed, for each way in which a file can be
 * wrong. */
#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <elf.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "jobqd/base/program.h"

static char folder[] = "/tmp/jobq-program-XXXXXX";
static char path[64];

static int
set_up(void **state)
{
    (void)state;
    if (!mkdtemp(folder))
        return -1;
    snprintf(path, sizeof path, "%s/program", folder);
    return 0;
}

static int
tear_down(void **state)
{
    (void)state;
    unlink(path);
    return rmdir(folder);
}

static void
write_program(const void *data, size_t len)
{
    unlink(path);
    int fd = open(path, O_WRONLY | O_CREAT | O_CLOEXEC, 0755);
    assert_true(fd >= 0);
    assert_int_equal(write(fd, data, len), len);
    close(fd);
}

/* errno of an attempt to execute it; 0: it was. */
static int
try_to_execute(void)
{
    int said[2], why = 0;
    assert_int_equal(pipe2(said, O_CLOEXEC), 0);
    pid_t pid = fork();
    if (pid == 0) {
        char *argv[] = {path, NULL};
        execve(path, argv, NULL);
        why = errno;
        ssize_t ignored = write(said[1], &why, sizeof why);
        (void)ignored;
        _exit(127);
    }
    close(said[1]);
    ssize_t n = read(said[0], &why, sizeof why);
    close(said[0]);
    waitpid(pid, NULL, 0);
    return n == (ssize_t)sizeof why ? why : 0;
}

static const char *
fault_of(const char *program)
{
    static char why[PROGRAM_WHY];
    return program_fault(program, "/nowhere:/usr/bin:/bin", why) != PROGRAM_SOUND ? why
                                                                                  : "";
}

static void
assert_fault(const char *expected)
{
    const char *why = fault_of(path);
    if (strncmp(why, expected, strlen(expected)) != 0 || (*expected == '\0' && *why))
        fail_msg("said \"%s\", expected \"%s\"", why, expected);
}

static void
scripts_are_read(void **state)
{
    (void)state;
    static const struct {
        const char *text;
        const char *why; /* how it begins; "": none */
        int refused;     /* the kernel's errno; 0: it executes something */
    } rows[] = {
        {"#!/bin/sh\nexit 0\n", "", 0},
        {"#! /bin/sh -e\nexit 0\n", "", 0},
        {"#!/bin/sh", "", 0},
        {"#!/usr/bin/env sh\nexit 0\n", "", 0},
        {"#!/usr/bin/env -S sh -e\nexit 0\n", "", 0},
        {"#!/bin/sh\r\nexit 0\r\n", "its first line ends in a carriage return", ENOENT},
        {"#!/usr/bin/env sh\r\nexit 0\r\n", "its first line ends in a carriage return",
         0},
        {"#!/no/such/interpreter -x\n",
         "its interpreter /no/such/interpreter: No such file or directory", ENOENT},
        {"#!/etc/passwd\n", "its interpreter /etc/passwd: it is not executable", EACCES},
        {"#!/usr\n", "its interpreter /usr: it is a folder", EACCES},
        {"#!/usr/bin/env nosuchprogram\n", "its interpreter nosuchprogram is not on PATH",
         0},
        {"#!/usr/bin/env sh -e\n",
         "env would look for a program called \"sh -e\": use env -S", 0},
        {"#!\necho\n", "its #! names no interpreter", ENOEXEC},
        {"#!   \necho\n", "its #! names no interpreter", ENOEXEC},
        {"echo no interpreter\n",
         "it is neither an executable binary nor a script that begins", ENOEXEC},
        {"\xef\xbb\xbf#!/bin/sh\n", "it has a byte order mark before its #!", ENOEXEC},
        {"", "it is empty", ENOEXEC},
        {"x", "it is neither an executable binary nor a script", ENOEXEC},
    };
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        write_program(rows[i].text, strlen(rows[i].text));
        assert_fault(rows[i].why);
        assert_int_equal(try_to_execute(), rows[i].refused);
        assert_false(program_is_registered(PROGRAM_FORMATS, path));
    }
}

/* The kernel reads 256 bytes. Words that it cuts are not its matter, but a path is. */
static void
a_long_first_line_is_at_fault_only_when_its_path_is_cut(void **state)
{
    (void)state;
    char text[400];
    memset(text, 'x', sizeof text);
    memcpy(text, "#!/bin/sh ", 10);
    write_program(text, sizeof text);
    assert_fault("");
    assert_int_equal(try_to_execute(), 0);

    static const char cut[] = "its interpreter's path is longer than the part of the "
                              "first line that the kernel reads";
    for (size_t len = 250; len <= 260; len++) { /* of the line, without its newline */
        memset(text, '/', sizeof text);
        memcpy(text, "#!", 2);
        memcpy(text + len - 6, "bin/sh\n", 7);
        write_program(text, len + 1);
        int refused = try_to_execute();
        assert_fault(refused ? cut : "");
        assert_int_equal(refused, len >= 256 ? ENOEXEC : 0);
        memcpy(text + len - 6, "bin/sh x", 8);
        write_program(text, sizeof text);
        refused = try_to_execute();
        assert_fault(refused ? cut : "");
        assert_int_equal(refused, len >= 256 ? ENOEXEC : 0);
    }
    memset(text, ' ', sizeof text);
    memcpy(text, "#!", 2);
    write_program(text, sizeof text);
    assert_fault("its #! names no interpreter");
    assert_int_equal(try_to_execute(), ENOEXEC);
}

static void
an_empty_entry_of_the_path_is_the_working_directory(void **state)
{
    (void)state;
    char why[PROGRAM_WHY], here[512];
    assert_non_null(getcwd(here, sizeof here));
    static const char script[] = "#!/usr/bin/env program\n";
    write_program(script, sizeof script - 1);
    assert_int_equal(program_fault(path, "/nowhere", why), PROGRAM_FAULTY);
    assert_int_equal(chdir(folder), 0);
    assert_int_equal(program_fault(path, "/nowhere:", why), PROGRAM_SOUND);
    assert_int_equal(program_fault(path, ":/nowhere", why), PROGRAM_SOUND);
    assert_int_equal(program_fault(path, "", why), PROGRAM_SOUND);
    assert_int_equal(chdir(here), 0);
    assert_int_equal(program_fault("/no/such/file", "", why), PROGRAM_MISSING);
}

static void
an_interpreter_may_be_a_script_itself(void **state)
{
    (void)state;
    char inner[80], text[200];
    snprintf(inner, sizeof inner, "%s/inner", folder);
    snprintf(text, sizeof text, "#!%s\n", inner);
    write_program(text, strlen(text));
    FILE *file = fopen(inner, "w");
    fputs("#!/bin/sh\r\n", file);
    fclose(file);
    chmod(inner, 0755);
    snprintf(text, sizeof text,
             "its interpreter %s: its first line ends in a carriage return", inner);
    assert_fault(text);
    /* One that names itself is not followed for ever. */
    unlink(inner);
    snprintf(text, sizeof text, "#!%s\n", path);
    write_program(text, strlen(text));
    assert_fault("");
}

static size_t
read_own(char *data, size_t size)
{
    int fd = open("/proc/self/exe", O_RDONLY | O_CLOEXEC);
    ssize_t n = read(fd, data, size);
    close(fd);
    assert_true(n > (ssize_t)sizeof(Elf64_Ehdr));
    return (size_t)n;
}

static void
programs_are_read(void **state)
{
    (void)state;
    static char data[1 << 16];
    size_t len = read_own(data, sizeof data);
    Elf64_Ehdr header;
    memcpy(&header, data, sizeof header);
    write_program(data, len);
    assert_fault("");

    char *loader = NULL;
    for (size_t i = 0; i + 5 < len && !loader; i++)
        if (memcmp(data + i, "/lib", 4) == 0 || memcmp(data + i, "/usr/lib", 8) == 0)
            loader = data + i;
    assert_non_null(loader);
    loader[1] = 'X';
    write_program(data, len);
    assert_fault("its loader /X");
    assert_int_equal(try_to_execute(), ENOENT);
    loader[1] = 'l';

    Elf64_Half real = header.e_machine;
    header.e_machine = EM_S390;
    memcpy(data, &header, sizeof header);
    write_program(data, len);
    assert_fault("it is built for another kind of processor");
    header.e_machine = real;
    header.e_type = ET_REL;
    memcpy(data, &header, sizeof header);
    write_program(data, len);
    assert_fault("it is an object file");
    write_program(data, sizeof header / 2); /* cut off */
    assert_fault("");
}

static void
what_is_no_file_that_may_be_executed(void **state)
{
    (void)state;
    assert_string_equal(fault_of("/no/such/file"), "No such file or directory");
    assert_string_equal(fault_of("/etc/passwd/x"), "Not a directory");
    assert_string_equal(fault_of("/usr"), "it is a folder");
    assert_string_equal(fault_of("/dev/null"), "it is not a file");
    assert_string_equal(fault_of("/etc/passwd"), "it is not executable (chmod +x)");
    assert_string_equal(fault_of("/bin/sh"), "");
    /* One that may be executed and not read cannot be judged. */
    write_program("garbage", 7);
    assert_int_equal(chmod(path, 0711), 0);
    pid_t pid = fork();
    if (pid == 0) {
        char why[PROGRAM_WHY];
        if (geteuid() == 0 && (chmod(folder, 0711) != 0 || setuid(65534) != 0))
            _exit(2);
        bool reads = access(path, R_OK) == 0; /* its owner may */
        _exit((program_fault(path, NULL, why) != PROGRAM_SOUND) == reads ? 0 : 1);
    }
    int status;
    waitpid(pid, &status, 0);
    assert_int_equal(status, 0);
}

static void
put_format(const char *name, const char *text)
{
    char file_path[96];
    snprintf(file_path, sizeof file_path, "%s/%s", folder, name);
    FILE *file = fopen(file_path, "w");
    assert_non_null(file);
    fputs(text, file);
    fclose(file);
    assert_int_equal(chmod(file_path, 0755), 0);
}

static void
a_format_that_the_kernel_was_told_of_is_no_fault(void **state)
{
    (void)state;
    static const struct {
        const char *format;
        const char *text;
        bool takes;
    } rows[] = {
        {"enabled\ninterpreter /x\nflags: \noffset 0\nmagic 4a4f4251\n", "JOBQ...", true},
        {"enabled\ninterpreter /x\nflags: \noffset 0\nmagic 4a4f4251\n", "JOBX...",
         false},
        {"enabled\ninterpreter /x\nflags: \noffset 0\nmagic 4a4f4251\nmask ffffff00\n",
         "JOBX...", true},
        {"enabled\ninterpreter /x\nflags: \noffset 2\nmagic 4a4f\n", "..JO", true},
        {"enabled\ninterpreter /x\nflags: \noffset 2\nmagic 4a4f\n", "..J", false},
        {"disabled\ninterpreter /x\nflags: \noffset 0\nmagic 4a4f4251\n", "JOBQ", false},
        {"enabled\ninterpreter /x\nflags: \nextension .jar\n", "JOBQ", false},
        {"enabled\n", "JOBQ", false},
        {"", "JOBQ", false},
    };
    char other[96];
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        put_format("format", rows[i].format);
        write_program(rows[i].text, strlen(rows[i].text));
        assert_int_equal(program_is_registered(folder, path), rows[i].takes);
    }
    put_format("format", "enabled\ninterpreter /x\nflags: \nextension .jar\n");
    put_format("a.jar", "x");
    snprintf(other, sizeof other, "%s/a.jar", folder);
    assert_true(program_is_registered(folder, other));
    unlink(other);
    assert_false(program_is_registered("/nowhere", path));
    snprintf(other, sizeof other, "%s/format", folder);
    unlink(other);
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(scripts_are_read),
        cmocka_unit_test(a_long_first_line_is_at_fault_only_when_its_path_is_cut),
        cmocka_unit_test(an_empty_entry_of_the_path_is_the_working_directory),
        cmocka_unit_test(an_interpreter_may_be_a_script_itself),
        cmocka_unit_test(programs_are_read),
        cmocka_unit_test(what_is_no_file_that_may_be_executed),
        cmocka_unit_test(a_format_that_the_kernel_was_told_of_is_no_fault),
    };
    return cmocka_run_group_tests(tests, set_up, tear_down);
}
