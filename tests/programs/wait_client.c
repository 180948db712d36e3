/* wait_client: waits for jobs as an application does, with a client of its own.
 *
 *     wait_client CONNINFO TIMEOUT_MS ID...
 *
 * Prints "ID STATE RESULT" for each, or "ID CODE". With JOBQ_TEST_LENT in its environment
 * it waits by jobq_job_wait, on the client's connection. */
#include <jobq/jobq.h>

#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>

int
main(int argc, char **argv)
{
    jobq_client_options options = JOBQ_CLIENT_OPTIONS_INIT;
    jobq_client *client = NULL;
    jobq_error err = {0};
    bool lent = getenv("JOBQ_TEST_LENT") != NULL;
    if (argc < 4)
        return 64;
    options.database = argv[1];
    if (jobq_client_open(&options, &client, &err) != 0) {
        fprintf(stderr, "%s\n", err.message);
        return 1;
    }
    puts("waits");
    fflush(stdout);
    for (int i = 3; i < argc; i++) {
        jobq_job_info *info = NULL;
        int64_t id = strtoll(argv[i], NULL, 10), timeout_ms = strtoll(argv[2], NULL, 10);
        int rc = lent ? jobq_job_wait(jobq_client_conn(client), NULL, id, timeout_ms,
                                      &info, &err)
                      : jobq_client_wait(client, id, timeout_ms, &info, &err);
        if (rc == 0)
            printf("%s %s %s\n", argv[i], info->state, info->result ? info->result : "-");
        else
            printf("%s %s\n", argv[i], jobq_code_name(rc));
        fflush(stdout);
        jobq_job_info_free(info);
    }
    jobq_client_close(client);
    return 0;
}
