/* URLs of redis stores; see redis_settings.h. */
#include <strings.h>

#include "drivers/redis_settings.h"
#include "base/banned.h"

static int no_url(cession_error *err)
{
    return cession_fail(err, CESSION_E_INVALID,
                        "a URL of a redis store is redis://user:password@host:port/db or "
                        "unix:///path/of/socket?db=0, redis+sentinel://host:port,host:port/"
                        "service/db or redis+cluster://host:port,host:port; what is not needed "
                        "left out (rediss for TLS), then ?option=value&...");
}

/* [user][:password] */
static int add_user(ces_url_options *options, const char *text, size_t len, cession_error *err)
{
    const char *colon = memchr(text, ':', len);
    size_t user_len = colon != NULL ? (size_t)(colon - text) : len;
    int rc = CESSION_OK;
    if (user_len != 0) {
        rc = ces_url_add(options, "username", text, user_len, err);
    }
    if (rc == CESSION_OK && colon != NULL) {
        rc = ces_url_add(options, "password", colon + 1, len - user_len - 1, err);
    }
    return rc;
}

/* host[:port]; an IPv6 address stands in brackets. */
static int add_host(ces_url_options *options, const char *text, size_t len, cession_error *err)
{
    const char *end = text + len, *host_end;
    if (len != 0 && text[0] == '[') {
        host_end = memchr(text, ']', len);
        if (host_end == NULL) {
            return no_url(err);
        }
        text++;
    } else {
        host_end = memchr(text, ':', len);
        host_end = host_end != NULL ? host_end : end;
    }
    int rc = host_end != text ? ces_url_add(options, "host", text, (size_t)(host_end - text), err)
                              : CESSION_OK;
    if (rc != CESSION_OK) {
        return rc;
    }
    const char *at = host_end < end && *host_end == ']' ? host_end + 1 : host_end;
    if (at == end) {
        return CESSION_OK;
    }
    return *at == ':' && at + 1 != end
               ? ces_url_add(options, "port", at + 1, (size_t)(end - at - 1), err)
               : no_url(err);
}

static bool is_scheme(const char *scheme, const char *name)
{
    return strncasecmp(scheme, name, strlen(name)) == 0 && scheme[strlen(name)] == ':';
}

/* /service[/db] */
static int add_service(ces_url_options *options, const char *path, size_t len, cession_error *err)
{
    const char *slash = len > 1 ? memchr(path + 1, '/', len - 1) : NULL;
    size_t service_len = slash != NULL ? (size_t)(slash - path) - 1 : len > 0 ? len - 1 : 0;
    if (service_len == 0) {
        return no_url(err);
    }
    int rc = ces_url_add(options, "service", path + 1, service_len, err);
    size_t db_len = slash != NULL ? len - (size_t)(slash + 1 - path) : 0;
    return rc == CESSION_OK && db_len > 0 ? ces_url_add(options, "db", slash + 1, db_len, err) : rc;
}

int ces_redis_url(const char *scheme, const char *rest, ces_url_options *options,
                  cession_error *err)
{
    bool is_unix = strncasecmp(scheme, "unix:", 5) == 0 ||
                   strncasecmp(scheme, "redis+unix:", 11) == 0;
    bool tls = strncasecmp(scheme, "rediss", 6) == 0 || is_scheme(scheme, "valkeys");
    bool sentinel = is_scheme(scheme, "redis+sentinel") || is_scheme(scheme, "rediss+sentinel");
    bool cluster = is_scheme(scheme, "redis+cluster") || is_scheme(scheme, "rediss+cluster");
    if (rest[0] != '/' || rest[1] != '/') {
        return no_url(err);
    }
    rest += 2;
    size_t len = strcspn(rest, "/?");
    const char *path = rest + len;
    size_t path_len = strcspn(path, "?");
    const char *at = rest;
    for (size_t i = 0; i < len; i++) {
        if (rest[i] == '@') {
            at = rest + i + 1; /* the last one: a password may hold others */
        }
    }
    int rc = at != rest ? add_user(options, rest, (size_t)(at - rest) - 1, err) : CESSION_OK;
    size_t host_len = len - (size_t)(at - rest);
    if (rc == CESSION_OK && is_unix) {
        rc = host_len != 0 || path_len < 2 ? no_url(err)
                                           : ces_url_add(options, "path", path, path_len, err);
    } else if (rc == CESSION_OK && (sentinel || cluster)) {
        rc = host_len == 0 || (cluster && path_len > 1)
                 ? no_url(err)
                 : ces_url_add(options, sentinel ? "sentinels" : "cluster", at, host_len, err);
        if (rc == CESSION_OK && sentinel) {
            rc = add_service(options, path, path_len, err);
        }
    } else if (rc == CESSION_OK) {
        rc = add_host(options, at, host_len, err);
        if (rc == CESSION_OK && path_len > 1) {
            rc = ces_url_add(options, "db", path + 1, path_len - 1, err);
        }
    }
    if (rc == CESSION_OK && tls) {
        options->list[options->count++] = (cession_option){.name = "tls", .value = "true"};
    }
    return rc == CESSION_OK && path[path_len] == '?'
               ? ces_url_query(options, path + path_len + 1, err)
               : rc;
}
