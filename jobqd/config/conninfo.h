/* conninfo.h: a connection string without its secrets, for output and logs. */
#ifndef JOBQD_CONNINFO_H
#define JOBQD_CONNINFO_H

#include <stdbool.h>

#include "libjobq/buf.h"

#define CONNINFO_HIDDEN "****" /* what is shown of a secret */

/* Of libpq's two forms, whether it is the URI (by how it begins, as libpq decides). */
bool conninfo_is_uri(const char *conninfo);

/* Appends conninfo (URI or keyword = value form) with **** for the value of each password
 * and sslpassword. A string that libpq would not understand is hidden as far as it might
 * hold a password. */
void conninfo_redact(struct jobq__buf *buf, const char *conninfo);

/* The same for any text: a URI's password is hidden, anything else shown as it is. */
void conninfo_redact_uri(struct jobq__buf *buf, const char *text);

#endif
