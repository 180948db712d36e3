/* darkroom.c: the quickstart's worker: thumbnails and a contact sheet of photographs,
 * through libjobq.
 *
 * Its kinds: thumbnail and contact_sheet are ordinary work. unsteady, segfault and hang
 * do the same work and go wrong on purpose, in the three ways in which handlers go wrong:
 * an error, a crash, a deadline.
 */
#include <jobq/worker.h>

#include <cjson/cJSON.h>
#include <dirent.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "picture.h"

#define COLUMNS 5
#define CELL_WIDTH 320
#define CELL_HEIGHT 220
#define GAP 10
#define MAX_CELLS 200
#define NOT_YET_MS                                                                       \
    200 /* a sheet without all of its thumbnails is tried again after this */

/* Args of all kinds: {"photo": PATH, "width": N, "out": PATH} or {"folder": PATH,
 * "count": N, "out": PATH}. */
struct request {
    cJSON *json; /* owns the strings */
    const char *photo;
    const char *folder;
    const char *out;
    unsigned width;
    unsigned count;
};

static const char *
text(const cJSON *json, const char *name)
{
    return cJSON_GetStringValue(cJSON_GetObjectItemCaseSensitive(json, name));
}

static unsigned
number(const cJSON *json, const char *name)
{
    const cJSON *item = cJSON_GetObjectItemCaseSensitive(json, name);
    return cJSON_IsNumber(item) && item->valuedouble >= 1 && item->valuedouble <= 20000
               ? (unsigned)item->valuedouble
               : 0;
}

static int
read_request(struct request *request, const jobq_work *work)
{
    *request = (struct request){.json = cJSON_Parse(jobq_work_args(work))};
    request->photo = text(request->json, "photo");
    request->folder = text(request->json, "folder");
    request->out = text(request->json, "out");
    request->width = number(request->json, "width");
    request->count = number(request->json, "count");
    return request->out ? 0 : -1;
}

static int
answer_made(jobq_work *work, const char *path, const struct picture *picture)
{
    char result[128];
    printf("made %s, %u x %u\n", path, picture->width, picture->height);
    snprintf(result, sizeof result, "{\"width\": %u, \"height\": %u}", picture->width,
             picture->height);
    return jobq_work_ok(work, result, NULL);
}

/* ---- thumbnail ---- */

static int
make_thumbnail(struct picture *small, const struct request *request, char *why,
               size_t size)
{
    struct picture whole = {0};
    int failed = picture_read(&whole, request->photo, request->width, why, size);
    if (!failed)
        failed = picture_shrink(small, &whole, request->width, why, size);
    if (!failed)
        failed = picture_write(small, request->out, why, size);
    picture_clear(&whole);
    return failed;
}

static int
thumbnail(jobq_work *work, void *data)
{
    (void)data;
    struct request request;
    struct picture small = {0};
    char why[512];
    int code;
    if (read_request(&request, work) != 0 || !request.photo || !request.width)
        code = jobq_work_discard(work, "args must have photo, width (1 to 20000) and out",
                                 NULL);
    else if (make_thumbnail(&small, &request, why, sizeof why) != 0)
        code = jobq_work_error(work, why, NULL, -1, NULL);
    else
        code = answer_made(work, request.out, &small);
    picture_clear(&small);
    cJSON_Delete(request.json);
    return code;
}

/* ---- contact sheet ---- */

static int
by_name(const void *a, const void *b)
{
    return strcmp(*(char *const *)a, *(char *const *)b);
}

/* The JPEG files in a folder, sorted; each to be freed. */
static unsigned
list_pictures(const char *folder, char **names)
{
    unsigned n = 0;
    DIR *entries = opendir(folder);
    for (struct dirent *entry; entries && (entry = readdir(entries)) && n < MAX_CELLS;) {
        size_t len = strlen(entry->d_name);
        if (len > 4 && strcmp(entry->d_name + len - 4, ".jpg") == 0 &&
            asprintf(&names[n], "%s/%s", folder, entry->d_name) >= 0)
            n++;
    }
    if (entries)
        closedir(entries);
    qsort(names, n, sizeof *names, by_name);
    return n;
}

/* The picture in the middle of its cell. */
static int
paste_cell(struct picture *sheet, const char *path, unsigned nth, char *why, size_t size)
{
    struct picture whole = {0};
    struct picture small = {0};
    int failed = picture_read(&whole, path, 0, why, size);
    /* A picture higher than its cell is made narrower. */
    unsigned width = CELL_WIDTH;
    if (!failed && whole.height * CELL_WIDTH > whole.width * CELL_HEIGHT)
        width = whole.width * CELL_HEIGHT / whole.height;
    if (!failed)
        failed = picture_shrink(&small, &whole, width, why, size);
    if (!failed)
        picture_paste(
            sheet, &small,
            GAP + nth % COLUMNS * (CELL_WIDTH + GAP) + (CELL_WIDTH - small.width) / 2,
            GAP + nth / COLUMNS * (CELL_HEIGHT + GAP) + (CELL_HEIGHT - small.height) / 2);
    picture_clear(&whole);
    picture_clear(&small);
    return failed;
}

static int
make_sheet(jobq_work *work, struct picture *sheet, char *const *names, unsigned n,
           const char *out, char *why, size_t size)
{
    unsigned rows = (n + COLUMNS - 1) / COLUMNS;
    int failed = picture_blank(sheet, GAP + COLUMNS * (CELL_WIDTH + GAP),
                               GAP + rows * (CELL_HEIGHT + GAP), why, size);
    for (unsigned i = 0; i < n && !failed; i++) {
        failed = paste_cell(sheet, names[i], i, why, size);
        jobq_work_progress(work, (double)(i + 1) / n, "pasting", NULL);
    }
    return failed ? failed : picture_write(sheet, out, why, size);
}

static int
contact_sheet(jobq_work *work, void *data)
{
    (void)data;
    struct request request;
    struct picture sheet = {0};
    char *names[MAX_CELLS];
    char why[512];
    unsigned n = 0;
    int code;
    if (read_request(&request, work) == 0 && request.folder && request.count)
        n = list_pictures(request.folder, names);
    if (!request.out || !request.folder || !request.count)
        code = jobq_work_discard(
            work, "args must have folder, count (1 to 20000) and out", NULL);
    else if (n < request.count)
        code = jobq_work_snooze(work, NOT_YET_MS, NULL); /* not counted as an attempt */
    else if (make_sheet(work, &sheet, names, n, request.out, why, sizeof why) != 0)
        code = jobq_work_error(work, why, NULL, -1, NULL);
    else
        code = answer_made(work, request.out, &sheet);
    for (unsigned i = 0; i < n; i++)
        free(names[i]);
    picture_clear(&sheet);
    cJSON_Delete(request.json);
    return code;
}

/* ---- what goes wrong ---- */

static int
unsteady(jobq_work *work, void *data)
{
    if (jobq_work_attempt(work) > 2)
        return thumbnail(work, data);
    fprintf(stderr, "the lamp of the enlarger is still cold\n");
    return jobq_work_error(work, "the lamp is cold", "attempts 1 and 2 fail on purpose",
                           -1, NULL);
}

static int
segfault(jobq_work *work, void *data)
{
    (void)work;
    (void)data;
    fprintf(stderr, "about to read a photograph at address 0\n");
    fflush(stderr);
    struct picture nowhere = {.pixels = NULL, .width = 1, .height = 1};
    return *(volatile unsigned char *)nowhere.pixels;
}

static int
hang(jobq_work *work, void *data)
{
    (void)work;
    (void)data;
    fprintf(stderr, "waiting for a print that never dries\n");
    while (pause() < 0)
        ; /* never asks jobq_work_should_stop, and ignores SIGTERM, too */
    return 0;
}

int
main(void)
{
    const jobq_worker_kind kinds[] = {{"thumbnail", thumbnail, NULL},
                                      {"contact_sheet", contact_sheet, NULL},
                                      {"unsteady", unsteady, NULL},
                                      {"segfault", segfault, NULL},
                                      {"hang", hang, NULL}};
    jobq_worker_options options = JOBQ_WORKER_OPTIONS_INIT;
    jobq_error err;
    options.kinds = kinds;
    options.n_kinds = sizeof kinds / sizeof *kinds;
    setvbuf(stdout, NULL, _IOLBF, 0);
    if (jobq_worker_run(&options, &err) != 0) {
        fprintf(stderr, "darkroom: %s\n", err.message);
        return 1;
    }
    return 0;
}
