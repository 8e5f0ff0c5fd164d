/* The options of a redis store, and its URLs. docs/backends/redis.md lists them. */
#ifndef CES_DRIVERS_REDIS_SETTINGS_H
#define CES_DRIVERS_REDIS_SETTINGS_H

#include "drivers/redis_wire.h"
#include "drivers/url.h"

#define CES_REDIS_PLACES_MAX 32u
#define CES_REDIS_CONNECTIONS_MAX 1024u

typedef enum ces_redis_topology {
    CES_REDIS_SINGLE,
    CES_REDIS_SENTINEL,
    CES_REDIS_CLUSTER
} ces_redis_topology;

/* Owns all of its strings, but for those of sentinel_manner that manner has. */
typedef struct ces_redis_settings {
    ces_redis_topology topology;
    ces_redis_manner manner, sentinel_manner;
    ces_redis_place places[CES_REDIS_PLACES_MAX]; /* one server: the first; the sentinels;
                                                     servers of the Cluster to begin with */
    size_t place_count;
    char *service; /* what Sentinel calls the master */
    size_t max_connections;
    char *scan_prefix; /* only keys that begin with this are listed; NULL: all */
} ces_redis_settings;

/* E_INVALID with a text that says what is accepted. */
int ces_redis_settings_new(const cession_option *options, size_t count,
                           ces_redis_settings **ret_settings, cession_error *err);
void ces_redis_settings_free(ces_redis_settings *settings); /* NULL is fine */

/* redis: rediss: valkey: valkeys: //[[user]:password@]host[:port][/db][?option=value...]
 * unix: redis+unix: //[[user]:password@]/path[?option=value...]
 * redis+sentinel: rediss+sentinel: //[[user]:password@]host[:port],.../service[/db][?...]
 * redis+cluster: rediss+cluster: //[[user]:password@]host[:port],...[?...]
 * rest is what follows the scheme and its colon. */
int ces_redis_url(const char *scheme, const char *rest, ces_url_options *options,
                  cession_error *err);

#endif
