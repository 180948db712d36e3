/* album.c: enqueues thumbnails of photographs, and a contact sheet of them, through
 * libjobq.
 *
 *     album DATABASE-URI RESULTS-FOLDER "WIDTH …" PHOTO…
 *
 * It does so in one transaction of its own connection, as an application would together with
 * its own statements: either every job of the album exists, or none.
 */
#include <jobq/job.h>

#include <cjson/cJSON.h>
#include <libpq-fe.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define QUEUE "photos"
#define SHEET_WIDTH 320 /* the sheet consists of the thumbnails of this width */
#define MAX_WIDTHS 16

struct album {
    const char *results;
    int widths[MAX_WIDTHS];
    size_t n_widths;
    char *const *photos;
    size_t n_photos;
    jobq_job *jobs; /* a thumbnail of each photograph in each width */
    char **args;    /* of each job; jobs lends them */
    size_t n_jobs;
};

static const char *
base_name(const char *path)
{
    const char *slash = strrchr(path, '/');
    return slash ? slash + 1 : path;
}

/* The caller's, for cJSON_free; NULL without memory. */
static char *
thumbnail_args(const struct album *album, const char *photo, int width)
{
    char out[4096];
    char *text = NULL;
    cJSON *args = cJSON_CreateObject();
    int len = snprintf(out, sizeof out, "%s/thumbnails/%d/%s", album->results, width,
                       base_name(photo));
    if (len > 0 && (size_t)len < sizeof out &&
        cJSON_AddStringToObject(args, "photo", photo) &&
        cJSON_AddNumberToObject(args, "width", width) &&
        cJSON_AddStringToObject(args, "out", out))
        text = cJSON_PrintUnformatted(args);
    cJSON_Delete(args);
    return text;
}

static char *
sheet_args(const struct album *album)
{
    char folder[4096];
    char out[4096];
    char *text = NULL;
    cJSON *args = cJSON_CreateObject();
    int a =
        snprintf(folder, sizeof folder, "%s/thumbnails/%d", album->results, SHEET_WIDTH);
    int b = snprintf(out, sizeof out, "%s/contact-sheet.jpg", album->results);
    if (a > 0 && (size_t)a < sizeof folder && b > 0 && (size_t)b < sizeof out &&
        cJSON_AddStringToObject(args, "folder", folder) &&
        cJSON_AddNumberToObject(args, "count", (double)album->n_photos) &&
        cJSON_AddStringToObject(args, "out", out))
        text = cJSON_PrintUnformatted(args);
    cJSON_Delete(args);
    return text;
}

static int
parse_widths(struct album *album, const char *text)
{
    char *end;
    for (long width; album->n_widths < MAX_WIDTHS; text = end) {
        width = strtol(text, &end, 10);
        if (end == text)
            break;
        if (width < 1 || width > 20000)
            return -1;
        album->widths[album->n_widths++] = (int)width;
    }
    return album->n_widths > 0 && text[strspn(text, " ")] == '\0' ? 0 : -1;
}

static int
fill_jobs(struct album *album)
{
    size_t n = album->n_photos * album->n_widths;
    album->jobs = calloc(n, sizeof *album->jobs);
    album->args = calloc(n, sizeof *album->args);
    if (!album->jobs || !album->args)
        return -1;
    for (size_t p = 0; p < album->n_photos; p++) {
        for (size_t w = 0; w < album->n_widths; w++) {
            jobq_job job = JOBQ_JOB_INIT;
            job.kind = "thumbnail";
            job.queue = QUEUE;
            job.priority = 1; /* single jobs (priority 0) go first */
            char *args = thumbnail_args(album, album->photos[p], album->widths[w]);
            if (!args)
                return -1;
            job.args = args;
            album->args[album->n_jobs] = args;
            album->jobs[album->n_jobs++] = job;
        }
    }
    return 0;
}

static void
clear(struct album *album)
{
    for (size_t i = 0; i < album->n_jobs; i++)
        cJSON_free(album->args[i]);
    free(album->args);
    free(album->jobs);
}

static int
enqueue_sheet(PGconn *conn, const struct album *album, jobq_error *err)
{
    jobq_job job = JOBQ_JOB_INIT;
    char *args = sheet_args(album);
    job.kind = "contact_sheet";
    job.queue = QUEUE;
    job.priority = 2; /* behind what it is made of */
    job.args = args;
    int code = JOBQ_ENOMEM;
    snprintf(err->message, sizeof err->message, "out of memory");
    if (args)
        code = jobq_enqueue(conn, &job, NULL, err);
    cJSON_free(args);
    return code;
}

/* A statement of our own; false after saying what is wrong. */
static int
run(PGconn *conn, const char *sql)
{
    PGresult *result = PQexec(conn, sql);
    int ok = PQresultStatus(result) == PGRES_COMMAND_OK;
    PQclear(result);
    if (!ok)
        fprintf(stderr, "album: %s: %s", sql, PQerrorMessage(conn));
    return ok;
}

static int
enqueue_album(PGconn *conn, const struct album *album)
{
    jobq_error err = {0};
    if (!run(conn, "BEGIN"))
        return -1;
    int code = jobq_enqueue_many(conn, album->jobs, album->n_jobs, NULL, &err);
    if (code == 0)
        code = enqueue_sheet(conn, album, &err);
    if (code != 0) {
        fprintf(stderr, "album: %s\n", err.message);
        run(conn, "ROLLBACK");
        return -1;
    }
    return run(conn, "COMMIT") ? 0 : -1;
}

int
main(int argc, char **argv)
{
    if (argc < 5) {
        fprintf(stderr, "usage: album DATABASE-URI RESULTS-FOLDER \"WIDTH …\" PHOTO…\n");
        return 64;
    }
    struct album album = {
        .results = argv[2], .photos = argv + 4, .n_photos = (size_t)argc - 4};
    int result = 1;
    if (parse_widths(&album, argv[3]) != 0) {
        fprintf(stderr, "album: \"%s\": must be 1 to %d widths of 1 to 20000\n", argv[3],
                MAX_WIDTHS);
        return 64;
    }
    PGconn *conn = PQconnectdb(argv[1]);
    if (PQstatus(conn) != CONNECTION_OK)
        fprintf(stderr, "album: %s", PQerrorMessage(conn));
    else if (fill_jobs(&album) != 0)
        fprintf(stderr, "album: out of memory, or a path is too long\n");
    else if (enqueue_album(conn, &album) == 0)
        result = 0;
    if (result == 0)
        printf("%zu jobs: %zu thumbnails and a contact sheet\n", album.n_jobs + 1,
               album.n_jobs);
    clear(&album);
    PQfinish(conn);
    return result;
}
