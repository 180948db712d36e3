/* fuzz_config.c: a configuration file, and after each NUL a variable of the environment
 * or (beginning with --) a flag, through config_load.
 *
 * Promised: an error has its words and leaves the outcome untouched; what is accepted is
 * printed as a file that is accepted to the same effect, and as one JSON object.
 */
#include "tests/fuzz/fuzz.h"

#include <sys/mman.h>
#include <unistd.h>

#include "jobqd/config/config.h"
#include "libjobq/json.h"

enum { MAX_MORE = 8 };

static int file_fd = -1;
static char file_path[64];

static void
write_file(const char *bytes, size_t len)
{
    if (file_fd < 0) {
        file_fd = memfd_create("fuzz.conf", MFD_CLOEXEC);
        must(file_fd >= 0);
        snprintf(file_path, sizeof file_path, "/proc/self/fd/%d", file_fd);
    }
    must(ftruncate(file_fd, 0) == 0);
    must(pwrite(file_fd, bytes, len, 0) == (ssize_t)len);
}

/* What config_print prints to stdout; for free(). */
static char *
printed(const struct config *config, bool json, bool secrets, size_t *len)
{
    FILE *was = stdout;
    char *text = NULL;
    stdout = open_memstream(&text, len);
    must(stdout != NULL);
    config_print(config, json, secrets);
    fclose(stdout);
    stdout = was;
    return text;
}

static void
check_printed(struct config *config)
{
    size_t len, json_len, again_len;
    jobq_error err = {0};
    struct config *again = NULL;
    char *none[] = {NULL};
    char *ini = printed(config, false, true, &len);
    char *json = printed(config, true, true, &json_len);
    must(jobq__json_check_object(json, json_len, "the configuration", &err) == 0);
    write_file(ini, len);
    if (config_load(&again, file_path, none, NULL, 0, &err) != 0) {
        fprintf(stderr, "%s\n--- was printed:\n%s", err.message, ini);
        abort();
    }
    char *ini_again = printed(again, false, true, &again_len);
    if (again_len != len || memcmp(ini, ini_again, len) != 0) {
        fprintf(stderr, "--- was printed:\n%s--- and then:\n%s", ini, ini_again);
        abort();
    }
    free(ini_again);
    free(json);
    free(ini);
    config_free(again);
}

int
LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    char *text = fuzz_text(data, size);
    char *environment[MAX_MORE + 1] = {NULL};
    struct config_flag flags[MAX_MORE];
    size_t n_environment = 0, n_flags = 0;
    size_t len = strlen(text);
    for (char *at = text + len; at < text + size; at += strlen(at)) {
        at++;
        char *equals = strchr(at, '=');
        if (strncmp(at, "--", 2) == 0 && equals && n_flags < MAX_MORE) {
            char *value = equals + 1;
            *equals = '\0';
            flags[n_flags++] = (struct config_flag){at + 2, value};
            at = value;
        } else if (equals && n_environment < MAX_MORE) {
            environment[n_environment++] = at;
        }
    }
    write_file(text, len);
    struct config *config = NULL;
    jobq_error err = {0};
    int rc = config_load(&config, file_path, environment, flags, n_flags, &err);
    if (rc == 0) {
        must(config != NULL);
        check_printed(config);
        config_free(config);
    } else {
        must(rc < 0 && config == NULL && err.message[0] != '\0');
    }
    free(text);
    return 0;
}
