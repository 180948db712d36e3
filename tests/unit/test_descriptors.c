/* test_descriptors.c: what a program that is executed finds open, and not, on new kernels
 * and old ones. */
#include <errno.h>
#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <linux/filter.h>
#include <linux/seccomp.h>

#include <cmocka.h>

#include "jobqd/proc/descriptors.h"

enum { MANY = 200, LAST = 900 };

/* From here on this process has a kernel without close_range. */
static bool
forbid_close_range(void)
{
    struct sock_filter code[] = {
        BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr)),
        BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_close_range, 0, 1),
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ERRNO | ENOSYS),
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
    };
    struct sock_fprog filter = {.len = sizeof code / sizeof *code, .filter = code};
    return prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) == 0 &&
           prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &filter) == 0 &&
           syscall(SYS_close_range, 1000u, 1000u, 0u) == -1 && errno == ENOSYS;
}

static bool
is_sealed(int fd)
{
    return fcntl(fd, F_GETFD) == FD_CLOEXEC;
}

/* More than one read of the directory holds. */
static bool
open_many(int *fds)
{
    for (int i = 0; i < MANY; i++) {
        fds[i] = dup(STDERR_FILENO);
        if (fds[i] < 0)
            return false;
    }
    return dup2(STDERR_FILENO, LAST) == LAST;
}

/* Returns the line that is not so, or 0. In a process of its own: the filter stays. */
static int
look(bool old_kernel)
{
    int fds[MANY];
    struct rlimit limit = {.rlim_cur = 1024, .rlim_max = 1024};
    setrlimit(RLIMIT_NOFILE, &limit);
    if (old_kernel && !forbid_close_range())
        return 200;
    if (!open_many(fds))
        return 201;
    descriptors_seal(fds[10]);
    for (int i = 0; i < MANY; i++) {
        if (is_sealed(fds[i]) != (i >= 10))
            return i + 1;
    }
    if (!is_sealed(LAST))
        return 202;
    descriptors_seal(STDERR_FILENO + 1);
    if (!is_sealed(fds[0]) || is_sealed(STDIN_FILENO) || is_sealed(STDERR_FILENO))
        return 203;
    int next = dup(STDERR_FILENO);
    return next == fds[MANY - 1] + 1 ? 0 : 204; /* nothing of its own is left open */
}

static void
on_kernel(bool old)
{
    int status;
    pid_t pid = fork();
    if (pid == 0)
        _exit(look(old));
    assert_int_equal(waitpid(pid, &status, 0), pid);
    assert_true(WIFEXITED(status));
    assert_int_equal(WEXITSTATUS(status), 0);
}

static void
all_from_the_first_on_are_sealed(void **state)
{
    (void)state;
    on_kernel(false);
}

static void
an_old_kernel_seals_them_one_by_one(void **state)
{
    (void)state;
    on_kernel(true);
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(all_from_the_first_on_are_sealed),
        cmocka_unit_test(an_old_kernel_seals_them_one_by_one),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
