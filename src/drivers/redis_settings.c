/* See redis_settings.h. */
#include "drivers/redis_settings.h"

#include <stdint.h>
#include <stdlib.h>
#include <strings.h>

#include "base/alloc.h"
#include "base/banned.h"

#define PORT_DEFAULT 6379u
#define SENTINEL_PORT_DEFAULT 26379u
#define DB_MAX 1000000u
#define CONNECTIONS_DEFAULT 16u
#define SECONDS_MAX 86400.0
#define TEXT_MAX 4096u

/* Names as redis-py has them, which its users know; what comes after
 * SSL_PASSWORD is ours. */
typedef enum name {
    HOST,
    PORT,
    PATH,
    DB,
    USERNAME,
    PASSWORD,
    CLIENT_NAME,
    PROTOCOL,
    SOCKET_TIMEOUT,
    SOCKET_CONNECT_TIMEOUT,
    MAX_CONNECTIONS,
    SSL_CERT_REQS,
    SSL_CHECK_HOSTNAME,
    SSL_CA_CERTS,
    SSL_CA_PATH,
    SSL_CERTFILE,
    SSL_KEYFILE,
    SSL_PASSWORD,
    TLS,
    SERVER_NAME,
    SCAN_PREFIX,
    SENTINELS,
    SERVICE,
    SENTINEL_USERNAME,
    SENTINEL_PASSWORD,
    CLUSTER,
    NAMES
} name;

static const char *const names[NAMES] = {
    [HOST] = "host",
    [PORT] = "port",
    [PATH] = "path",
    [DB] = "db",
    [USERNAME] = "username",
    [PASSWORD] = "password",
    [CLIENT_NAME] = "client_name",
    [PROTOCOL] = "protocol",
    [SOCKET_TIMEOUT] = "socket_timeout",
    [SOCKET_CONNECT_TIMEOUT] = "socket_connect_timeout",
    [MAX_CONNECTIONS] = "max_connections",
    [SSL_CERT_REQS] = "ssl_cert_reqs",
    [SSL_CHECK_HOSTNAME] = "ssl_check_hostname",
    [SSL_CA_CERTS] = "ssl_ca_certs",
    [SSL_CA_PATH] = "ssl_ca_path",
    [SSL_CERTFILE] = "ssl_certfile",
    [SSL_KEYFILE] = "ssl_keyfile",
    [SSL_PASSWORD] = "ssl_password",
    [TLS] = "tls",
    [SERVER_NAME] = "server_name",
    [SCAN_PREFIX] = "scan_prefix",
    [SENTINELS] = "sentinels",
    [SERVICE] = "service",
    [SENTINEL_USERNAME] = "sentinel_username",
    [SENTINEL_PASSWORD] = "sentinel_password",
    [CLUSTER] = "cluster",
};

typedef const char *values_of[NAMES]; /* NULL: not given */

static int collect(const cession_option *options, size_t count, values_of ret_values,
                   cession_error *err)
{
    for (size_t i = 0; i < count; i++) {
        size_t at = 0;
        while (at < NAMES && strcmp(options[i].name, names[at]) != 0) {
            at++;
        }
        if (at == NAMES) {
            return cession_fail(err, CESSION_E_INVALID,
                                "unknown option; a redis store takes host, port, path, db, "
                                "username, password, client_name, protocol, socket_timeout, "
                                "socket_connect_timeout, max_connections, sentinels, service, "
                                "cluster, tls, server_name and ssl_... (see its documentation)");
        }
        if (strlen(options[i].value) > TEXT_MAX) {
            return cession_fail(err, CESSION_E_LIMIT, "%s of a redis store is too long", names[at]);
        }
        ret_values[at] = options[i].value;
    }
    return CESSION_OK;
}

/* ---- kinds of values: NULL leaves what is there ------------------------------------- */

static int copy_text(const char *value, char **ret_text, cession_error *err)
{
    if (value == NULL) {
        return CESSION_OK;
    }
    char *copy = ces_strndup(value, strlen(value));
    if (copy == NULL) {
        return cession_fail(err, CESSION_E_NOMEM, NULL);
    }
    *ret_text = copy;
    return CESSION_OK;
}

static int read_number(name which, const char *value, unsigned least, unsigned most,
                       unsigned *ret_number, cession_error *err)
{
    if (value == NULL) {
        return CESSION_OK;
    }
    unsigned number = 0;
    size_t digits = strspn(value, "0123456789");
    bool fine = digits > 0 && digits < 10 && value[digits] == '\0';
    for (size_t i = 0; fine && i < digits; i++) {
        number = number * 10 + (unsigned)(value[i] - '0');
    }
    if (!fine || number < least || number > most) {
        return cession_fail(err, CESSION_E_INVALID, "%s of a redis store must be %u to %u",
                            names[which], least, most);
    }
    *ret_number = number;
    return CESSION_OK;
}

static int read_seconds(name which, const char *value, int64_t *ret_ms, cession_error *err)
{
    if (value == NULL) {
        return CESSION_OK;
    }
    /* strtod follows the locale: a fraction is read by hand. */
    double seconds = 0, unit = 1;
    size_t whole = strspn(value, "0123456789");
    size_t at = whole;
    size_t fraction = 0;
    if (value[at] == '.') {
        fraction = strspn(value + ++at, "0123456789");
        at += fraction;
    }
    bool fine = whole + fraction > 0 && value[at] == '\0' && at < 20;
    for (size_t i = 0; fine && i < at; i++) {
        if (i == whole) {
            continue;
        }
        if (i > whole) {
            unit /= 10;
        }
        double digit = value[i] - '0';
        seconds = i < whole ? seconds * 10 + digit : seconds + digit * unit;
    }
    if (!fine || seconds <= 0 || seconds > SECONDS_MAX) {
        return cession_fail(err, CESSION_E_INVALID,
                            "%s of a redis store must be a number of seconds above 0",
                            names[which]);
    }
    int64_t ms = (int64_t)(seconds * 1000);
    *ret_ms = ms > 0 ? ms : 1;
    return CESSION_OK;
}

static int read_flag(name which, const char *value, bool *ret_flag, cession_error *err)
{
    static const char *const words[2][4] = {{"false", "no", "0", "off"},
                                            {"true", "yes", "1", "on"}};
    for (int flag = 0; value != NULL && flag < 2; flag++) {
        for (int i = 0; i < 4; i++) {
            if (strcasecmp(value, words[flag][i]) == 0) {
                *ret_flag = flag == 1;
                return CESSION_OK;
            }
        }
    }
    return value == NULL ? CESSION_OK
                         : cession_fail(err, CESSION_E_INVALID,
                                        "%s of a redis store must be true or false", names[which]);
}

/* ---- what belongs together ------------------------------------------------------------ */

static int read_place(ces_redis_settings *self, values_of values, cession_error *err)
{
    ces_redis_place *place = &self->places[0];
    char *text = NULL;
    unsigned port = PORT_DEFAULT;
    int rc = CESSION_OK;
    if (values[PATH] != NULL && (values[HOST] != NULL || values[PORT] != NULL)) {
        return cession_fail(err, CESSION_E_INVALID,
                            "a redis store has a host or the path of a unix socket, not both");
    }
    if (values[PATH] != NULL) {
        if (values[PATH][0] != '/') {
            return cession_fail(err, CESSION_E_INVALID,
                                "the path of a redis store's unix socket must be absolute");
        }
        rc = copy_text(values[PATH], &text, err);
        place->path = text;
    } else {
        if (values[HOST] != NULL && values[HOST][0] == '\0') {
            return cession_fail(err, CESSION_E_INVALID, "the host of a redis store is empty");
        }
        rc = copy_text(values[HOST] != NULL ? values[HOST] : "127.0.0.1", &text, err);
        place->host = text;
        if (rc == CESSION_OK) {
            rc = read_number(PORT, values[PORT], 1, 65535, &port, err);
        }
        place->port = port;
    }
    self->place_count = 1;
    return rc;
}

/* host[:port] up to the comma or the end; an IPv6 address stands in brackets. */
static int read_listed(const char **io_at, unsigned port_default, ces_redis_place *ret_place,
                       cession_error *err)
{
    const char *at = *io_at, *host = at;
    bool bracket = *at == '[';
    size_t len = bracket ? strcspn(++host, "]") : strcspn(host, ":,");
    const char *end = host + len + (bracket && host[len] == ']');
    unsigned long port = port_default;
    char *rest = (char *)(uintptr_t)end;
    if (*end == ':') {
        port = end[1] >= '0' && end[1] <= '9' ? strtoul(end + 1, &rest, 10) : 0;
    }
    if (len == 0 || port < 1 || port > 65535 ||
        (*rest != '\0' && (*rest != ',' || rest[1] == '\0')) || (bracket && host[len] != ']')) {
        return cession_fail(err, CESSION_E_INVALID,
                            "the servers of a redis store are listed as host:port,host:port");
    }
    ret_place->host = ces_strndup(host, len);
    ret_place->port = (unsigned)port;
    *io_at = *rest == ',' ? rest + 1 : rest;
    return ret_place->host != NULL ? CESSION_OK : cession_fail(err, CESSION_E_NOMEM, NULL);
}

static int read_list(ces_redis_settings *self, const char *list, unsigned port_default,
                     cession_error *err)
{
    int rc = CESSION_OK;
    do {
        if (self->place_count == CES_REDIS_PLACES_MAX) {
            return cession_fail(err, CESSION_E_LIMIT, "a redis store takes at most %u servers",
                                CES_REDIS_PLACES_MAX);
        }
        rc = read_listed(&list, port_default, &self->places[self->place_count], err);
        self->place_count += rc == CESSION_OK;
    } while (rc == CESSION_OK && *list != '\0');
    return rc;
}

/* Sentinels are spoken to as the servers are, but for who asks. */
static int read_sentinels(ces_redis_settings *self, values_of values, cession_error *err)
{
    ces_redis_manner *manner = &self->sentinel_manner;
    int rc = copy_text(values[SERVICE], &self->service, err);
    *manner = self->manner;
    manner->username = manner->password = NULL;
    manner->db = 0;
    manner->protocol = 2;
    if (rc == CESSION_OK) {
        rc = copy_text(values[SENTINEL_USERNAME], &manner->username, err);
    }
    if (rc == CESSION_OK) {
        rc = copy_text(values[SENTINEL_PASSWORD], &manner->password, err);
    }
    return rc == CESSION_OK ? read_list(self, values[SENTINELS], SENTINEL_PORT_DEFAULT, err) : rc;
}

static int read_servers(ces_redis_settings *self, values_of values, cession_error *err)
{
    bool sentinel = values[SENTINELS] != NULL, cluster = values[CLUSTER] != NULL;
    bool single = values[HOST] != NULL || values[PORT] != NULL || values[PATH] != NULL;
    if (sentinel + cluster + single > 1) {
        return cession_fail(err, CESSION_E_INVALID,
                            "a redis store has one server, sentinels or a cluster");
    }
    if (sentinel != (values[SERVICE] != NULL && values[SERVICE][0] != '\0') ||
        (!sentinel && (values[SENTINEL_USERNAME] != NULL || values[SENTINEL_PASSWORD] != NULL)) ||
        (values[SENTINEL_USERNAME] != NULL && values[SENTINEL_PASSWORD] == NULL)) {
        return cession_fail(err, CESSION_E_INVALID,
                            "a redis store behind Sentinel takes sentinels and service, the name "
                            "of its master, and may take sentinel_password and "
                            "sentinel_username");
    }
    if (cluster && self->manner.db != 0) {
        return cession_fail(err, CESSION_E_INVALID, "a Redis Cluster has no database but 0");
    }
    self->topology = sentinel ? CES_REDIS_SENTINEL : cluster ? CES_REDIS_CLUSTER : CES_REDIS_SINGLE;
    return sentinel  ? read_sentinels(self, values, err)
           : cluster ? read_list(self, values[CLUSTER], PORT_DEFAULT, err)
                     : read_place(self, values, err);
}

static int read_user(ces_redis_manner *manner, values_of values, cession_error *err)
{
    if (values[USERNAME] != NULL && values[PASSWORD] == NULL) {
        return cession_fail(err, CESSION_E_INVALID,
                            "a redis store with a user name needs a password");
    }
    int rc = copy_text(values[USERNAME], &manner->username, err);
    if (rc == CESSION_OK) {
        rc = copy_text(values[PASSWORD], &manner->password, err);
    }
    if (rc == CESSION_OK) {
        rc = copy_text(values[CLIENT_NAME], &manner->client_name, err);
    }
    for (const char *at = manner->client_name; rc == CESSION_OK && at != NULL && *at != '\0';
         at++) {
        if (*at < '!' || *at > '~') { /* what CLIENT SETNAME takes */
            rc = cession_fail(
                err, CESSION_E_INVALID,
                "client_name of a redis store must be printable ASCII without blanks");
        }
    }
    return rc;
}

static int read_tls(ces_redis_manner *manner, values_of values, cession_error *err)
{
    bool tls = false, check_name = true;
    int rc = read_flag(TLS, values[TLS], &tls, err);
    if (rc == CESSION_OK) {
        rc = read_flag(SSL_CHECK_HOSTNAME, values[SSL_CHECK_HOSTNAME], &check_name, err);
    }
    if (rc != CESSION_OK) {
        return rc;
    }
    const char *reqs = values[SSL_CERT_REQS] != NULL ? values[SSL_CERT_REQS] : "required";
    if (strcasecmp(reqs, "required") != 0 && strcasecmp(reqs, "none") != 0) {
        return cession_fail(err, CESSION_E_INVALID,
                            "ssl_cert_reqs of a redis store must be required or none");
    }
    for (size_t i = SSL_CERT_REQS; !tls && i <= SERVER_NAME; i++) {
        if (values[i] != NULL && i != TLS) {
            return cession_fail(err, CESSION_E_INVALID,
                                "%s of a redis store is for TLS, which is not on (rediss:)",
                                names[i]);
        }
    }
    if (tls) {
        manner->tls = strcasecmp(reqs, "none") == 0 ? CES_REDIS_TLS_UNVERIFIED
                      : check_name                  ? CES_REDIS_TLS
                                                    : CES_REDIS_TLS_ANY_NAME;
    }
    const struct {
        name which;
        char **text;
    } texts[] = {{SSL_CA_CERTS, &manner->ca_file},      {SSL_CA_PATH, &manner->ca_path},
                 {SSL_CERTFILE, &manner->cert_file},    {SSL_KEYFILE, &manner->key_file},
                 {SSL_PASSWORD, &manner->key_password}, {SERVER_NAME, &manner->server_name}};
    for (size_t i = 0; rc == CESSION_OK && i < sizeof texts / sizeof texts[0]; i++) {
        rc = copy_text(values[texts[i].which], texts[i].text, err);
    }
    if (rc == CESSION_OK && manner->cert_file == NULL && manner->key_file != NULL) {
        rc = cession_fail(err, CESSION_E_INVALID,
                          "ssl_keyfile of a redis store needs ssl_certfile beside it");
    }
    return rc;
}

static int read_all(ces_redis_settings *self, values_of values, cession_error *err)
{
    ces_redis_manner *manner = &self->manner;
    unsigned connections = CONNECTIONS_DEFAULT;
    int rc;
    manner->protocol = 2;
    if ((rc = read_user(manner, values, err)) != CESSION_OK ||
        (rc = read_tls(manner, values, err)) != CESSION_OK ||
        (rc = read_number(DB, values[DB], 0, DB_MAX, &manner->db, err)) != CESSION_OK ||
        (rc = read_number(PROTOCOL, values[PROTOCOL], 2, 3, &manner->protocol, err)) !=
            CESSION_OK ||
        (rc = read_number(MAX_CONNECTIONS, values[MAX_CONNECTIONS], 1, CES_REDIS_CONNECTIONS_MAX,
                          &connections, err)) != CESSION_OK ||
        (rc = read_seconds(SOCKET_TIMEOUT, values[SOCKET_TIMEOUT], &manner->timeout_ms, err)) !=
            CESSION_OK ||
        (rc = read_seconds(SOCKET_CONNECT_TIMEOUT, values[SOCKET_CONNECT_TIMEOUT],
                           &manner->connect_timeout_ms, err)) != CESSION_OK ||
        (rc = read_servers(self, values, err)) != CESSION_OK) {
        return rc;
    }
    self->max_connections = connections;
    return copy_text(values[SCAN_PREFIX], &self->scan_prefix, err);
}

int ces_redis_settings_new(const cession_option *options, size_t count,
                           ces_redis_settings **ret_settings, cession_error *err)
{
    values_of values = {NULL};
    int rc = collect(options, count, values, err);
    if (rc != CESSION_OK) {
        return rc;
    }
    ces_redis_settings *self = ces_alloc_zero(sizeof *self);
    if (self == NULL) {
        return cession_fail(err, CESSION_E_NOMEM, NULL);
    }
    rc = read_all(self, values, err);
    if (rc != CESSION_OK) {
        ces_redis_settings_free(self);
        return rc;
    }
    *ret_settings = self;
    return CESSION_OK;
}

static void free_secret(char *text)
{
    if (text != NULL) {
        ces_wipe(text, strlen(text));
        ces_free(text);
    }
}

void ces_redis_settings_free(ces_redis_settings *self)
{
    if (self == NULL) {
        return;
    }
    ces_redis_manner *manner = &self->manner;
    free_secret(manner->password);
    free_secret(self->sentinel_manner.password);
    ces_free(self->sentinel_manner.username);
    ces_free(self->service);
    free_secret(manner->key_password);
    char *const texts[] = {manner->username, manner->client_name, manner->server_name,
                           manner->ca_file,  manner->ca_path,     manner->cert_file,
                           manner->key_file, self->scan_prefix};
    for (size_t i = 0; i < sizeof texts / sizeof texts[0]; i++) {
        ces_free(texts[i]);
    }
    for (size_t i = 0; i < self->place_count; i++) {
        ces_free((void *)(uintptr_t)self->places[i].host);
        ces_free((void *)(uintptr_t)self->places[i].path);
    }
    ces_free(self);
}
