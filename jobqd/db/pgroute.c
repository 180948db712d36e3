/* pgroute.c: connection settings, host names and the order of hosts; see pgroute.h.
 *
 * Why names are looked up here: PQconnectPoll calls getaddrinfo itself and blocks in it,
 * for many seconds when a name server is away. So names are looked up in libuv's thread
 * pool and handed to libpq as hostaddr, one entry for each address found, beside the
 * unchanged host (which TLS verification and the password file go by).
 */
#include "jobqd/db/pgroute.h"

#include <assert.h>
#include <netdb.h>
#include <stdlib.h>
#include <string.h>

#include "jobqd/pure/list.h"
#include "libjobq/buf.h"
#include "libjobq/error.h"

enum { DEFAULT_TIMEOUT_S = 10, MAX_TIMEOUT_S = 3600, MAX_SETTINGS = 16 };

/* One host as it was configured. Strings are never NULL. */
struct place {
    char *host; /* "": libpq's default, a socket */
    char *addr; /* "": none given */
    char *port; /* "": the default */
    bool by_name;
    struct addrinfo *found; /* of the look-up, NULL if it failed */
    int status;             /* the look-up's libuv error */
};

/* One address to try. */
struct target {
    char *host;
    char *addr;
    char *port;
};

struct look_up {
    uv_getaddrinfo_t req;
    struct list link;      /* on route->looking */
    struct pgroute *route; /* NULL: abandoned */
    size_t place;
};

struct pgroute {
    uv_loop_t *loop;
    char *conninfo; /* NULL: the environment alone */
    char *application;
    int64_t timeout_ms;
    bool has_keepalives;
    bool has_user_timeout;
    bool any_session; /* target_session_attrs does not say what sort of server */
    struct place *places;
    size_t n_places; /* 0: libpq shall make of the settings what it can */
    struct list looking;
    struct target *targets;
    size_t n_targets;
    size_t start; /* the target to begin with */
    pgroute_found on_found;
    void *owner;
};

static void
clear_places(struct pgroute *route)
{
    for (size_t i = 0; i < route->n_places; i++) {
        struct place *place = &route->places[i];
        free(place->host);
        free(place->addr);
        free(place->port);
        if (place->found)
            uv_freeaddrinfo(place->found);
    }
    free(route->places);
    route->places = NULL;
    route->n_places = 0;
}

static void
clear_targets(struct pgroute *route)
{
    for (size_t i = 0; i < route->n_targets; i++) {
        free(route->targets[i].host);
        free(route->targets[i].addr);
        free(route->targets[i].port);
    }
    free(route->targets);
    route->targets = NULL;
    route->n_targets = 0;
}

/* ---- reading the settings ---- */

struct settings {
    const char *keywords[MAX_SETTINGS + 1];
    const char *values[MAX_SETTINGS + 1];
    size_t n;
};

/* libpq ignores a setting whose value is NULL or empty. */
static void
set(struct settings *settings, const char *keyword, const char *value)
{
    assert(settings->n < MAX_SETTINGS);
    settings->keywords[settings->n] = keyword;
    settings->values[settings->n] = value;
    settings->n++;
    settings->keywords[settings->n] = NULL;
    settings->values[settings->n] = NULL;
}

static const char *
option(const PQconninfoOption *options, const char *keyword)
{
    for (; options->keyword; options++) {
        if (strcmp(options->keyword, keyword) == 0)
            return options->val ? options->val : "";
    }
    return "";
}

/* libpq tells what the connection string, the environment and the service file come to
 * only for a PGconn, and making one begins to connect. An sslmode that it refuses stops
 * it after it has gathered the settings and before it looks up a name. Whether it came so
 * far, or could not read the settings, shows in the marker. */
static int
read_options(const struct pgroute *route, PQconninfoOption **out, jobq_error *err)
{
    static const char marker[] = "jobqd reads";
    struct settings probe = {0};
    set(&probe, "dbname", route->conninfo);
    set(&probe, "fallback_application_name", marker);
    set(&probe, "sslmode", "-");
    PGconn *pg = PQconnectStartParams(probe.keywords, probe.values, 1);
    if (!pg)
        return jobq__error(err, JOBQ_ENOMEM, "out of memory");
    PQconninfoOption *options = PQconninfo(pg);
    int rc = 0;
    if (!options)
        rc = jobq__error(err, JOBQ_ENOMEM, "out of memory");
    else if (strcmp(option(options, "fallback_application_name"), marker) != 0)
        rc = jobq__error(err, JOBQ_EINVAL, "connection string: %s", PQerrorMessage(pg));
    PQfinish(pg);
    if (rc < 0)
        PQconninfoFree(options);
    else
        *out = options;
    return rc;
}

static int
read_timeout(struct pgroute *route, const char *text, jobq_error *err)
{
    char *end;
    long seconds = DEFAULT_TIMEOUT_S;
    if (*text) {
        seconds = strtol(text, &end, 10);
        if (*end != '\0' || seconds > MAX_TIMEOUT_S)
            return jobq__error(err, JOBQ_EINVAL,
                               "connect_timeout: \"%s\" must be a number of seconds, at "
                               "most %d (0: no limit)",
                               text, (int)MAX_TIMEOUT_S);
    }
    route->timeout_ms = seconds > 0 ? (int64_t)seconds * 1000 : 0;
    return 0;
}

static size_t
count_items(const char *text)
{
    size_t n = 1;
    for (; *text; text++)
        n += *text == ',';
    return n;
}

/* A copy of the nth item of a comma-separated list; of the only one, if there is but one.
 */
static char *
copy_item(const char *text, size_t nth)
{
    const char *end = strchr(text, ',');
    for (size_t i = 0; end && i < nth; i++) {
        text = end + 1;
        end = strchr(text, ',');
    }
    return strndup(text, end ? (size_t)(end - text) : strlen(text));
}

static bool
is_address(const char *host)
{
    struct addrinfo hints = {.ai_flags = AI_NUMERICHOST};
    struct addrinfo *found;
    if (getaddrinfo(host, NULL, &hints, &found) != 0) /* never asks a name server */
        return false;
    freeaddrinfo(found);
    return true;
}

static int
read_places(struct pgroute *route, const char *hosts, const char *addrs,
            const char *ports)
{
    size_t n = count_items(*addrs ? addrs : hosts);
    size_t n_ports = count_items(ports);
    clear_places(route);
    if ((*addrs && *hosts && count_items(hosts) != n) || (n_ports != 1 && n_ports != n))
        return 0; /* libpq will refuse it, in its own words */
    route->places = calloc(n, sizeof *route->places);
    if (!route->places)
        return JOBQ_ENOMEM;
    route->n_places = n;
    for (size_t i = 0; i < n; i++) {
        struct place *place = &route->places[i];
        place->host = *hosts ? copy_item(hosts, i) : strdup("");
        place->addr = *addrs ? copy_item(addrs, i) : strdup("");
        place->port = copy_item(ports, i);
        if (!place->host || !place->addr || !place->port)
            return JOBQ_ENOMEM;
        /* a host that begins so is a socket's folder, or an abstract socket */
        place->by_name = place->addr[0] == '\0' && place->host[0] != '\0' &&
                         place->host[0] != '/' && place->host[0] != '@' &&
                         !is_address(place->host);
    }
    return 0;
}

static int
read_settings(struct pgroute *route, jobq_error *err)
{
    PQconninfoOption *options;
    int rc = read_options(route, &options, err);
    if (rc < 0)
        return rc;
    rc = read_timeout(route, option(options, "connect_timeout"), err);
    if (rc == 0) {
        route->has_keepalives = *option(options, "keepalives") ||
                                *option(options, "keepalives_idle") ||
                                *option(options, "keepalives_interval") ||
                                *option(options, "keepalives_count");
        route->has_user_timeout = *option(options, "tcp_user_timeout");
        route->any_session = strcmp(option(options, "target_session_attrs"), "any") == 0;
        rc = read_places(route, option(options, "host"), option(options, "hostaddr"),
                         option(options, "port"));
        if (rc < 0)
            jobq__error(err, rc, "out of memory");
    }
    PQconninfoFree(options);
    return rc;
}

int
pgroute_new(struct pgroute **out, uv_loop_t *loop, const char *conninfo,
            const char *application, jobq_error *err)
{
    struct pgroute *route = calloc(1, sizeof *route);
    if (!route)
        return jobq__error(err, JOBQ_ENOMEM, "out of memory");
    route->loop = loop;
    list_init(&route->looking);
    route->conninfo = conninfo ? strdup(conninfo) : NULL;
    route->application = strdup(application);
    int rc = 0;
    if (!route->application || (conninfo && !route->conninfo))
        rc = jobq__error(err, JOBQ_ENOMEM, "out of memory");
    else
        rc = read_settings(route, err);
    if (rc < 0)
        pgroute_free(route);
    else
        *out = route;
    return rc;
}

void
pgroute_free(struct pgroute *route)
{
    if (!route)
        return;
    pgroute_abandon(route);
    clear_places(route);
    clear_targets(route);
    free(route->conninfo);
    free(route->application);
    free(route);
}

int64_t
pgroute_timeout_ms(const struct pgroute *route)
{
    return route->timeout_ms;
}

/* ---- looking names up ---- */

static void
on_looked_up(uv_getaddrinfo_t *req, int status, struct addrinfo *found)
{
    struct look_up *look_up = req->data;
    struct pgroute *route = look_up->route;
    size_t nth = look_up->place;
    list_remove(&look_up->link);
    free(look_up);
    if (!route) {
        if (found)
            uv_freeaddrinfo(found);
        return;
    }
    route->places[nth].status = status;
    route->places[nth].found = status == 0 ? found : NULL;
    if (list_empty(&route->looking))
        route->on_found(route->owner);
}

static int
start_look_up(struct pgroute *route, size_t nth)
{
    static const struct addrinfo hints = {.ai_family = AF_UNSPEC,
                                          .ai_socktype = SOCK_STREAM};
    struct look_up *look_up = calloc(1, sizeof *look_up);
    if (!look_up)
        return JOBQ_ENOMEM;
    look_up->req.data = look_up;
    look_up->route = route;
    look_up->place = nth;
    int rc = uv_getaddrinfo(route->loop, &look_up->req, on_looked_up,
                            route->places[nth].host, NULL, &hints);
    if (rc < 0) { /* the name cannot even be asked for */
        route->places[nth].status = rc;
        free(look_up);
        return rc == UV_ENOMEM ? JOBQ_ENOMEM : 0;
    }
    list_push(&route->looking, &look_up->link);
    return 0;
}

int
pgroute_look_up(struct pgroute *route, pgroute_found on_found, void *owner, bool *waiting,
                jobq_error *err)
{
    pgroute_abandon(route);
    int rc = read_settings(route, err);
    if (rc < 0)
        return rc;
    route->on_found = on_found;
    route->owner = owner;
    for (size_t i = 0; i < route->n_places; i++) {
        rc = route->places[i].by_name ? start_look_up(route, i) : 0;
        if (rc < 0) {
            pgroute_abandon(route);
            return jobq__error(err, rc, "out of memory");
        }
    }
    *waiting = !list_empty(&route->looking);
    return 0;
}

void
pgroute_abandon(struct pgroute *route)
{
    struct list *link;
    while ((link = list_pop(&route->looking))) {
        struct look_up *look_up = list_entry(link, struct look_up, link);
        look_up->route = NULL; /* its callback frees it */
        uv_cancel((uv_req_t *)&look_up->req);
    }
}

/* ---- connecting ---- */

static int
add_target(struct pgroute *route, const struct place *place, const char *addr)
{
    struct target *target = &route->targets[route->n_targets];
    route->n_targets++;
    target->host = strdup(place->host);
    target->addr = strdup(addr);
    target->port = strdup(place->port);
    return target->host && target->addr && target->port ? 0 : JOBQ_ENOMEM;
}

static int
add_found(struct pgroute *route, const struct place *place)
{
    for (const struct addrinfo *at = place->found; at; at = at->ai_next) {
        char addr[NI_MAXHOST]; /* with the scope of a link-local address */
        if (getnameinfo(at->ai_addr, at->ai_addrlen, addr, sizeof addr, NULL, 0,
                        NI_NUMERICHOST) != 0)
            continue;
        if (add_target(route, place, addr) < 0)
            return JOBQ_ENOMEM;
    }
    return 0;
}

/* A place for each address to try; a name that was not found is left out. */
static int
build_targets(struct pgroute *route, jobq_error *err)
{
    const struct place *missing = NULL;
    size_t n = 0;
    clear_targets(route);
    for (size_t i = 0; i < route->n_places; i++) {
        const struct place *place = &route->places[i];
        if (place->by_name && !place->found)
            missing = place;
        n += place->by_name ? 0 : 1;
        for (const struct addrinfo *at = place->found; at; at = at->ai_next)
            n++;
    }
    if (n == 0 && missing)
        return jobq__error(err, JOBQ_ECONN, "could not look up host name \"%s\": %s",
                           missing->host, uv_strerror(missing->status));
    route->targets = n > 0 ? calloc(n, sizeof *route->targets) : NULL;
    if (n > 0 && !route->targets)
        return jobq__error(err, JOBQ_ENOMEM, "out of memory");
    for (size_t i = 0; i < route->n_places; i++) {
        const struct place *place = &route->places[i];
        int rc = place->by_name ? add_found(route, place)
                                : add_target(route, place, place->addr);
        if (rc < 0)
            return jobq__error(err, rc, "out of memory");
    }
    return 0;
}

/* Writes the targets as libpq's three parallel lists, beginning with route->start. */
static void
put_targets(const struct pgroute *route, struct jobq__buf *hosts, struct jobq__buf *addrs,
            struct jobq__buf *ports)
{
    for (size_t i = 0; i < route->n_targets; i++) {
        const struct target *target =
            &route->targets[(route->start + i) % route->n_targets];
        const char *comma = i > 0 ? "," : "";
        jobq__buf_adds(hosts, comma);
        jobq__buf_adds(hosts, target->host);
        jobq__buf_adds(addrs, comma);
        jobq__buf_adds(addrs, target->addr);
        jobq__buf_adds(ports, comma);
        jobq__buf_adds(ports, target->port);
    }
}

int
pgroute_connect(struct pgroute *route, PGconn **out, jobq_error *err)
{
    struct jobq__buf hosts = {0};
    struct jobq__buf addrs = {0};
    struct jobq__buf ports = {0};
    struct settings settings = {0};
    PGconn *pg = NULL;
    int rc = build_targets(route, err);
    if (rc < 0)
        goto done;
    /* What stands before dbname is a default, what stands behind it overrides. A silent
     * network is noticed within half a minute even on an idle connection. */
    set(&settings, "fallback_application_name", route->application);
    if (!route->has_keepalives) {
        set(&settings, "keepalives_idle", "10");
        set(&settings, "keepalives_interval", "5");
        set(&settings, "keepalives_count", "3");
    }
    if (!route->has_user_timeout)
        set(&settings, "tcp_user_timeout", "15000");
    set(&settings, "dbname", route->conninfo);
    set(&settings, "client_encoding", "UTF8");
    /* A server that refuses writes is of no use, whatever the default: after a failover
     * the next host is the one, and a lone one is away until it takes them again. */
    if (route->any_session)
        set(&settings, "target_session_attrs", "read-write");
    if (route->n_targets > 0) {
        put_targets(route, &hosts, &addrs, &ports);
        set(&settings, "host", jobq__buf_cstr(&hosts));
        set(&settings, "hostaddr", jobq__buf_cstr(&addrs));
        set(&settings, "port", jobq__buf_cstr(&ports));
    }
    if (!hosts.failed && !addrs.failed && !ports.failed)
        pg = PQconnectStartParams(settings.keywords, settings.values, 1);
    if (pg)
        *out = pg;
    else
        rc = jobq__error(err, JOBQ_ENOMEM, "out of memory");
done:
    jobq__buf_clear(&hosts);
    jobq__buf_clear(&addrs);
    jobq__buf_clear(&ports);
    return rc;
}

static bool
is_target(const struct target *target, const PGconn *pg)
{
    const char *port = PQport(pg);
    if (target->port[0] != '\0' && (!port || strcmp(target->port, port) != 0))
        return false;
    const char *wanted = target->addr[0] != '\0' ? target->addr : target->host;
    const char *tried = target->addr[0] != '\0' ? PQhostaddr(pg) : PQhost(pg);
    return tried && strcmp(wanted, tried) == 0;
}

bool
pgroute_pass_by(struct pgroute *route, const PGconn *pg)
{
    size_t n = route->n_targets;
    if (n < 2)
        return false;
    size_t stuck = route->start % n; /* if we cannot tell which one it is */
    for (size_t i = 0; i < n; i++) {
        if (is_target(&route->targets[i], pg)) {
            stuck = i;
            break;
        }
    }
    route->start = (stuck + 1) % n;
    return true;
}
