/* One connection to one Redis or Valkey server: connect, greet, send, receive.
 *
 * This is the floor that every topology stands on. It knows sockets, TLS, the
 * deadline and the protocol, and nothing of sessions, keys or which server is
 * the right one.
 *
 * HOW A TOPOLOGY PLUGS IN (redis_nodes.h has the table of functions). The
 * operations in redis.c never choose a server. They ask the store's nodes
 *
 *   take   for a connection on which this key is to be served now. A single
 *          server has one pool; Sentinel finds out who is the master, at first
 *          and whenever it was told that this has changed, and keeps a pool for
 *          it; a Cluster looks the key's slot up in its map and keeps a pool for
 *          each node. Finding out costs connections of its own, made with
 *          ces_redis_connect to other places and closed when they have answered;
 *   give   to take the connection back: `keep` only where ces_redis_reusable
 *          says that every answer was read, else it is closed;
 *   learn  from an answer that says something about places (MOVED, ASK,
 *          CLUSTERDOWN, TRYAGAIN, READONLY, MASTERDOWN), or from a lost
 *          connection. It marks its map as stale, or opens a pool for the node
 *          that was named, and exchanges the connection for the one to try
 *          next, or says that there is nothing to be learned. Nothing was
 *          executed where the answer is one of these, so trying again is always
 *          safe; after a lost connection the operation decides itself (redis.c
 *          says which may be repeated, and why);
 *   nth    for a connection to master number n, for listing.
 *
 * All of it within the deadline of the operation, without sleeping longer.
 *
 * Threads: a dialer may be used by many at once, a connection by one. Fork: a
 * connection of the parent is forgotten in the child, see ces_redis_forget.
 */
#ifndef CES_DRIVERS_REDIS_WIRE_H
#define CES_DRIVERS_REDIS_WIRE_H

#include "cession/store.h"
#include "drivers/redis_reply.h"

typedef enum ces_redis_tls_mode {
    CES_REDIS_PLAIN,
    CES_REDIS_TLS,           /* the certificate must be good for the name */
    CES_REDIS_TLS_ANY_NAME,  /* ... must be good */
    CES_REDIS_TLS_UNVERIFIED /* whatever certificate */
} ces_redis_tls_mode;

/* How to speak to a server, wherever it is. Strings are NULL where not given;
 * all belong to the settings that they are part of. */
typedef struct ces_redis_manner {
    char *username, *password, *client_name;
    unsigned db;
    unsigned protocol;                      /* 2 or 3 */
    int64_t timeout_ms, connect_timeout_ms; /* 0: the deadline alone */
    ces_redis_tls_mode tls;
    char *server_name; /* checked and sent instead of the host's name */
    char *ca_file, *ca_path, *cert_file, *key_file, *key_password;
} ces_redis_manner;

typedef struct ces_redis_place {
    const char *path; /* of a unix socket, or NULL */
    const char *host; /* a name or an address */
    unsigned port;
} ces_redis_place;

/* Makes connections in one manner; holds what they share (certificates, read
 * when the first one needs them). manner is borrowed for its life. */
typedef struct ces_redis_dialer ces_redis_dialer;
int ces_redis_dialer_new(const ces_redis_manner *manner, ces_redis_dialer **ret_dialer,
                         cession_error *err);
void ces_redis_dialer_free(ces_redis_dialer *dialer); /* NULL is fine */

typedef struct ces_redis_conn ces_redis_conn;

/* Connect and greet: TLS, AUTH, client name, database. E_TIMEOUT, E_UNAVAILABLE
 * (also for certificate files that cannot be used), E_PERMISSION. The place is
 * borrowed for the call. */
int ces_redis_connect(ces_redis_dialer *dialer, const ces_redis_place *place,
                      cession_deadline deadline, ces_redis_conn **ret_conn, cession_error *err);
void ces_redis_close(ces_redis_conn *conn);
/* In a forked child: free it without a word to the server, which the parent
 * still speaks to over the same connection. */
void ces_redis_forget(ces_redis_conn *conn);

/* True once: the connection has just been made. Unlike one that was idle, it
 * cannot have been given up by the server meanwhile. */
bool ces_redis_first_use(ces_redis_conn *conn);
/* Whether an idle connection can be used: still open, and nothing has come that
 * nobody asked for. Does not wait. */
bool ces_redis_alive(ces_redis_conn *conn);
/* Whether it may serve another request: all answers were read, no more and no
 * less. Only then may it go back into a pool. */
bool ces_redis_reusable(const ces_redis_conn *conn);

/* One more command of the request that is being put together. */
int ces_redis_add(ces_redis_conn *conn, const cession_span *words, size_t count,
                  cession_error *err);
/* Send what was added. */
int ces_redis_send(ces_redis_conn *conn, cession_deadline deadline, cession_error *err);
/* The answer to the next command that was sent; the caller frees it. An error
 * that the server answers is an answer. E_UNAVAILABLE: the connection was lost,
 * E_TIMEOUT, E_IO, E_LIMIT: it is of no use any more. */
int ces_redis_receive(ces_redis_conn *conn, cession_deadline deadline, ces_redis_reply **ret_reply,
                      cession_error *err);
/* After a failure: false, the request has not left this process as a whole, so
 * the server cannot have executed its last command. */
bool ces_redis_was_sent(const ces_redis_conn *conn);

/* The status and the text of an error that a server answered. Of the server's
 * own words only the first is shown, the others may quote keys. */
int ces_redis_fail(const ces_redis_reply *reply, cession_error *err);

#endif
