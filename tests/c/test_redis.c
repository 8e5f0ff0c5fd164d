/* The redis driver on a real server: the contract by every way there is to reach
 * one, URLs and options, forks, memory that runs out, servers that go away. */
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "contract.h"
#include "drivers/redis_reply.h"
#include "failing_alloc.h"
#include "guard.h"
#include "harness.h"
#include "redis_world.h"
#include "scratch.h"

#define HOUR INT64_C(3600000)
#define LATE_MS 5000 /* on a busy machine */

/* ---- the contract ---------------------------------------------------------------- */

static cession_store *make_apart(void *context)
{
    return redis_open_apart(context);
}

static void run_contract(const char *url, unsigned changes)
{
    char copy[1024];
    snprintf(copy, sizeof copy, "%s", url);
    contract_run(&(contract_subject){.make = make_apart,
                                     .context = copy,
                                     .tick_ms = 1,
                                     .changes = changes,
                                     .late_ms = LATE_MS,
                                     .repeats = true});
}

static cession_store *make_alone(void *context)
{
    CHECK_STR(redis_ask("FLUSHALL"), "+OK\r\n");
    return redis_open_url(context);
}

static void test_contract(void)
{
    char url[1024];
    snprintf(url, sizeof url, "%s", redis_url("0"));
    contract_run(&(contract_subject){
        .make = make_alone, .context = url, .tick_ms = 1, .late_ms = LATE_MS, .repeats = true});
    CHECK_STR(redis_ask("FLUSHALL"), "+OK\r\n");
}

static void test_contract_resp3(void)
{
    run_contract(redis_url("1?protocol=3&client_name=cession"), 50);
}

static void test_contract_unix(void)
{
    run_contract(redis_text("unix://%s?db=2", redis_socket()), 50);
}

static void test_contract_acl(void)
{
    run_contract(redis_text("redis://app:sessions@127.0.0.1:%u", redis_port()), 50);
}

static void test_contract_acl_resp3(void)
{
    run_contract(redis_text("redis+unix://app:sessions@%s?protocol=3", redis_socket()), 20);
}

static void test_contract_few_connections(void)
{
    run_contract(redis_url("?max_connections=2"), 50);
}

static void no_fault(void *context, const char *operation, cession_fault *ret_fault)
{
    (void)context;
    (void)operation;
    (void)ret_fault;
}

static cession_store *make_chain(void *context)
{
    cession_store *store = redis_open_apart(context), *next = NULL;
    CHECK_OK(cession_store_trace(store, &next, NULL));
    store = next;
    CHECK_OK(cession_store_fault(store, no_fault, NULL, &next, NULL));
    return next;
}

static void test_contract_chain(void)
{
    char url[1024];
    snprintf(url, sizeof url, "%s", redis_url(""));
    contract_run(&(contract_subject){.make = make_chain,
                                     .context = url,
                                     .tick_ms = 1,
                                     .changes = 20,
                                     .late_ms = LATE_MS,
                                     .repeats = true});
}

/* Servers that whoever runs the tests has started (python -m tests.services run):
 * with TLS, Valkey, behind Sentinel, a Cluster. */
static void test_contract_given(void)
{
    static const char *const names[] = {"REDIS_TLS_URL", "VALKEY_URL", "REDIS_SENTINEL_URL",
                                        "REDIS_CLUSTER_STORE"};
    for (size_t i = 0; i < sizeof names / sizeof names[0]; i++) {
        const char *url = getenv(names[i]);
        if (url != NULL) {
            run_contract(url, 20);
        }
    }
}

/* ---- replies ------------------------------------------------------------------------ */

static void write_reply(const ces_redis_reply *reply, cession_buf *out)
{
    static const char kinds[] = "_:$+-*";
    CHECK_OK(cession_buf_byte(out, (uint8_t)kinds[reply->kind]));
    if (reply->kind == CES_REDIS_INTEGER) {
        const char *number = redis_text("%lld", (long long)reply->integer);
        CHECK_OK(cession_buf_append(out, number, strlen(number)));
    }
    CHECK_OK(cession_buf_append(out, reply->text, reply->len));
    for (size_t i = 0; i < reply->count; i++) {
        CHECK_OK(cession_buf_byte(out, i == 0 ? '(' : ','));
        write_reply(reply->items[i], out);
    }
    if (reply->kind == CES_REDIS_ARRAY) {
        CHECK_OK(cession_buf_byte(out, ')'));
    }
}

/* All replies, a blank after each; "!" and the status where it ends in an error. */
static void read_replies(const uint8_t *data, size_t len, cession_buf *out)
{
    ces_redis_reader *reader = NULL;
    ces_redis_reply *reply = NULL;
    cession_error err = CESSION_ERROR_INIT;
    REQUIRE_OK(ces_redis_reader_new(&reader, NULL));
    int rc = ces_redis_reader_feed(reader, data, len, &err);
    while (rc == CESSION_OK && (rc = ces_redis_reader_take(reader, &reply, &err)) == CESSION_OK &&
           reply != NULL) {
        write_reply(reply, out);
        CHECK_OK(cession_buf_byte(out, ' '));
        ces_redis_reply_free(reply);
    }
    if (rc != CESSION_OK) {
        const char *text = redis_text("!%s", cession_status_name(rc) + 8);
        CHECK_OK(cession_buf_append(out, text, strlen(text)));
        CHECK(err.text[0] != '\0');
    } else if (!ces_redis_reader_empty(reader)) {
        CHECK_OK(cession_buf_byte(out, '~'));
    }
    ces_redis_reader_free(reader);
}

typedef struct reply_case {
    cession_span bytes;
    const char *expected; /* ~ at the end: more is to come */
} reply_case;

#define BYTES(literal)                                                 \
    {                                                                  \
        .data = (const uint8_t *)(literal), .len = sizeof(literal) - 1 \
    }
static const reply_case reply_cases[] = {
    {BYTES("$3\r\nabc\r\n:3600000\r\n"), "$abc :3600000 "},
    {BYTES("$0\r\n\r\n"), "$ "},
    {BYTES("$2\r\n\r\n\r\n"), "$\r\n "},
    {BYTES("$-1\r\n*-1\r\n"), "_ _ "},
    {BYTES("*0\r\n*2\r\n$5\r\nvalue\r\n:-1\r\n"), "*) *($value,:-1) "},
    {BYTES("-NOSCRIPT x y\r\n+OK\r\n-\r\n"), "-NOSCRIPT x y +OK - "},
    {BYTES("*2\r\n*2\r\n*1\r\n:1\r\n$-1\r\n+a\r\n"), "*(*(*(:1),_),+a) "},
    /* RESP3 */
    {BYTES("_\r\n#t\r\n#f\r\n,1.5e3\r\n(123456789012345678901234567890\r\n"),
     "_ :1 :0 +1.5e3 +123456789012345678901234567890 "},
    {BYTES("%1\r\n+a\r\n:1\r\n~2\r\n:1\r\n:2\r\n=5\r\ntxt:a\r\n"), "*(+a,:1) *(:1,:2) $txt:a "},
    /* More is to come. */
    {BYTES(""), ""},
    {BYTES("$"), "~"},
    {BYTES("$5\r\nab"), "~"},
    {BYTES("$2\r\nab\r"), "~"},
    {BYTES("*2\r\n:1\r\n"), "~"},
    {BYTES(":1\r\n*1\r\n"), ":1 ~"},
    /* No RESP. */
    {BYTES("HTTP/1.1 400 Bad Request\r\n"), "!E_IO"},
    {BYTES("\x15\x03\x01"), "!E_IO"},
    {BYTES("\0"), "!E_IO"},
    {BYTES("$a\r\n"), "!E_IO"},
    {BYTES("$\r\n"), "!E_IO"},
    {BYTES("$-2\r\n"), "!E_IO"},
    {BYTES("$+1\r\n"), "!E_IO"},
    {BYTES("$ 1\r\n"), "!E_IO"},
    {BYTES("$1\n"), "~"},
    {BYTES("$1\ra\r\n"), "!E_IO"},
    {BYTES("$1\r\nab\r\n"), "!E_IO"},
    {BYTES("$1\r\na\ra"), "!E_IO"},
    {BYTES(":1a\r\n"), "!E_IO"},
    {BYTES(":-\r\n"), "!E_IO"},
    {BYTES(":1234567890123456789\r\n"), "!E_IO"},
    {BYTES("$111111111111111111111111111111\r\n"), "!E_IO"},
    {BYTES("+a\rb\r\n"), "!E_IO"},
    {BYTES("#x\r\n"), "!E_IO"},
    {BYTES("#\r\n"), "!E_IO"},
    {BYTES("_x\r\n"), "!E_IO"},
    {BYTES("%-1\r\n"), "!E_IO"},
    /* What nobody asked for. */
    {BYTES(">1\r\n+invalidate\r\n"), "!E_IO"},
    {BYTES("|1\r\n+a\r\n+b\r\n:1\r\n"), "!E_IO"},
    /* Too large: refused by its length alone. */
    {BYTES("$999999999999\r\n"), "!E_LIMIT"},
    {BYTES("*65537\r\n"), "!E_LIMIT"},
    {BYTES("%40000\r\n"), "!E_LIMIT"},
    {BYTES("*60000\r\n*60000\r\n"), "!E_LIMIT"},
    {BYTES("*1\r\n*1\r\n*1\r\n*1\r\n*1\r\n*1\r\n*1\r\n*1\r\n*1\r\n*1\r\n*1\r\n*1\r\n:1\r\n"),
     "!E_IO"},
};

static void test_replies(void)
{
    guard g = {0};
    for (size_t i = 0; i < sizeof reply_cases / sizeof reply_cases[0]; i++) {
        const reply_case *c = &reply_cases[i];
        cession_buf out;
        cession_buf_init(&out, 4096);
        read_replies(guard_place(&g, c->bytes.data, c->bytes.len), c->bytes.len, &out);
        CHECK_SPAN(cession_buf_span(&out), cession_span_str(c->expected));
        cession_buf_release(&out);
    }
    guard_release(&g);
}

static void check_part(const uint8_t *data, size_t len, size_t full, void *context)
{
    (void)full;
    (void)context;
    cession_buf out;
    cession_buf_init(&out, 4096);
    read_replies(data, len, &out);
    cession_buf_release(&out);
}

static void test_replies_cut_anywhere(void)
{
    for (size_t i = 0; i < sizeof reply_cases / sizeof reply_cases[0]; i++) {
        guard_truncations(reply_cases[i].bytes.data, reply_cases[i].bytes.len, check_part, NULL);
    }
}

static void test_a_line_has_an_end(void)
{
    ces_redis_reader *reader = NULL;
    char piece[4096];
    memset(piece, 'x', sizeof piece);
    REQUIRE_OK(ces_redis_reader_new(&reader, NULL));
    CHECK_OK(ces_redis_reader_feed(reader, "-", 1, NULL));
    int rc = CESSION_OK;
    for (unsigned i = 0; rc == CESSION_OK && CHECK(i < 100); i++) {
        rc = ces_redis_reader_feed(reader, piece, sizeof piece, NULL);
    }
    CHECK_STATUS(rc, CESSION_E_LIMIT);
    ces_redis_reader_free(reader);
}

/* Each part is small enough, the whole is not. */
static void test_a_reply_has_an_end(void)
{
    enum { PIECE = 1024 * 1024 };
    ces_redis_reader *reader = NULL;
    char *piece = calloc(1, PIECE);
    static const char head[] = "*2\r\n$60000000\r\n";
    REQUIRE(piece != NULL);
    REQUIRE_OK(ces_redis_reader_new(&reader, NULL));
    CHECK_OK(ces_redis_reader_feed(reader, head, sizeof head - 1, NULL));
    for (size_t left = 60000000; left > 0;) {
        size_t len = left < PIECE ? left : PIECE;
        CHECK_OK(ces_redis_reader_feed(reader, piece, len, NULL));
        left -= len;
    }
    CHECK_OK(ces_redis_reader_feed(reader, "\r\n$60000000\r\n", 13, NULL));
    int rc = CESSION_OK;
    for (unsigned i = 0; rc == CESSION_OK && CHECK(i < 60); i++) {
        rc = ces_redis_reader_feed(reader, piece, PIECE, NULL);
    }
    CHECK_STATUS(rc, CESSION_E_LIMIT);
    ces_redis_reader_free(reader);
    free(piece);
}

static void test_replies_without_memory(void)
{
    const cession_span bytes = SPAN("*2\r\n*2\r\n$3\r\nabc\r\n:1\r\n%1\r\n+a\r\n_\r\n");
    FAILING_ALLOC_LOOP(n)
    {
        ces_redis_reader *reader = NULL;
        ces_redis_reply *reply = NULL;
        int rc = ces_redis_reader_new(&reader, NULL);
        if (rc == CESSION_OK) {
            rc = ces_redis_reader_feed(reader, bytes.data, bytes.len, NULL);
        }
        if (rc == CESSION_OK) {
            rc = ces_redis_reader_take(reader, &reply, NULL);
        }
        CHECK_STATUS(rc, failing_alloc_fired() ? CESSION_E_NOMEM : CESSION_OK);
        ces_redis_reply_free(reply);
        ces_redis_reader_free(reader);
    }
}

/* ---- URLs and options ------------------------------------------------------------------ */

typedef struct url_case {
    const char *url;
    int expected;
    const char *in_text;
} url_case;

static const url_case url_cases[] = {
    {"redis://", CESSION_OK, ""},
    {"REDIS://host", CESSION_OK, ""},
    {"redis://host:6380/3", CESSION_OK, ""},
    {"redis://host/", CESSION_OK, ""},
    {"redis://:secret@host", CESSION_OK, ""},
    {"redis://user:secret@host:1/0?client_name=a", CESSION_OK, ""},
    {"redis://user:sec%40ret@@[::1]:6379/0", CESSION_OK, ""},
    {"redis://[::1]", CESSION_OK, ""},
    {"rediss://host?ssl_cert_reqs=none&ssl_check_hostname=no", CESSION_OK, ""},
    {"valkeys://host?ssl_ca_certs=/x&ssl_certfile=/c&ssl_keyfile=/k&ssl_password=secret&"
     "server_name=n",
     CESSION_OK, ""},
    {"valkey://host?socket_timeout=0.5&socket_connect_timeout=2&max_connections=3&protocol=3",
     CESSION_OK, ""},
    {"unix:///a/socket?db=2", CESSION_OK, ""},
    {"redis+unix://user:secret@/a%20socket", CESSION_OK, ""},
    {"redis://host?scan_prefix=a%3A", CESSION_OK, ""},
    {"redis:", CESSION_E_INVALID, "redis://user"},
    {"redis:host", CESSION_E_INVALID, "redis://user"},
    {"redis:/host", CESSION_E_INVALID, "redis://user"},
    {"redis://host:", CESSION_E_INVALID, "redis://user"},
    {"redis://host:x", CESSION_E_INVALID, "port"},
    {"redis://host:0", CESSION_E_INVALID, "1 to 65535"},
    {"redis://host:65536", CESSION_E_INVALID, "1 to 65535"},
    {"redis://host:99999999999999999999", CESSION_E_INVALID, "1 to 65535"},
    {"redis://[::1", CESSION_E_INVALID, "redis://user"},
    {"redis://[::1]x", CESSION_E_INVALID, "redis://user"},
    {"redis://host/x", CESSION_E_INVALID, "db"},
    {"redis://host/1/2", CESSION_E_INVALID, "db"},
    {"redis://host/-1", CESSION_E_INVALID, "db"},
    {"redis://secret@host", CESSION_E_INVALID, "needs a password"},
    {"redis://:secret@host?password=secret", CESSION_E_INVALID, "twice"},
    {"redis://host/1?db=2", CESSION_E_INVALID, "twice"},
    {"redis://host?path=/x", CESSION_E_INVALID, "not both"},
    {"redis://host?secret=1", CESSION_E_INVALID, "unknown option"},
    {"redis://host?protocol=4", CESSION_E_INVALID, "protocol"},
    {"redis://host?protocol=", CESSION_E_INVALID, "protocol"},
    {"redis://host?max_connections=0", CESSION_E_INVALID, "1 to 1024"},
    {"redis://host?max_connections=1025", CESSION_E_INVALID, "1 to 1024"},
    {"redis://host?socket_timeout=0", CESSION_E_INVALID, "seconds"},
    {"redis://host?socket_timeout=-1", CESSION_E_INVALID, "seconds"},
    {"redis://host?socket_timeout=.", CESSION_E_INVALID, "seconds"},
    {"redis://host?socket_timeout=1.2.3", CESSION_E_INVALID, "seconds"},
    {"redis://host?socket_timeout=999999999", CESSION_E_INVALID, "seconds"},
    {"redis://host?client_name=a%20b", CESSION_E_INVALID, "client_name"},
    {"redis://host?ssl_ca_certs=/x", CESSION_E_INVALID, "rediss:"},
    {"rediss://host?ssl_cert_reqs=optional", CESSION_E_INVALID, "required or none"},
    {"rediss://host?ssl_check_hostname=maybe", CESSION_E_INVALID, "true or false"},
    {"rediss://host?ssl_keyfile=/k", CESSION_E_INVALID, "ssl_certfile"},
    {"redis://host%00", CESSION_E_INVALID, "NUL"},
    {"redis://ho%st", CESSION_E_INVALID, "hexadecimal"},
    {"redis://host#secret", CESSION_E_INVALID, "%23"},
    {"unix://", CESSION_E_INVALID, "unix:///path"},
    {"unix:///", CESSION_E_INVALID, "unix:///path"},
    {"unix://host/path", CESSION_E_INVALID, "unix:///path"},
};

static void check_url(const char *url, int expected, const char *in_text)
{
    cession_store *store = NULL;
    cession_error err = CESSION_ERROR_INIT;
    int rc = cession_store_open_url(url, &store, &err);
    CHECK_MSG(rc == expected, "%s: %s %s", url, cession_status_name(rc), err.text);
    CHECK_MSG(strstr(err.text, in_text) != NULL, "%s: %s", url, err.text);
    CHECK(strstr(err.text, "secret") == NULL);
    cession_store_close(store);
}

static void test_urls(void)
{
    guard g = {0};
    for (size_t i = 0; i < sizeof url_cases / sizeof url_cases[0]; i++) {
        const url_case *c = &url_cases[i];
        check_url((const char *)guard_place(&g, c->url, strlen(c->url) + 1), c->expected,
                  c->in_text);
        /* Cut anywhere: whatever comes of it, the end is not passed. */
        for (size_t len = 6; len < strlen(c->url); len++) {
            char *cut = strndup(c->url, len);
            cession_store *store = NULL;
            REQUIRE(cut != NULL);
            (void)cession_store_open_url((const char *)guard_place(&g, cut, len + 1), &store, NULL);
            cession_store_close(store);
            free(cut);
        }
    }
    guard_release(&g);
}

static void check_options(const char *name, const char *value, int expected, const char *in_text)
{
    const cession_option option = {.name = name, .value = value};
    cession_store *store = NULL;
    cession_error err = CESSION_ERROR_INIT;
    CHECK_STATUS(cession_store_open("redis", &option, 1, &store, &err), expected);
    CHECK_MSG(strstr(err.text, in_text) != NULL, "%s", err.text);
    cession_store_close(store);
}

static void test_options(void)
{
    static char text[5000];
    memset(text, 'x', sizeof text - 1);
    check_options("host", "name", CESSION_OK, "");
    check_options("host", "", CESSION_E_INVALID, "empty");
    check_options("path", "relative", CESSION_E_INVALID, "absolute");
    check_options("client_name", text, CESSION_E_LIMIT, "too long");
}

static void test_urls_without_memory(void)
{
    FAILING_ALLOC_LOOP(n)
    {
        cession_store *store = NULL;
        int rc = cession_store_open_url(
            "rediss://user:password@host:1/2?client_name=c&ssl_ca_certs="
            "/a&ssl_certfile=/b&ssl_keyfile=/c&ssl_password=d&"
            "server_name=e&scan_prefix=f&ssl_ca_path=/g",
            &store, NULL);
        CHECK_STATUS(rc, failing_alloc_fired() ? CESSION_E_NOMEM : CESSION_OK);
        cession_store_close(store);
    }
}

/* ---- operations ------------------------------------------------------------------------- */

static cession_deadline soon(void)
{
    return cession_deadline_in(20000);
}

typedef enum operation {
    LOAD,
    CREATE,
    REPLACE,
    CONFLICT,
    TOUCH,
    REMOVE,
    SCAN,
    OPERATIONS
} operation;

static int ignore(void *context, cession_span key, cession_span value, int64_t expires_at_ms)
{
    (void)context, (void)key, (void)value, (void)expires_at_ms;
    return CESSION_OK;
}

static int operate(cession_store *store, operation op)
{
    cession_expected expected = {.value = op == CONFLICT ? SPAN("other") : SPAN("old")};
    cession_stored stored;
    cession_buf cursor;
    int rc = CESSION_E_INTERNAL;
    cession_stored_init(&stored);
    cession_buf_init(&cursor, 1024);
    switch (op) {
    case LOAD:
        rc = cession_store_load(store, SPAN("k"), soon(), &stored, NULL);
        break;
    case CREATE:
        rc = cession_store_create(store, SPAN("new"), SPAN("v"), HOUR, soon(), NULL);
        break;
    case REPLACE:
    case CONFLICT:
        rc = cession_store_replace(store, SPAN("k"), &expected, SPAN("old"), HOUR, soon(), &stored,
                                   NULL);
        break;
    case TOUCH:
        rc = cession_store_touch(store, SPAN("k"), &expected, HOUR, soon(), NULL);
        break;
    case REMOVE:
        rc = cession_store_remove(store, SPAN("nothing"), soon(), NULL);
        break;
    case SCAN:
        rc = cession_store_scan(store, &cursor, 10, soon(), ignore, NULL, NULL);
        break;
    case OPERATIONS:
        break;
    }
    cession_stored_release(&stored);
    cession_buf_release(&cursor);
    return rc == CESSION_CONFLICT && op == CONFLICT ? CESSION_OK : rc;
}

/* Whatever is missing in the middle of a request: nothing is left behind, and
 * what comes next on the store is right. */
static void test_operations_without_memory(void)
{
    char url[1024];
    snprintf(url, sizeof url, "%s", redis_url("4?client_name=n&scan_prefix=k"));
    for (int op = 0; op < OPERATIONS; op++) {
        redis_ask("FLUSHALL");
        cession_store *other = redis_open_url(redis_url("4"));
        CHECK_OK(cession_store_create(other, SPAN("k"), SPAN("old"), HOUR, soon(), NULL));
        FAILING_ALLOC_LOOP(n)
        {
            cession_store *store = NULL;
            int rc = cession_store_open_url(url, &store, NULL);
            if (rc == CESSION_OK) {
                rc = operate(store, (operation)op);
                CHECK_STATUS(rc, failing_alloc_fired() ? CESSION_E_NOMEM : CESSION_OK);
                if (rc != CESSION_OK) {
                    CHECK_OK(operate(store, LOAD));
                }
            }
            cession_store_close(store);
            redis_ask("SELECT 4\r\nDEL new");
        }
        cession_store_close(other);
    }
}

static int check_error(const char *url, int expected, const char *in_text)
{
    cession_error err = CESSION_ERROR_INIT;
    cession_stored stored;
    cession_stored_init(&stored);
    cession_store *store = redis_open_url(url);
    int rc = cession_store_load(store, SPAN("secret-key"), soon(), &stored, &err);
    CHECK_STATUS(rc, expected);
    CHECK_MSG(strstr(err.text, in_text) != NULL, "%s", err.text);
    CHECK_MSG(strstr(err.text, "secret") == NULL, "%s", err.text);
    cession_stored_release(&stored);
    cession_store_close(store);
    return rc;
}

static void test_errors_say_what_is_wrong(void)
{
    unsigned port = redis_port();
    check_error(redis_text("redis://app:secret@127.0.0.1:%u", port), CESSION_E_PERMISSION,
                "password");
    check_error(redis_text("redis://app:secret@127.0.0.1:%u?protocol=3", port),
                CESSION_E_PERMISSION, "password");
    check_error(redis_text("redis://nobody:secret@127.0.0.1:%u", port), CESSION_E_PERMISSION,
                "password");
    check_error(redis_text("redis://other:sessions@127.0.0.1:%u", port), CESSION_E_PERMISSION,
                "NOPERM");
    check_error(redis_text("redis://app:sessions@127.0.0.1:%u", port), CESSION_E_PERMISSION,
                "NOPERM");
    check_error(redis_url("999"), CESSION_E_IO, "ERR");
    check_error("redis://127.0.0.1:1", CESSION_E_UNAVAILABLE, "refused");
    check_error("redis://[::1]:1", CESSION_E_UNAVAILABLE, "port 1");
    check_error("redis://name.invalid", CESSION_E_UNAVAILABLE, "no address");
    check_error(redis_text("unix:///%0200d", 0), CESSION_E_LIMIT, "at most");
    check_error(redis_text("unix://%s.none", redis_socket()), CESSION_E_UNAVAILABLE, "unix socket");
    check_error("rediss://127.0.0.1:1?ssl_ca_certs=/none", CESSION_E_UNAVAILABLE, "refused");
    check_error(redis_text("rediss://127.0.0.1:%u?ssl_ca_certs=/none", port), CESSION_E_UNAVAILABLE,
                "ssl_ca_certs");
    check_error(redis_text("rediss://127.0.0.1:%u?ssl_certfile=/none", port), CESSION_E_UNAVAILABLE,
                "ssl_certfile");
}

/* What somebody else has put under the key of a session. */
static void test_foreign_records(void)
{
    cession_store *store = redis_open_url(redis_url(""));
    cession_expected none = {.value = SPAN("")};
    cession_stored stored;
    cession_stored_init(&stored);
    redis_ask("DEL tlist tplain");
    redis_ask("RPUSH tlist x");
    CHECK_OK(cession_store_load(store, SPAN("tlist"), soon(), &stored, NULL));
    CHECK_INT(stored.value.len, 0);
    CHECK_INT(stored.expires_at_ms, CESSION_EXPIRES_NEVER);
    CHECK_STATUS(
        cession_store_replace(store, SPAN("tlist"), &none, SPAN("x"), HOUR, soon(), &stored, NULL),
        CESSION_GONE);
    CHECK_STATUS(cession_store_touch(store, SPAN("tlist"), &none, HOUR, soon(), NULL),
                 CESSION_GONE);
    CHECK_STATUS(cession_store_create(store, SPAN("tlist"), SPAN("x"), HOUR, soon(), NULL),
                 CESSION_EXISTS);
    CHECK_STR(redis_ask("TYPE tlist"), "+list\r\n");
    CHECK_STR(redis_ask("PTTL tlist"), ":-1\r\n");

    redis_ask("SET tplain one");
    CHECK_OK(cession_store_load(store, SPAN("tplain"), soon(), &stored, NULL));
    CHECK_SPAN(cession_buf_span(&stored.value), SPAN("one"));
    CHECK_INT(stored.expires_at_ms, CESSION_EXPIRES_NEVER);
    cession_expected one = {.value = SPAN("one")};
    CHECK_OK(cession_store_touch(store, SPAN("tplain"), &one, HOUR, soon(), NULL));
    CHECK_OK(cession_store_load(store, SPAN("tplain"), soon(), &stored, NULL));
    CHECK(stored.expires_at_ms > 0);
    cession_stored_release(&stored);
    cession_store_close(store);
}

/* ---- processes ------------------------------------------------------------------------------ */

static int work_apart(void *context)
{
    cession_store *store = context;
    char key[32];
    int bad = 0;
    for (int i = 0; i < 50; i++) {
        int len = snprintf(key, sizeof key, "tfork %d %d", (int)getpid(), i);
        cession_span k = cession_span_of(key, (size_t)len);
        cession_stored stored;
        cession_stored_init(&stored);
        bad += cession_store_create(store, k, k, HOUR, soon(), NULL) != CESSION_OK;
        bad += cession_store_load(store, k, soon(), &stored, NULL) != CESSION_OK;
        bad += !cession_span_eq(cession_buf_span(&stored.value), k);
        bad += cession_store_remove(store, k, soon(), NULL) != CESSION_OK;
        cession_stored_release(&stored);
    }
    return bad != 0;
}

/* Parent and children work at once after a fork; on a shared connection one would
 * read the other's answers. */
static void test_fork_after_use(void)
{
    cession_store *store = redis_open_url(redis_url(""));
    CHECK_INT(work_apart(store), 0);
    pid_t children[4];
    for (int i = 0; i < 4; i++) {
        children[i] = child_start(work_apart, store);
    }
    CHECK_INT(work_apart(store), 0);
    for (int i = 0; i < 4; i++) {
        CHECK_INT(child_wait(children[i]), 0);
    }
    CHECK_INT(work_apart(store), 0);
    cession_store_close(store);
}

static int close_store(void *context)
{
    cession_store_close(context);
    return 0;
}

static void test_a_child_closes_what_it_inherited(void)
{
    cession_store *store = redis_open_url(redis_url("?max_connections=1"));
    CHECK_INT(work_apart(store), 0);
    CHECK_INT(child_run(close_store, store), 0);
    CHECK_INT(work_apart(store), 0);
    cession_store_close(store);
}

/* Between two requests the server is another one: connections are dead, scripts
 * are unknown. No request fails, reading or writing. */
static void test_restart_between_requests(void)
{
    cession_store *store = redis_open_url(redis_url(""));
    for (int op = 0; op < OPERATIONS; op++) {
        CHECK_INT(work_apart(store), 0);
        redis_restart();
        cession_store *other = redis_open_url(redis_url(""));
        CHECK_OK(cession_store_create(other, SPAN("k"), SPAN("old"), HOUR, soon(), NULL));
        cession_store_close(other);
        CHECK_OK(operate(store, (operation)op));
    }
    cession_store_close(store);
}

/* ---- listing -----------------------------------------------------------------------------------
 */

static void test_scan_cursors(void)
{
    cession_store *store = redis_open_url(redis_url("5"));
    const cession_span wrong[] = {
        SPAN("x"),         SPAN("0"),        SPAN("0 "),
        SPAN("0 0"),       SPAN("0 x "),     SPAN(" 0 "),
        SPAN("0 0 short"), SPAN("00000 0 "), SPAN("0 111111111111111111111 ")};
    for (size_t i = 0; i < sizeof wrong / sizeof wrong[0]; i++) {
        cession_buf cursor;
        cession_buf_init(&cursor, 1024);
        CHECK_OK(cession_buf_set(&cursor, wrong[i].data, wrong[i].len));
        CHECK_STATUS(cession_store_scan(store, &cursor, 10, soon(), ignore, NULL, NULL),
                     CESSION_E_INVALID);
        CHECK_SPAN(cession_buf_span(&cursor), wrong[i]);
        cession_buf_release(&cursor);
    }
    cession_store_close(store);
}

static int add_one(void *context, cession_span key, cession_span value, int64_t expires_at_ms)
{
    (void)key, (void)value, (void)expires_at_ms;
    ++*(int *)context;
    return CESSION_OK;
}

/* A prefix is no pattern. */
static void test_scan_prefix_is_taken_as_it_is(void)
{
    cession_buf cursor;
    int count = 0;
    redis_ask("FLUSHALL");
    redis_ask("SET t*?[g]\\^-good x");
    redis_ask("SET tabg-good x");
    cession_store *store = redis_open_url(redis_url("?scan_prefix=t*?[g]%5C%5E-"));
    cession_buf_init(&cursor, 1024);
    CHECK_OK(cession_store_scan(store, &cursor, 100, soon(), add_one, &count, NULL));
    CHECK_INT(count, 1);
    cession_store_close(store);
    cession_buf_release(&cursor);
}

static int count_keys(void *context, cession_span key, cession_span value, int64_t expires_at_ms)
{
    (void)value, (void)expires_at_ms;
    CHECK_SPAN(key, SPAN("tgood"));
    ++*(int *)context;
    return CESSION_OK;
}

/* What is under the keys that are found and is no record; an error is one. */
static void test_scan_passes_over_what_is_no_record(void)
{
    cession_buf cursor;
    int count = 0;
    redis_ask("FLUSHALL");
    redis_ask("SET tgood x");
    redis_ask("RPUSH tlist x");
    redis_ask("SET t\xff x");
    redis_ask("SET \"\" x");
    cession_store *store = redis_open_url(redis_url(""));
    cession_buf_init(&cursor, 1024);
    CHECK_OK(cession_store_scan(store, &cursor, 100, soon(), count_keys, &count, NULL));
    CHECK_INT(count, 1);
    CHECK_INT(cursor.len, 0);
    cession_store_close(store);

    cession_error err = CESSION_ERROR_INIT;
    CHECK_STR(redis_ask("ACL SETUSER lister on >sessions ~* -@all +@connection +scan"), "+OK\r\n");
    store = redis_open_url(redis_text("redis://lister:sessions@127.0.0.1:%u", redis_port()));
    CHECK_STATUS(cession_store_scan(store, &cursor, 100, soon(), count_keys, &count, &err),
                 CESSION_E_PERMISSION);
    CHECK_INT(count, 1);
    cession_store_close(store);
    cession_buf_release(&cursor);
}

/* ---- threads
 * ------------------------------------------------------------------------------------- */

static void *work_thread(void *context)
{
    CHECK_INT(work_apart(context), 0);
    return NULL;
}

static void *load_thread(void *context)
{
    cession_stored stored;
    cession_stored_init(&stored);
    for (int i = 0; i < 200; i++) {
        CHECK_OK(cession_store_load(context, SPAN("tshared"), soon(), &stored, NULL));
        CHECK_SPAN(cession_buf_span(&stored.value), SPAN("shared"));
    }
    cession_stored_release(&stored);
    return NULL;
}

static void test_eight_threads_one_connection(void)
{
    cession_store *store = redis_open_url(redis_url("?max_connections=1"));
    pthread_t threads[8];
    redis_ask("DEL tshared");
    CHECK_OK(cession_store_create(store, SPAN("tshared"), SPAN("shared"), HOUR, soon(), NULL));
    for (int i = 0; i < 8; i++) {
        REQUIRE(pthread_create(&threads[i], NULL, i == 0 ? work_thread : load_thread, store) == 0);
    }
    for (int i = 0; i < 8; i++) {
        pthread_join(threads[i], NULL);
    }
    cession_store_close(store);
}

static const harness_test tests[] = {
    HARNESS_TEST(contract),
    HARNESS_TEST(contract_resp3),
    HARNESS_TEST(contract_unix),
    HARNESS_TEST(contract_acl),
    HARNESS_TEST(contract_acl_resp3),
    HARNESS_TEST(contract_few_connections),
    HARNESS_TEST(contract_chain),
    HARNESS_TEST(contract_given),
    HARNESS_TEST(replies),
    HARNESS_TEST(replies_cut_anywhere),
    HARNESS_TEST(a_line_has_an_end),
    HARNESS_TEST(a_reply_has_an_end),
    HARNESS_TEST(replies_without_memory),
    HARNESS_TEST(urls),
    HARNESS_TEST(options),
    HARNESS_TEST(urls_without_memory),
    HARNESS_TEST(operations_without_memory),
    HARNESS_TEST(errors_say_what_is_wrong),
    HARNESS_TEST(foreign_records),
    HARNESS_TEST(fork_after_use),
    HARNESS_TEST(a_child_closes_what_it_inherited),
    HARNESS_TEST(restart_between_requests),
    HARNESS_TEST(scan_cursors),
    HARNESS_TEST(scan_prefix_is_taken_as_it_is),
    HARNESS_TEST(scan_passes_over_what_is_no_record),
    HARNESS_TEST(eight_threads_one_connection),
};
HARNESS_MAIN(tests)
