/* See redis_wire.h. */
#include "drivers/redis_wire.h"

#include <errno.h>
#include <netdb.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <pthread.h>
#include <stdio.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include "base/alloc.h"
#include "base/os.h"
#include "drivers/redis_tls.h"
#include "base/banned.h"

#define NS_PER_MS INT64_C(1000000)
#define REQUEST_MAX ((size_t)2 * CES_REDIS_REPLY_MAX) /* two values and their command */
#define READ_BYTES 16384u
#define UNIX_PAUSE_NS NS_PER_MS
#define WORD_MAX 24u /* of a server's error: the bytes that are shown */

struct ces_redis_dialer {
    const ces_redis_manner *manner;
    pthread_mutex_t mutex;
    SSL_CTX *context; /* NULL: not needed yet */
};

struct ces_redis_conn {
    int fd;
    SSL *ssl; /* NULL: plain */
    ces_redis_reader *reader;
    cession_buf out;
    size_t unread; /* answers to what was added that were not received */
    bool sent;     /* all that was added has been handed to the system */
    bool used;     /* for a request, after the greeting */
    bool broken;
};

/* ---- waiting ---------------------------------------------------------------------- */

/* OK: something happened on the socket, be it an error. */
static int wait_for(int fd, short events, cession_deadline deadline, cession_error *err)
{
    for (;;) {
        int64_t left = deadline - ces_mono_ns();
        if (left <= 0) {
            return cession_fail(err, CESSION_E_TIMEOUT, "the server did not answer in time");
        }
        struct timespec limit = {.tv_sec = (time_t)(left / (1000 * NS_PER_MS)),
                                 .tv_nsec = (long)(left % (1000 * NS_PER_MS))};
        struct pollfd wanted = {.fd = fd, .events = events};
        int ready = ppoll(&wanted, 1, &limit, NULL);
        if (ready > 0) {
            return CESSION_OK;
        }
        if (ready < 0 && errno != EINTR) {
            return cession_fail(err, CESSION_E_UNAVAILABLE, "the connection cannot be waited for");
        }
    }
}

static cession_deadline sooner(cession_deadline deadline, int64_t limit_ms)
{
    if (limit_ms <= 0) {
        return deadline;
    }
    cession_deadline limit = cession_deadline_in(limit_ms);
    return limit < deadline ? limit : deadline;
}

/* ---- sockets ------------------------------------------------------------------------- */

static int no_connection(const ces_redis_place *place, int code, cession_error *err)
{
    char room[64];
    const char *reason = strerror_r(code, room, sizeof room);
    int status = code == ETIMEDOUT ? CESSION_E_TIMEOUT : CESSION_E_UNAVAILABLE;
    if (place->path != NULL) {
        return cession_fail(err, status, "no connection to the Redis server at the unix socket: %s",
                            reason);
    }
    return cession_fail(err, status, "no connection to the Redis server at %.100s port %u: %s",
                        place->host, place->port, reason);
}

/* A connected socket; a negative value is an errno, or -ETIMEDOUT at the deadline. */
static int dial(const struct sockaddr *address, socklen_t len, cession_deadline deadline)
{
    int fd = socket(address->sa_family, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    if (fd < 0) {
        return -errno;
    }
    int code = 0;
    while (connect(fd, address, len) != 0) {
        code = errno;
        if (code == EAGAIN && address->sa_family == AF_UNIX) {
            /* Its queue is full, and there is nothing to poll for. */
            if (ces_mono_ns() + UNIX_PAUSE_NS >= deadline) {
                code = ETIMEDOUT;
                break;
            }
            ces_sleep_ns(UNIX_PAUSE_NS);
            continue;
        }
        if (code == EINPROGRESS || code == EINTR) {
            socklen_t size = sizeof code;
            if (wait_for(fd, POLLOUT, deadline, NULL) != CESSION_OK) {
                code = ETIMEDOUT;
            } else if (getsockopt(fd, SOL_SOCKET, SO_ERROR, &code, &size) != 0) {
                code = errno;
            }
        }
        break;
    }
    if (code == EAGAIN) {
        code = 0; /* the last attempt of the loop above succeeded */
    }
    if (code != 0) {
        close(fd);
        return -code;
    }
    return fd;
}

static int dial_unix(const ces_redis_place *place, cession_deadline deadline, int *ret_fd,
                     cession_error *err)
{
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    size_t len = strlen(place->path);
    if (len >= sizeof address.sun_path) {
        return cession_fail(err, CESSION_E_LIMIT, "the path of a unix socket has at most %zu bytes",
                            sizeof address.sun_path - 1);
    }
    memcpy(address.sun_path, place->path, len + 1);
    int fd = dial((const struct sockaddr *)&address, sizeof address, deadline);
    if (fd < 0) {
        return no_connection(place, -fd, err);
    }
    *ret_fd = fd;
    return CESSION_OK;
}

/* Every address of the name is tried, each for its share of the time that is
 * left: one that swallows packets must not use up the time of the others. */
static int dial_all(const struct addrinfo *found, cession_deadline deadline)
{
    int64_t count = 0;
    for (const struct addrinfo *a = found; a != NULL; a = a->ai_next) {
        count++;
    }
    int fd = -ETIMEDOUT;
    for (const struct addrinfo *a = found; a != NULL && fd < 0; a = a->ai_next, count--) {
        int64_t now = ces_mono_ns();
        if (now >= deadline) {
            return -ETIMEDOUT;
        }
        fd = dial(a->ai_addr, a->ai_addrlen, now + (deadline - now) / count);
    }
    return fd;
}

static int dial_tcp(const ces_redis_place *place, cession_deadline deadline, int *ret_fd,
                    cession_error *err)
{
    char port[8];
    snprintf(port, sizeof port, "%u", place->port % 65536);
    struct addrinfo hints = {.ai_socktype = SOCK_STREAM,
                             .ai_flags = AI_NUMERICSERV | AI_NUMERICHOST};
    struct addrinfo *found = NULL;
    int rc = getaddrinfo(place->host, port, &hints, &found);
    if (rc == EAI_NONAME) {
        /* The system's resolver keeps its own time. */
        hints.ai_flags = AI_NUMERICSERV;
        rc = getaddrinfo(place->host, port, &hints, &found);
    }
    if (rc != 0) {
        return cession_fail(err, CESSION_E_UNAVAILABLE,
                            "the name of the Redis server, %.100s, has no address: %s", place->host,
                            gai_strerror(rc));
    }
    int fd = dial_all(found, deadline);
    freeaddrinfo(found);
    if (fd < 0) {
        return no_connection(place, -fd, err);
    }
    int on = 1;
    /* Without these it works as well, only later or not as long. */
    (void)setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
    (void)setsockopt(fd, SOL_SOCKET, SO_KEEPALIVE, &on, sizeof on);
    *ret_fd = fd;
    return CESSION_OK;
}

/* ---- dialers ---------------------------------------------------------------------------- */

int ces_redis_dialer_new(const ces_redis_manner *manner, ces_redis_dialer **ret_dialer,
                         cession_error *err)
{
    ces_redis_dialer *self = ces_alloc_zero(sizeof *self);
    if (self == NULL || pthread_mutex_init(&self->mutex, NULL) != 0) {
        ces_free(self);
        return cession_fail(err, CESSION_E_NOMEM, NULL);
    }
    self->manner = manner;
    *ret_dialer = self;
    return CESSION_OK;
}

void ces_redis_dialer_free(ces_redis_dialer *self)
{
    if (self != NULL) {
        SSL_CTX_free(self->context);
        pthread_mutex_destroy(&self->mutex);
        ces_free(self);
    }
}

static int start_tls(ces_redis_dialer *dialer, ces_redis_conn *conn, const ces_redis_place *place,
                     cession_deadline deadline, cession_error *err)
{
    pthread_mutex_lock(&dialer->mutex);
    int rc = dialer->context != NULL ? CESSION_OK
                                     : ces_redis_tls_context(dialer->manner, &dialer->context, err);
    pthread_mutex_unlock(&dialer->mutex);
    if (rc == CESSION_OK) {
        rc = ces_redis_tls_new(dialer->context, conn->fd, dialer->manner,
                               place->path != NULL ? "localhost" : place->host, &conn->ssl, err);
    }
    while (rc == CESSION_OK) {
        ces_redis_want want = ces_redis_tls_greet(conn->ssl, err);
        if (want == CES_REDIS_DONE) {
            return CESSION_OK;
        }
        rc = want == CES_REDIS_FAILED
                 ? CESSION_E_UNAVAILABLE
                 : wait_for(conn->fd, want == CES_REDIS_READ ? POLLIN : POLLOUT, deadline, err);
    }
    return rc;
}

/* ---- greeting ------------------------------------------------------------------------------ */

#define WORD(text) cession_span_str(text)

static int add_hello(ces_redis_conn *conn, const ces_redis_manner *manner, cession_error *err)
{
    cession_span words[] = {WORD("HELLO"), WORD("3"), WORD("AUTH"),
                            WORD(manner->username != NULL ? manner->username : "default"),
                            WORD(manner->password)};
    return ces_redis_add(conn, words, manner->password != NULL ? 5 : 2, err);
}

static int add_auth(ces_redis_conn *conn, const ces_redis_manner *manner, cession_error *err)
{
    cession_span words[] = {WORD("AUTH"), WORD(manner->username), WORD(manner->password)};
    if (manner->username == NULL) {
        words[1] = words[2];
    }
    return ces_redis_add(conn, words, manner->username != NULL ? 3 : 2, err);
}

static int add_greeting(ces_redis_conn *conn, const ces_redis_manner *manner, cession_error *err)
{
    int rc = CESSION_OK;
    if (manner->protocol == 3) {
        rc = add_hello(conn, manner, err);
    } else if (manner->password != NULL) {
        rc = add_auth(conn, manner, err);
    }
    if (rc == CESSION_OK && manner->client_name != NULL) {
        cession_span words[] = {WORD("CLIENT"), WORD("SETNAME"), WORD(manner->client_name)};
        rc = ces_redis_add(conn, words, 3, err);
    }
    if (rc == CESSION_OK && manner->db != 0) {
        char number[16];
        snprintf(number, sizeof number, "%u", manner->db);
        cession_span words[] = {WORD("SELECT"), WORD(number)};
        rc = ces_redis_add(conn, words, 2, err);
    }
    return rc;
}

/* All in one round trip; the first refusal is the one to show, since the others
 * follow from it. */
static int greet(ces_redis_conn *conn, const ces_redis_manner *manner, cession_deadline deadline,
                 cession_error *err)
{
    int rc = add_greeting(conn, manner, err);
    if (rc == CESSION_OK && conn->unread > 0) {
        rc = ces_redis_send(conn, deadline, err);
    }
    while (rc == CESSION_OK && conn->unread > 0) {
        ces_redis_reply *reply = NULL;
        rc = ces_redis_receive(conn, deadline, &reply, err);
        if (rc == CESSION_OK && reply->kind == CES_REDIS_ERROR) {
            rc = ces_redis_is_error(reply, "NOPROTO")
                     ? cession_fail(err, CESSION_E_UNAVAILABLE, "the server does not speak RESP3")
                     : ces_redis_fail(reply, err);
        }
        ces_redis_reply_free(reply);
    }
    return rc;
}

/* ---- life ------------------------------------------------------------------------------------ */

int ces_redis_connect(ces_redis_dialer *dialer, const ces_redis_place *place,
                      cession_deadline deadline, ces_redis_conn **ret_conn, cession_error *err)
{
    const ces_redis_manner *manner = dialer->manner;
    deadline = sooner(deadline, manner->connect_timeout_ms);
    ces_redis_conn *conn = ces_alloc_zero(sizeof *conn);
    if (conn == NULL) {
        return cession_fail(err, CESSION_E_NOMEM, NULL);
    }
    conn->fd = -1;
    cession_buf_init(&conn->out, REQUEST_MAX);
    int rc = ces_redis_reader_new(&conn->reader, err);
    if (rc == CESSION_OK) {
        rc = place->path != NULL ? dial_unix(place, deadline, &conn->fd, err)
                                 : dial_tcp(place, deadline, &conn->fd, err);
    }
    if (rc == CESSION_OK && manner->tls != CES_REDIS_PLAIN) {
        rc = start_tls(dialer, conn, place, deadline, err);
    }
    if (rc == CESSION_OK) {
        rc = greet(conn, manner, deadline, err);
    }
    if (rc != CESSION_OK) {
        ces_redis_close(conn);
        return rc;
    }
    *ret_conn = conn;
    return CESSION_OK;
}

void ces_redis_forget(ces_redis_conn *conn)
{
    if (conn == NULL) {
        return;
    }
    /* Closing the child's descriptor says nothing to the server while the
     * parent has its own; what would be said is TLS' goodbye, and is not. */
    SSL_free(conn->ssl);
    if (conn->fd >= 0) {
        close(conn->fd);
    }
    ces_redis_reader_free(conn->reader);
    if (conn->out.data != NULL) {
        ces_wipe(conn->out.data, conn->out.cap);
    }
    cession_buf_release(&conn->out);
    ces_free(conn);
}

/* Servers do not wait for TLS' goodbye either: the end of the stream is enough,
 * since every answer carries its own length. */
void ces_redis_close(ces_redis_conn *conn)
{
    ces_redis_forget(conn);
}

bool ces_redis_reusable(const ces_redis_conn *conn)
{
    return !conn->broken && conn->unread == 0 && conn->out.len == 0 &&
           ces_redis_reader_empty(conn->reader);
}

bool ces_redis_first_use(ces_redis_conn *conn)
{
    bool first = !conn->used;
    conn->used = true;
    return first;
}

bool ces_redis_alive(ces_redis_conn *conn)
{
    char byte;
    if (!ces_redis_reusable(conn)) {
        return false;
    }
    if (conn->ssl != NULL) {
        return ces_redis_tls_quiet(conn->ssl);
    }
    ssize_t got = recv(conn->fd, &byte, 1, MSG_PEEK | MSG_DONTWAIT);
    return got < 0 && (errno == EAGAIN || errno == EWOULDBLOCK);
}

/* ---- requests and answers
 * ------------------------------------------------------------------------ */

int ces_redis_add(ces_redis_conn *conn, const cession_span *words, size_t count, cession_error *err)
{
    conn->sent = false;
    int rc = ces_redis_format(&conn->out, words, count, err);
    if (rc != CESSION_OK) {
        conn->broken = true; /* half a request must not be sent later */
        return rc;
    }
    conn->unread++;
    return CESSION_OK;
}

static int lost(ces_redis_conn *conn, cession_error *err)
{
    conn->broken = true;
    return cession_fail(err, CESSION_E_UNAVAILABLE, "the connection to the Redis server was lost");
}

static ces_redis_want write_some(ces_redis_conn *conn, const void *data, size_t len,
                                 size_t *ret_len)
{
    if (conn->ssl != NULL) {
        return ces_redis_tls_write(conn->ssl, data, len, ret_len);
    }
    ssize_t done;
    do {
        done = send(conn->fd, data, len, MSG_NOSIGNAL);
    } while (done < 0 && errno == EINTR);
    if (done < 0) {
        return errno == EAGAIN || errno == EWOULDBLOCK ? CES_REDIS_WRITE : CES_REDIS_FAILED;
    }
    *ret_len = (size_t)done;
    return CES_REDIS_DONE;
}

static ces_redis_want read_some(ces_redis_conn *conn, void *data, size_t len, size_t *ret_len)
{
    if (conn->ssl != NULL) {
        return ces_redis_tls_read(conn->ssl, data, len, ret_len);
    }
    ssize_t done;
    do {
        done = recv(conn->fd, data, len, 0);
    } while (done < 0 && errno == EINTR);
    if (done < 0) {
        return errno == EAGAIN || errno == EWOULDBLOCK ? CES_REDIS_READ : CES_REDIS_FAILED;
    }
    *ret_len = (size_t)done;
    return done > 0 ? CES_REDIS_DONE : CES_REDIS_FAILED;
}

static int wait_step(ces_redis_conn *conn, ces_redis_want want, cession_deadline deadline,
                     cession_error *err)
{
    if (want == CES_REDIS_FAILED) {
        return lost(conn, err);
    }
    int rc = wait_for(conn->fd, want == CES_REDIS_READ ? POLLIN : POLLOUT, deadline, err);
    conn->broken = conn->broken || rc != CESSION_OK;
    return rc;
}

int ces_redis_send(ces_redis_conn *conn, cession_deadline deadline, cession_error *err)
{
    size_t at = 0;
    int rc = conn->broken ? lost(conn, err) : CESSION_OK;
    while (rc == CESSION_OK && at < conn->out.len) {
        size_t done = 0;
        ces_redis_want want = write_some(conn, conn->out.data + at, conn->out.len - at, &done);
        at += done;
        if (want != CES_REDIS_DONE) {
            rc = wait_step(conn, want, deadline, err);
        }
    }
    if (rc != CESSION_OK) {
        return rc;
    }
    conn->sent = true;
    /* The next request may be small, and a password must not stay. */
    ces_wipe(conn->out.data, conn->out.len);
    if (conn->out.cap > CES_REDIS_LINE_MAX) {
        cession_buf_release(&conn->out);
    } else {
        cession_buf_clear(&conn->out);
    }
    return CESSION_OK;
}

bool ces_redis_was_sent(const ces_redis_conn *conn)
{
    return conn->sent;
}

int ces_redis_receive(ces_redis_conn *conn, cession_deadline deadline, ces_redis_reply **ret_reply,
                      cession_error *err)
{
    uint8_t bytes[READ_BYTES];
    if (conn->broken || conn->unread == 0) {
        conn->broken = true;
        return cession_fail(err, CESSION_E_INTERNAL, NULL);
    }
    for (;;) {
        ces_redis_reply *reply = NULL;
        int rc = ces_redis_reader_take(conn->reader, &reply, err);
        if (rc != CESSION_OK) {
            conn->broken = true;
            return rc;
        }
        if (reply != NULL) {
            conn->unread--;
            *ret_reply = reply;
            return CESSION_OK;
        }
        size_t got = 0;
        ces_redis_want want = read_some(conn, bytes, sizeof bytes, &got);
        rc = want == CES_REDIS_DONE ? ces_redis_reader_feed(conn->reader, bytes, got, err)
                                    : wait_step(conn, want, deadline, err);
        if (rc != CESSION_OK) {
            conn->broken = true;
            return rc;
        }
    }
}

/* ---- errors that the server answers
 * ---------------------------------------------------------------- */

typedef struct meaning {
    const char *word;
    int status;
    const char *text;
} meaning;

static const meaning meanings[] = {
    {"NOAUTH", CESSION_E_PERMISSION, "the Redis server wants a password (NOAUTH)"},
    {"WRONGPASS", CESSION_E_PERMISSION,
     "the Redis server does not accept this user name and password (WRONGPASS)"},
    {"NOPERM", CESSION_E_PERMISSION,
     "the user of the Redis server may not do this: sessions need GET, SET, DEL, PTTL, PEXPIRE, "
     "EVAL, EVALSHA and SCAN on their keys (NOPERM)"},
    {"LOADING", CESSION_E_UNAVAILABLE, "the Redis server is loading its data (LOADING)"},
    {"READONLY", CESSION_E_UNAVAILABLE,
     "the Redis server is a replica, which takes no writes (READONLY)"},
    {"MASTERDOWN", CESSION_E_UNAVAILABLE,
     "the Redis server is a replica that has lost its master (MASTERDOWN)"},
    {"CLUSTERDOWN", CESSION_E_UNAVAILABLE, "the Redis Cluster is down (CLUSTERDOWN)"},
    {"TRYAGAIN", CESSION_E_UNAVAILABLE, "the Redis Cluster is moving the key (TRYAGAIN)"},
    {"MOVED", CESSION_E_UNAVAILABLE,
     "the Redis server is one of a Cluster, which needs a redis+cluster: URL (MOVED)"},
    {"ASK", CESSION_E_UNAVAILABLE, "the Redis Cluster is moving the key (ASK)"},
    {"MISCONF", CESSION_E_UNAVAILABLE,
     "the Redis server cannot save its data to disk and takes no writes (MISCONF)"},
    {"NOREPLICAS", CESSION_E_UNAVAILABLE,
     "the Redis server has too few replicas and takes no writes (NOREPLICAS)"},
    {"OOM", CESSION_E_UNAVAILABLE, "the Redis server has no memory left (OOM)"},
    {"BUSY", CESSION_E_UNAVAILABLE, "the Redis server is busy with a script (BUSY)"},
};

int ces_redis_fail(const ces_redis_reply *reply, cession_error *err)
{
    for (size_t i = 0; i < sizeof meanings / sizeof meanings[0]; i++) {
        if (ces_redis_is_error(reply, meanings[i].word)) {
            return cession_fail(err, meanings[i].status, "%s", meanings[i].text);
        }
    }
    /* Redis before 6, and what it says to AUTH without a password being set. */
    static const char *const refusals[] = {"ERR invalid password", "ERR Client sent AUTH",
                                           "ERR AUTH "};
    for (size_t i = 0; i < sizeof refusals / sizeof refusals[0]; i++) {
        if (reply->kind == CES_REDIS_ERROR &&
            strncmp(reply->text, refusals[i], strlen(refusals[i])) == 0) {
            return cession_fail(err, CESSION_E_PERMISSION,
                                "the Redis server does not accept the password, or has none set");
        }
    }
    if (reply->kind != CES_REDIS_ERROR) {
        return cession_fail(err, CESSION_E_IO, "the Redis server answered something unexpected");
    }
    char word[WORD_MAX + 1];
    size_t len = 0;
    while (len < WORD_MAX && len < reply->len &&
           ((reply->text[len] >= 'A' && reply->text[len] <= 'Z') || reply->text[len] == '_')) {
        word[len] = reply->text[len];
        len++;
    }
    word[len] = '\0';
    return cession_fail(err, CESSION_E_IO, "the Redis server answered an error (%s)",
                        len != 0 ? word : "without a code");
}
