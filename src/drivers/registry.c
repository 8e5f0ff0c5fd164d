/* How a store is found: by the name of its type, or by a URL.
 *
 * URLs follow RFC 3986 as far as a store needs it:
 *
 *     memory:
 *     sqlite:relative/path          sqlite:/absolute/path
 *     sqlite:///absolute/path?synchronous=full&max_handles=4
 *     filesystem:///absolute/directory?threshold=1000
 *
 * Path, option names and values are percent-decoded; a plus sign is a plus
 * sign. Texts of errors never repeat the URL: it may hold a password. */
#include "drivers/drivers.h"

#include <strings.h>

#include "base/alloc.h"
#include "base/banned.h"

#define URL_MAX 8192u
#define URL_OPTIONS_MAX 32u

typedef struct registered {
    const cession_store_ops *ops;
    const char *path_option; /* what the path of a URL is called; NULL: it has none */
} registered;

static const registered drivers[] = {
    {.ops = &ces_driver_memory},
    {.ops = &ces_driver_sqlite, .path_option = "path"},
    {.ops = &ces_driver_filesystem, .path_option = "path"},
};
#define DRIVER_COUNT (sizeof drivers / sizeof drivers[0])
#define KNOWN_NAMES "memory, sqlite, filesystem"

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

static int unknown_type(cession_error *err)
{
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
    return ops != NULL ? open_with(ops, options, count, ret_store, err) : unknown_type(err);
}

/* ---- URLs ----------------------------------------------------------------- */

static int hex_value(char c)
{
    if (c >= '0' && c <= '9') {
        return c - '0';
    }
    if (c >= 'a' && c <= 'f') {
        return c - 'a' + 10;
    }
    if (c >= 'A' && c <= 'F') {
        return c - 'A' + 10;
    }
    return -1;
}

/* Decode [text, text+len) to *out and terminate it there; *out moves past the
 * terminator. The result is never longer than the source. */
static int decode(const char *text, size_t len, char **out, const char **ret_text,
                  cession_error *err)
{
    char *start = *out;
    char *at = start;
    for (size_t i = 0; i < len; i++) {
        char c = text[i];
        if (c == '%') {
            int high = i + 1 < len ? hex_value(text[i + 1]) : -1;
            int low = i + 2 < len ? hex_value(text[i + 2]) : -1;
            if (high < 0 || low < 0) {
                return cession_fail(err, CESSION_E_INVALID,
                                    "a %% in the URL must be followed by two hexadecimal digits");
            }
            c = (char)(high * 16 + low);
            i += 2;
            if (c == '\0') {
                return cession_fail(err, CESSION_E_INVALID, "the URL holds a NUL (%%00)");
            }
        } else if (c == '#') {
            return cession_fail(err, CESSION_E_INVALID, "a # in the URL must be written as %%23");
        }
        *at++ = c;
    }
    *at++ = '\0';
    *ret_text = start;
    *out = at;
    return CESSION_OK;
}

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

static int parse_query(const char *query, char **room, cession_option *options, size_t *count,
                       cession_error *err)
{
    while (*query != '\0') {
        size_t len = strcspn(query, "&");
        const char *equals = memchr(query, '=', len);
        if (equals == NULL || equals == query) {
            return cession_fail(err, CESSION_E_INVALID,
                                "what follows the ? of the URL must be name=value&name=value");
        }
        if (*count == URL_OPTIONS_MAX) {
            return cession_fail(err, CESSION_E_LIMIT, "the URL has more than %u options",
                                URL_OPTIONS_MAX);
        }
        cession_option *option = &options[*count];
        size_t name_len = (size_t)(equals - query);
        int rc = decode(query, name_len, room, &option->name, err);
        if (rc == CESSION_OK) {
            rc = decode(equals + 1, len - name_len - 1, room, &option->value, err);
        }
        if (rc != CESSION_OK) {
            return rc;
        }
        ++*count;
        query += len;
        if (*query == '&') {
            query++;
        }
    }
    return CESSION_OK;
}

static int open_url_in(const registered *driver, const char *rest, char *room,
                       cession_store **ret_store, cession_error *err)
{
    cession_option options[URL_OPTIONS_MAX];
    size_t count = 0;
    size_t rest_len = strcspn(rest, "?");
    const char *path = NULL;
    size_t path_len = 0;
    int rc = path_of(rest, rest_len, &path, &path_len, err);
    if (rc != CESSION_OK) {
        return rc;
    }
    if (driver->path_option != NULL) {
        if (path_len == 0) {
            return cession_fail(err, CESSION_E_INVALID,
                                "the URL has no path; an absolute one is written as "
                                "%s:///absolute/path, a relative one as %s:path",
                                driver->ops->name, driver->ops->name);
        }
        options[count].name = driver->path_option;
        rc = decode(path, path_len, &room, &options[count].value, err);
        if (rc != CESSION_OK) {
            return rc;
        }
        count++;
    } else if (path_len != 0) {
        return cession_fail(err, CESSION_E_INVALID, "the URL of a %s store is just \"%s:\"",
                            driver->ops->name, driver->ops->name);
    }
    if (rest[rest_len] == '?') {
        rc = parse_query(rest + rest_len + 1, &room, options, &count, err);
        if (rc != CESSION_OK) {
            return rc;
        }
    }
    return open_with(driver->ops, options, count, ret_store, err);
}

int cession_store_open_url(const char *url, cession_store **ret_store, cession_error *err)
{
    if (url == NULL || ret_store == NULL) {
        return cession_fail(err, CESSION_E_INVALID, NULL);
    }
    size_t len = strnlen(url, URL_MAX + 1);
    if (len > URL_MAX) {
        return cession_fail(err, CESSION_E_LIMIT, "the URL has more than %u bytes", URL_MAX);
    }
    const char *colon = memchr(url, ':', len);
    if (colon == NULL) {
        return cession_fail(err, CESSION_E_INVALID,
                            "a URL starts with the type of the store and a colon; known are: %s",
                            KNOWN_NAMES);
    }
    const registered *driver = find(url, (size_t)(colon - url));
    if (driver == NULL) {
        return unknown_type(err);
    }
    /* Every piece loses at least the separator before it, whose place its
     * terminator takes. */
    char *room = ces_alloc(len + 1);
    if (room == NULL) {
        return cession_fail(err, CESSION_E_NOMEM, NULL);
    }
    int rc = open_url_in(driver, colon + 1, room, ret_store, err);
    ces_wipe(room, len + 1);
    ces_free(room);
    return rc;
}
