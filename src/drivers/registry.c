/* How a store is found: by the name of its type, or by a URL.
 *
 * URLs follow RFC 3986 as far as a store needs it:
 *
 *     memory:
 *     sqlite:relative/path          sqlite:/absolute/path
 *     sqlite:///absolute/path?synchronous=full&max_handles=4
 *     filesystem:///absolute/directory?threshold=1000
 *     redis://user:password@host:6379/0 and others (redis_settings.h)
 *
 * Path, option names and values are percent-decoded; a plus sign is a plus
 * sign. Texts of errors never repeat the URL: it may hold a password. */
#include "drivers/drivers.h"

#include <strings.h>

#include "base/alloc.h"
#include "drivers/url.h"
#ifdef CES_WITH_REDIS
#include "drivers/redis_settings.h"
#endif
#include "base/banned.h"

/* What follows "scheme:" as options. */
typedef int url_fn(const char *scheme, const char *rest, ces_url_options *options,
                   cession_error *err);

typedef struct registered {
    const cession_store_ops *ops;
    const char *path_option; /* what the path of a URL is called; NULL: it has none */
    url_fn *read_url;        /* NULL: its URLs are a path and options */
    const char *schemes;     /* besides its name, each between colons */
} registered;

#define REDIS_SCHEMES                                                                      \
    ":rediss:valkey:valkeys:unix:redis+unix:redis+sentinel:rediss+sentinel:redis+cluster:" \
    "rediss+cluster:"

static const registered drivers[] = {
    {.ops = &ces_driver_memory},
    {.ops = &ces_driver_sqlite, .path_option = "path"},
    {.ops = &ces_driver_filesystem, .path_option = "path"},
#ifdef CES_WITH_REDIS
    {.ops = &ces_driver_redis, .read_url = ces_redis_url, .schemes = REDIS_SCHEMES},
#endif
};
#define DRIVER_COUNT (sizeof drivers / sizeof drivers[0])
#ifdef CES_WITH_REDIS
#define KNOWN_NAMES "memory, sqlite, filesystem, redis"
#else
#define KNOWN_NAMES "memory, sqlite, filesystem"
#endif

static bool is_one_of(const char *schemes, const char *name, size_t len)
{
    while (schemes != NULL && *schemes == ':' && schemes[1] != '\0') {
        size_t known = strcspn(++schemes, ":");
        if (known == len && strncasecmp(schemes, name, len) == 0) {
            return true;
        }
        schemes += known;
    }
    return false;
}

static const registered *find(const char *name, size_t len)
{
    for (size_t i = 0; i < DRIVER_COUNT; i++) {
        const char *known = drivers[i].ops->name;
        if (strlen(known) == len && strncasecmp(known, name, len) == 0) {
            return &drivers[i];
        }
    }
    return NULL;
}

static const registered *find_scheme(const char *name, size_t len)
{
    const registered *found = find(name, len);
    for (size_t i = 0; found == NULL && i < DRIVER_COUNT; i++) {
        found = is_one_of(drivers[i].schemes, name, len) ? &drivers[i] : NULL;
    }
    return found;
}

const cession_store_ops *ces_driver_find(const char *name)
{
    const registered *found = find(name, strlen(name));
    return found != NULL ? found->ops : NULL;
}

static int open_with(const cession_store_ops *ops, const cession_option *options, size_t count,
                     cession_store **ret_store, cession_error *err)
{
    if (ops->abi != CESSION_STORE_ABI || ops->size != sizeof(cession_store_ops)) {
        return cession_fail(err, CESSION_E_ABI, NULL);
    }
    for (size_t i = 0; i < count; i++) {
        if (options[i].name == NULL || options[i].value == NULL) {
            return cession_fail(err, CESSION_E_INVALID, "an option without name or value");
        }
        for (size_t k = 0; k < i; k++) {
            if (strcmp(options[i].name, options[k].name) == 0) {
                return cession_fail(err, CESSION_E_INVALID, "an option is given twice");
            }
        }
    }
    return ops->open(options, count, ret_store, err);
}

static int unknown_type(const char *name, size_t len, cession_error *err)
{
    if (is_one_of(":redis" REDIS_SCHEMES, name, len)) {
        return cession_fail(err, CESSION_E_UNSUPPORTED,
                            "this library was built without its redis driver, which needs "
                            "hiredis: install libhiredis-dev (hiredis-devel, hiredis) and build "
                            "it again");
    }
    return cession_fail(err, CESSION_E_UNSUPPORTED, "unknown type of store; known are: %s",
                        KNOWN_NAMES);
}

int cession_store_open(const char *type, const cession_option *options, size_t count,
                       cession_store **ret_store, cession_error *err)
{
    if (type == NULL || ret_store == NULL || (options == NULL && count != 0)) {
        return cession_fail(err, CESSION_E_INVALID, NULL);
    }
    const cession_store_ops *ops = ces_driver_find(type);
    return ops != NULL ? open_with(ops, options, count, ret_store, err)
                       : unknown_type(type, strlen(type), err);
}

/* ---- URLs ----------------------------------------------------------------- */

/* "//authority/path" without an authority, or just a path. */
static int path_of(const char *rest, size_t len, const char **ret_path, size_t *ret_len,
                   cession_error *err)
{
    if (len >= 2 && rest[0] == '/' && rest[1] == '/') {
        rest += 2;
        len -= 2;
        if (len > 0 && rest[0] != '/') {
            return cession_fail(err, CESSION_E_INVALID,
                                "the URL names a host; an absolute path has three slashes: "
                                "scheme:///absolute/path, a relative one has none: scheme:path");
        }
    }
    *ret_path = rest;
    *ret_len = len;
    return CESSION_OK;
}

/* A URL that is a path and options. */
static int path_url(const registered *driver, const char *rest, ces_url_options *options,
                    cession_error *err)
{
    size_t rest_len = strcspn(rest, "?");
    const char *path = NULL;
    size_t path_len = 0;
    int rc = path_of(rest, rest_len, &path, &path_len, err);
    if (rc != CESSION_OK) {
        return rc;
    }
    if (driver->path_option == NULL && path_len != 0) {
        return cession_fail(err, CESSION_E_INVALID, "the URL of a %s store is just \"%s:\"",
                            driver->ops->name, driver->ops->name);
    }
    if (driver->path_option != NULL && path_len == 0) {
        return cession_fail(err, CESSION_E_INVALID,
                            "the URL has no path; an absolute one is written as "
                            "%s:///absolute/path, a relative one as %s:path",
                            driver->ops->name, driver->ops->name);
    }
    if (driver->path_option != NULL) {
        rc = ces_url_add(options, driver->path_option, path, path_len, err);
    }
    return rc == CESSION_OK && rest[rest_len] == '?'
               ? ces_url_query(options, rest + rest_len + 1, err)
               : rc;
}

int cession_store_open_url(const char *url, cession_store **ret_store, cession_error *err)
{
    if (url == NULL || ret_store == NULL) {
        return cession_fail(err, CESSION_E_INVALID, NULL);
    }
    size_t len = strnlen(url, CES_URL_MAX + 1);
    if (len > CES_URL_MAX) {
        return cession_fail(err, CESSION_E_LIMIT, "the URL has more than %u bytes", CES_URL_MAX);
    }
    const char *colon = memchr(url, ':', len);
    if (colon == NULL) {
        return cession_fail(err, CESSION_E_INVALID,
                            "a URL starts with the type of the store and a colon; known are: %s",
                            KNOWN_NAMES);
    }
    size_t scheme_len = (size_t)(colon - url);
    const registered *driver = find_scheme(url, scheme_len);
    if (driver == NULL) {
        return unknown_type(url, scheme_len, err);
    }
    char *room = ces_alloc(len + 1);
    if (room == NULL) {
        return cession_fail(err, CESSION_E_NOMEM, NULL);
    }
    ces_url_options options = {.room = room};
    int rc = driver->read_url != NULL ? driver->read_url(url, colon + 1, &options, err)
                                      : path_url(driver, colon + 1, &options, err);
    if (rc == CESSION_OK) {
        rc = open_with(driver->ops, options.list, options.count, ret_store, err);
    }
    ces_wipe(room, len + 1);
    ces_free(room);
    return rc;
}
