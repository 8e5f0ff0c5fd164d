/* TLS over a non-blocking socket, by OpenSSL. */
#ifndef CES_DRIVERS_REDIS_TLS_H
#define CES_DRIVERS_REDIS_TLS_H

#include <openssl/ssl.h>
#include <sys/types.h>

#include "drivers/redis_wire.h"

/* The certificates of a manner. E_UNAVAILABLE says which file cannot be used. */
int ces_redis_tls_context(const ces_redis_manner *manner, SSL_CTX **ret_context,
                          cession_error *err);
/* A client's end over the socket fd, not connected yet. host: to be checked, and
 * sent unless it is an address. */
int ces_redis_tls_new(SSL_CTX *context, int fd, const ces_redis_manner *manner, const char *host,
                      SSL **ret_ssl, cession_error *err);

typedef enum ces_redis_want {
    CES_REDIS_DONE,
    CES_REDIS_READ,
    CES_REDIS_WRITE,
    CES_REDIS_FAILED
} ces_redis_want;

/* One step of the handshake; the text of a failure says why. */
ces_redis_want ces_redis_tls_greet(SSL *ssl, cession_error *err);
/* One attempt. FAILED with *ret_len 0: the other end has closed. */
ces_redis_want ces_redis_tls_read(SSL *ssl, void *data, size_t len, size_t *ret_len);
ces_redis_want ces_redis_tls_write(SSL *ssl, const void *data, size_t len, size_t *ret_len);
/* Whether the connection is open and no data wait. */
bool ces_redis_tls_quiet(SSL *ssl);

#endif
