/* picture.c: see picture.h. libjpeg does the pixels; its errors, which jump, are made
 * into return values here. */
#include "picture.h"

#include <errno.h>
#include <setjmp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <jpeglib.h>

#define QUALITY 85
#define DARK 24 /* of a sheet's background */

/* libjpeg calls error_exit and expects it not to return. */
struct trap {
    struct jpeg_error_mgr manager;
    jmp_buf back;
    char message[JMSG_LENGTH_MAX];
};

static void
on_error(j_common_ptr codec)
{
    struct trap *trap = (struct trap *)codec->err;
    codec->err->format_message(codec, trap->message);
    longjmp(trap->back, 1);
}

static void
on_warning(j_common_ptr codec)
{
    (void)codec; /* a damaged photograph is shown as far as it goes */
}

static struct jpeg_error_mgr *
set_trap(struct trap *trap)
{
    jpeg_std_error(&trap->manager);
    trap->manager.error_exit = on_error;
    trap->manager.output_message = on_warning;
    return &trap->manager;
}

static int
allocate(struct picture *picture, unsigned width, unsigned height)
{
    *picture = (struct picture){.width = width, .height = height};
    picture->pixels = malloc((size_t)width * height * 3);
    return picture->pixels ? 0 : -1;
}

void
picture_clear(struct picture *picture)
{
    free(picture->pixels);
    *picture = (struct picture){0};
}

static unsigned char *
row(const struct picture *picture, unsigned y)
{
    return picture->pixels + (size_t)y * picture->width * 3;
}

/* The codec shrinks by eighths: the smallest that is wide enough. */
static void
choose_scale(struct jpeg_decompress_struct *codec, unsigned min_width)
{
    codec->scale_denom = 8;
    for (codec->scale_num = 1; codec->scale_num < 8; codec->scale_num++)
        if (min_width &&
            (unsigned long)codec->image_width * codec->scale_num / 8 >= min_width)
            break;
}

int
picture_read(struct picture *out, const char *path, unsigned min_width, char *why,
             size_t size)
{
    FILE *file = fopen(path, "rb");
    if (!file) {
        snprintf(why, size, "%s: %s", path, strerror(errno));
        return -1;
    }
    struct jpeg_decompress_struct codec;
    struct trap trap;
    /* volatile: both are changed after setjmp, and needed after a jump */
    unsigned char *volatile pixels = NULL;
    volatile int result = -1;
    codec.err = set_trap(&trap);
    if (setjmp(trap.back)) {
        snprintf(why, size, "%s: %s", path, trap.message);
        goto out;
    }
    jpeg_create_decompress(&codec);
    jpeg_stdio_src(&codec, file);
    jpeg_read_header(&codec, TRUE);
    choose_scale(&codec, min_width);
    codec.out_color_space = JCS_RGB;
    jpeg_start_decompress(&codec);
    struct picture picture;
    if (allocate(&picture, codec.output_width, codec.output_height) != 0) {
        snprintf(why, size, "out of memory");
        goto out;
    }
    pixels = picture.pixels;
    while (codec.output_scanline < codec.output_height) {
        JSAMPROW line = row(&picture, codec.output_scanline);
        jpeg_read_scanlines(&codec, &line, 1);
    }
    jpeg_finish_decompress(&codec);
    *out = picture;
    pixels = NULL; /* the caller's now */
    result = 0;
out:
    jpeg_destroy_decompress(&codec);
    free(pixels);
    fclose(file);
    return result;
}

/* The average colour of the pixels x0 … x1-1 by y0 … y1-1. */
static void
average(const struct picture *from, unsigned x0, unsigned x1, unsigned y0, unsigned y1,
        unsigned char *pixel)
{
    unsigned long long sum[3] = {0, 0, 0};
    for (unsigned y = y0; y < y1; y++)
        for (unsigned x = x0; x < x1; x++)
            for (int c = 0; c < 3; c++)
                sum[c] += row(from, y)[(size_t)x * 3 + (size_t)c];
    unsigned long long n = (unsigned long long)(x1 - x0) * (y1 - y0);
    for (int c = 0; c < 3; c++)
        pixel[c] = (unsigned char)(sum[c] / n);
}

int
picture_shrink(struct picture *out, const struct picture *from, unsigned width, char *why,
               size_t size)
{
    if (width == 0 || width > from->width)
        width = from->width;
    unsigned height = (unsigned)((unsigned long long)from->height * width / from->width);
    struct picture small;
    if (allocate(&small, width, height ? height : 1) != 0) {
        snprintf(why, size, "out of memory");
        return -1;
    }
    for (unsigned y = 0; y < small.height; y++)
        for (unsigned x = 0; x < small.width; x++)
            average(from, (unsigned)((unsigned long long)x * from->width / small.width),
                    (unsigned)((x + 1ULL) * from->width / small.width),
                    (unsigned)((unsigned long long)y * from->height / small.height),
                    (unsigned)((y + 1ULL) * from->height / small.height),
                    row(&small, y) + (size_t)x * 3);
    *out = small;
    return 0;
}

int
picture_blank(struct picture *out, unsigned width, unsigned height, char *why,
              size_t size)
{
    struct picture blank;
    if (allocate(&blank, width, height) != 0) {
        snprintf(why, size, "out of memory");
        return -1;
    }
    memset(blank.pixels, DARK, (size_t)width * height * 3);
    *out = blank;
    return 0;
}

void
picture_paste(struct picture *onto, const struct picture *from, unsigned x, unsigned y)
{
    if (x >= onto->width)
        return;
    unsigned width = from->width < onto->width - x ? from->width : onto->width - x;
    for (unsigned line = 0; line < from->height && y + line < onto->height; line++)
        memcpy(row(onto, y + line) + (size_t)x * 3, row(from, line), (size_t)width * 3);
}

static int
encode(const struct picture *picture, FILE *file, char *why, size_t size)
{
    struct jpeg_compress_struct codec;
    struct trap trap;
    codec.err = set_trap(&trap);
    if (setjmp(trap.back)) {
        snprintf(why, size, "%s", trap.message);
        jpeg_destroy_compress(&codec);
        return -1;
    }
    jpeg_create_compress(&codec);
    jpeg_stdio_dest(&codec, file);
    codec.image_width = picture->width;
    codec.image_height = picture->height;
    codec.input_components = 3;
    codec.in_color_space = JCS_RGB;
    jpeg_set_defaults(&codec);
    jpeg_set_quality(&codec, QUALITY, TRUE);
    jpeg_start_compress(&codec, TRUE);
    while (codec.next_scanline < codec.image_height) {
        JSAMPROW line = row(picture, codec.next_scanline);
        jpeg_write_scanlines(&codec, &line, 1);
    }
    jpeg_finish_compress(&codec);
    jpeg_destroy_compress(&codec);
    return 0;
}

int
picture_write(const struct picture *picture, const char *path, char *why, size_t size)
{
    char draft[4096];
    int len = snprintf(draft, sizeof draft, "%s.%d", path, (int)getpid());
    if (len < 0 || (size_t)len >= sizeof draft) {
        snprintf(why, size, "%.80s…: the path is too long", path);
        return -1;
    }
    FILE *file = fopen(draft, "wb");
    if (!file) {
        snprintf(why, size, "%s: %s", draft, strerror(errno));
        return -1;
    }
    int failed = encode(picture, file, why, size);
    if (fclose(file) != 0 && !failed) {
        snprintf(why, size, "%s: %s", draft, strerror(errno));
        failed = -1;
    }
    if (!failed && rename(draft, path) != 0) {
        snprintf(why, size, "%s: %s", path, strerror(errno));
        failed = -1;
    }
    if (failed)
        unlink(draft);
    return failed;
}
