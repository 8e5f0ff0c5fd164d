/* See redis_tls.h.
 *
 * OpenSSL writes to a socket with write(), which raises SIGPIPE when the server
 * has gone, and a library must not touch the process's signals: so the bytes
 * pass through a BIO of our own, which sends with MSG_NOSIGNAL.
 *
 * OpenSSL keeps its errors in a queue per thread, which other code of the
 * process uses as well (Python's ssl): it is emptied before each call, or an old
 * entry would be taken for ours, and after a failure. */
#include "drivers/redis_tls.h"

#include <arpa/inet.h>
#include <errno.h>
#include <pthread.h>
#include <stdint.h>
#include <sys/socket.h>

#include <openssl/err.h>
#include <openssl/x509v3.h>

#include "base/banned.h"

/* ---- bytes -------------------------------------------------------------------- */

static BIO_METHOD *method; /* for the life of the process; NULL: out of memory */
static pthread_once_t method_once = PTHREAD_ONCE_INIT;

static int fd_of(BIO *bio)
{
    return (int)(intptr_t)BIO_get_data(bio);
}

static int socket_write(BIO *bio, const char *data, int len)
{
    BIO_clear_retry_flags(bio);
    ssize_t done;
    do {
        done = send(fd_of(bio), data, (size_t)len, MSG_NOSIGNAL);
    } while (done < 0 && errno == EINTR);
    if (done < 0 && (errno == EAGAIN || errno == EWOULDBLOCK)) {
        BIO_set_retry_write(bio);
    }
    return (int)done;
}

static int socket_read(BIO *bio, char *data, int len)
{
    BIO_clear_retry_flags(bio);
    ssize_t done;
    do {
        done = recv(fd_of(bio), data, (size_t)len, 0);
    } while (done < 0 && errno == EINTR);
    if (done < 0 && (errno == EAGAIN || errno == EWOULDBLOCK)) {
        BIO_set_retry_read(bio);
    }
    return (int)done;
}

static long socket_ctrl(BIO *bio, int command, long number, void *pointer)
{
    (void)bio;
    (void)number;
    (void)pointer;
    return command == BIO_CTRL_FLUSH; /* nothing is held back */
}

static void make_method(void)
{
    BIO_METHOD *made = BIO_meth_new(BIO_get_new_index() | BIO_TYPE_SOURCE_SINK, "cession socket");
    if (made != NULL &&
        (BIO_meth_set_write(made, socket_write) != 1 || BIO_meth_set_read(made, socket_read) != 1 ||
         BIO_meth_set_ctrl(made, socket_ctrl) != 1)) {
        BIO_meth_free(made);
        made = NULL;
    }
    method = made;
}

/* ---- certificates ---------------------------------------------------------------- */

/* Without this OpenSSL asks on the terminal. */
static int password_of(char *room, int size, int for_writing, void *context)
{
    const ces_redis_manner *manner = context;
    (void)for_writing;
    size_t len = manner->key_password != NULL ? strlen(manner->key_password) : 0;
    if (len >= (size_t)size) {
        return -1;
    }
    memcpy(room, len != 0 ? manner->key_password : "", len);
    return (int)len;
}

static int load_files(SSL_CTX *context, const ces_redis_manner *manner, cession_error *err)
{
    if (manner->tls != CES_REDIS_TLS_UNVERIFIED) {
        int loaded = manner->ca_file != NULL || manner->ca_path != NULL
                         ? SSL_CTX_load_verify_locations(context, manner->ca_file, manner->ca_path)
                         : SSL_CTX_set_default_verify_paths(context);
        if (loaded != 1) {
            return cession_fail(err, CESSION_E_UNAVAILABLE,
                                "the certificates of the authorities that may vouch for the "
                                "server (ssl_ca_certs, ssl_ca_path) cannot be read");
        }
    }
    if (manner->cert_file != NULL) {
        const char *key = manner->key_file != NULL ? manner->key_file : manner->cert_file;
        if (SSL_CTX_use_certificate_chain_file(context, manner->cert_file) != 1) {
            return cession_fail(err, CESSION_E_UNAVAILABLE,
                                "the certificate of this client (ssl_certfile) cannot be read");
        }
        if (SSL_CTX_use_PrivateKey_file(context, key, SSL_FILETYPE_PEM) != 1 ||
            SSL_CTX_check_private_key(context) != 1) {
            return cession_fail(err, CESSION_E_UNAVAILABLE,
                                "the key of this client's certificate (ssl_keyfile, ssl_password) "
                                "cannot be read or belongs to another one");
        }
    }
    return CESSION_OK;
}

int ces_redis_tls_context(const ces_redis_manner *manner, SSL_CTX **ret_context, cession_error *err)
{
    pthread_once(&method_once, make_method);
    ERR_clear_error();
    SSL_CTX *context = method != NULL ? SSL_CTX_new(TLS_client_method()) : NULL;
    if (context == NULL || SSL_CTX_set_min_proto_version(context, TLS1_2_VERSION) != 1) {
        SSL_CTX_free(context);
        ERR_clear_error();
        return cession_fail(err, CESSION_E_CRYPTO, "TLS could not be set up");
    }
    SSL_CTX_set_mode(context, SSL_MODE_ENABLE_PARTIAL_WRITE | SSL_MODE_ACCEPT_MOVING_WRITE_BUFFER);
    SSL_CTX_set_session_cache_mode(context, SSL_SESS_CACHE_OFF);
    SSL_CTX_set_default_passwd_cb(context, password_of);
    SSL_CTX_set_default_passwd_cb_userdata(context, (void *)(uintptr_t)manner);
    SSL_CTX_set_verify(
        context, manner->tls == CES_REDIS_TLS_UNVERIFIED ? SSL_VERIFY_NONE : SSL_VERIFY_PEER, NULL);
    int rc = load_files(context, manner, err);
    ERR_clear_error();
    if (rc != CESSION_OK) {
        SSL_CTX_free(context);
        return rc;
    }
    *ret_context = context;
    return CESSION_OK;
}

static bool is_address(const char *host)
{
    unsigned char room[sizeof(struct in6_addr)];
    return inet_pton(AF_INET, host, room) == 1 || inet_pton(AF_INET6, host, room) == 1;
}

int ces_redis_tls_new(SSL_CTX *context, int fd, const ces_redis_manner *manner, const char *host,
                      SSL **ret_ssl, cession_error *err)
{
    ERR_clear_error();
    const char *name = manner->server_name != NULL ? manner->server_name : host;
    SSL *ssl = SSL_new(context);
    BIO *bio = ssl != NULL ? BIO_new(method) : NULL;
    bool fine = bio != NULL;
    if (fine) {
        BIO_set_data(bio, (void *)(intptr_t)fd);
        BIO_set_init(bio, 1);
        SSL_set_bio(ssl, bio, bio);
        SSL_set_connect_state(ssl);
        bool address = is_address(name);
        if (!address) {
            fine = SSL_set_tlsext_host_name(ssl, name) == 1;
        }
        if (fine && manner->tls == CES_REDIS_TLS) {
            fine = address ? X509_VERIFY_PARAM_set1_ip_asc(SSL_get0_param(ssl), name) == 1
                           : SSL_set1_host(ssl, name) == 1;
            SSL_set_hostflags(ssl, X509_CHECK_FLAG_NO_PARTIAL_WILDCARDS);
        }
    }
    ERR_clear_error();
    if (!fine) {
        SSL_free(ssl);
        return cession_fail(err, CESSION_E_CRYPTO, "TLS could not be set up for a connection");
    }
    *ret_ssl = ssl;
    return CESSION_OK;
}

/* ---- steps --------------------------------------------------------------------------- */

static ces_redis_want want_of(const SSL *ssl, int rc)
{
    switch (SSL_get_error(ssl, rc)) {
    case SSL_ERROR_WANT_READ:
        return CES_REDIS_READ;
    case SSL_ERROR_WANT_WRITE:
        return CES_REDIS_WRITE;
    default:
        return CES_REDIS_FAILED;
    }
}

ces_redis_want ces_redis_tls_greet(SSL *ssl, cession_error *err)
{
    ERR_clear_error();
    int rc = SSL_do_handshake(ssl);
    if (rc == 1) {
        return CES_REDIS_DONE;
    }
    ces_redis_want want = want_of(ssl, rc);
    if (want == CES_REDIS_FAILED) {
        long verdict = SSL_get_verify_result(ssl);
        const char *reason = ERR_reason_error_string(ERR_peek_error());
        if (verdict != X509_V_OK && SSL_get_verify_mode(ssl) != SSL_VERIFY_NONE) {
            cession_fail(err, CESSION_E_UNAVAILABLE,
                         "the server's certificate was not accepted: %s",
                         X509_verify_cert_error_string(verdict));
        } else {
            cession_fail(err, CESSION_E_UNAVAILABLE, "TLS was not agreed upon: %s",
                         reason != NULL ? reason : "the server closed the connection");
        }
        ERR_clear_error();
    }
    return want;
}

ces_redis_want ces_redis_tls_read(SSL *ssl, void *data, size_t len, size_t *ret_len)
{
    ERR_clear_error();
    int rc = SSL_read_ex(ssl, data, len, ret_len);
    if (rc == 1) {
        return CES_REDIS_DONE;
    }
    *ret_len = 0;
    ces_redis_want want = want_of(ssl, rc);
    ERR_clear_error();
    return want;
}

ces_redis_want ces_redis_tls_write(SSL *ssl, const void *data, size_t len, size_t *ret_len)
{
    ERR_clear_error();
    int rc = SSL_write_ex(ssl, data, len, ret_len);
    if (rc == 1) {
        return CES_REDIS_DONE;
    }
    *ret_len = 0;
    ces_redis_want want = want_of(ssl, rc);
    ERR_clear_error();
    return want;
}

bool ces_redis_tls_quiet(SSL *ssl)
{
    /* Session tickets come after the handshake: what can be read from the
     * socket need not be data. */
    char byte;
    size_t len = 0;
    ERR_clear_error();
    int rc = SSL_peek_ex(ssl, &byte, 1, &len);
    bool quiet = rc != 1 && want_of(ssl, rc) == CES_REDIS_READ;
    ERR_clear_error();
    return quiet;
}
