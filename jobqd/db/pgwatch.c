/* pgwatch.c: one uv_poll_t on libpq's socket; see pgwatch.h. */
#include "jobqd/db/pgwatch.h"

#include <stdlib.h>

#include "jobqd/base/loopwatch.h"

/* The handle outlives its watch by the time that libuv needs to close it. */
struct pgwatch_handle {
    uv_poll_t poll;
    struct pgwatch *watch; /* NULL once it was let go */
};

void
pgwatch_init(struct pgwatch *watch, uv_loop_t *loop, pgwatch_event on_event, void *owner)
{
    *watch =
        (struct pgwatch){.loop = loop, .fd = -1, .on_event = on_event, .owner = owner};
}

static void
on_closed(uv_handle_t *poll)
{
    free(poll->data);
}

static void
on_poll(uv_poll_t *poll, int status, int events)
{
    struct pgwatch_handle *handle = poll->data;
    struct pgwatch *watch = handle->watch;
    if (!watch)
        return;
    loop_is_at("reading the database's answers", NULL);
    if (status < 0) {
        /* libuv has stopped the handle, but not told the kernel yet: let go of it here,
         * before libpq closes the descriptor. */
        pgwatch_stop(watch);
        events = UV_READABLE | UV_WRITABLE;
    }
    watch->on_event(watch->owner, events);
}

static int
open_handle(struct pgwatch *watch, int fd)
{
    struct pgwatch_handle *handle = calloc(1, sizeof *handle);
    if (!handle)
        return UV_ENOMEM;
    int rc = uv_poll_init(watch->loop, &handle->poll, fd);
    if (rc < 0) {
        free(handle); /* a handle that failed to start is not to be closed */
        return rc;
    }
    handle->poll.data = handle;
    handle->watch = watch;
    watch->handle = handle;
    watch->fd = fd;
    watch->armed = 0;
    return 0;
}

int
pgwatch_arm(struct pgwatch *watch, int fd, int events)
{
    if (watch->handle && watch->fd == fd && watch->armed == events)
        return 0; /* uv_poll_start would cost two system calls */
    if (watch->handle && watch->fd != fd)
        pgwatch_stop(watch);
    if (!watch->handle) {
        int rc = open_handle(watch, fd);
        if (rc < 0)
            return rc;
    }
    int rc = uv_poll_start(&watch->handle->poll, events, on_poll);
    if (rc == 0)
        watch->armed = events;
    return rc;
}

void
pgwatch_stop(struct pgwatch *watch)
{
    struct pgwatch_handle *handle = watch->handle;
    if (!handle)
        return;
    watch->handle = NULL;
    watch->fd = -1;
    watch->armed = 0;
    handle->watch = NULL;
    uv_close((uv_handle_t *)&handle->poll, on_closed); /* frees the handle */
}
