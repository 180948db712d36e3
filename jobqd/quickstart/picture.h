/* picture.h: JPEG files as pixels: read, shrink, lay beside each other, write. Knows no
 * jobs. */
#ifndef QUICKSTART_PICTURE_H
#define QUICKSTART_PICTURE_H

#include <stddef.h>

/* RGB, a byte each, rows from the top without gaps. All zero: no picture. */
struct picture {
    unsigned char *pixels;
    unsigned width;
    unsigned height;
};

/* All return 0, or -1 with a one-line reason in why. A failed call leaves *out alone. */

/* Reads a JPEG, already shrunk on the way (the codec leaves out what is not needed) to
 * the smallest size that is still at least min_width wide; 0: in full. */
int picture_read(struct picture *out, const char *path, unsigned min_width, char *why,
                 size_t size);
/* Every new pixel is the average of those that it stands for. The height follows. Never
 * enlarges. */
int picture_shrink(struct picture *out, const struct picture *from, unsigned width,
                   char *why, size_t size);
/* A dark sheet of the given size. */
int picture_blank(struct picture *out, unsigned width, unsigned height, char *why,
                  size_t size);
/* Copies `from` into `onto`, its upper left corner at x, y; what would lie outside is
 * left out. */
void picture_paste(struct picture *onto, const struct picture *from, unsigned x,
                   unsigned y);
/* Writes a JPEG beside path and renames it into place: nobody ever sees half a file. */
int picture_write(const struct picture *picture, const char *path, char *why,
                  size_t size);

void picture_clear(struct picture *picture);

#endif
