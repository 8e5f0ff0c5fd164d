/* The redis driver: Redis and Valkey over their own protocol.
 *
 * A record is a string under its key with an expiry in milliseconds, and what
 * compares and sets are Lua scripts: the very same as those of the Python
 * adapter (python/flask_session/redis.py), so that both work on one store.
 * Every operation is one round trip once the server knows the scripts. How
 * connections are made and where they lead is the business of redis_wire.h and
 * redis_nodes.h.
 *
 * A connection that was idle may have been given up by the server in the very
 * moment it is used. The operation is then repeated, once, on another one, if
 * that can do no harm:
 * - load reads;
 * - remove deletes what is to be deleted whatever it holds;
 * - touch acts only on the expected value, and twice is as good as once;
 * - replace acts only on the expected value. Finding the new value there at the
 *   second attempt means that the first one did it, which is success. Finding
 *   another value leaves open whether the first attempt did it and somebody
 *   built on that: it is an error then and not a conflict, since a merge would
 *   set this request's changes a second time, over the other's;
 * - create is repeated only where its command cannot have reached the server as
 *   a whole: a key that is taken at the second attempt could be this one's own.
 * A command that did not leave this process as a whole was not executed, so then
 * everything may be repeated. A timeout is never repeated: its time is over.
 *
 * Caveats:
 * - GET and PTTL go together but are two commands: the expiry may be that of a
 *   later touch or write. It only decides whether a touch is due.
 * - A key of another data type is loaded as an empty value and never written to.
 * - The name of a host is resolved by the system, which keeps its own time.
 */
#include "drivers/redis.h"

#include <stdio.h>

#include <openssl/evp.h>

#include "base/alloc.h"
#include "base/os.h"
#include "drivers/drivers.h"
#include "base/banned.h"

#define HOPS_MAX 8u /* that a key may be moved while it is asked for */

/* Each script reads first. A key that holds another data type than a string is no
 * session and is never written to. */
#define SCRIPT_READ                                                         \
    "\n"                                                                    \
    "local v = redis.pcall('GET', KEYS[1])\n"                               \
    "local foreign = type(v) == 'table'\n"                                  \
    "if foreign then\n"                                                     \
    "  if not string.find(v.err, 'WRONGTYPE', 1, true) then return v end\n" \
    "  v = false\n"                                                         \
    "end\n"
static const char script_replace[] = SCRIPT_READ
    "\n"
    "if not v then return 0 end\n"
    "if v ~= ARGV[1] then return {v, redis.call('PTTL', KEYS[1])} end\n"
    "redis.call('SET', KEYS[1], ARGV[2], 'PX', ARGV[3])\n"
    "return 1\n";
static const char script_touch[] = SCRIPT_READ "\n"
                                               "if not v then return 0 end\n"
                                               "if v ~= ARGV[1] then return 2 end\n"
                                               "redis.call('PEXPIRE', KEYS[1], ARGV[2])\n"
                                               "return 1\n";

static ces_redis_store *self_of(cession_store *store)
{
    return (ces_redis_store *)store;
}

/* ---- one request ------------------------------------------------------------------ */

static void free_replies(ces_redis_reply **replies, size_t count)
{
    for (size_t i = 0; i < count; i++) {
        ces_redis_reply_free(replies[i]);
        replies[i] = NULL;
    }
}

int ces_redis_converse(ces_redis_lease *lease, const ces_redis_command *commands, size_t count,
                       cession_deadline deadline, ces_redis_reply **ret_replies, cession_error *err)
{
    static const cession_span asking = {.data = (const uint8_t *)"ASKING", .len = 6};
    ces_redis_reply *replies[CES_REDIS_COMMANDS_MAX] = {NULL};
    int rc = CESSION_OK;
    for (size_t i = 0; i < count && rc == CESSION_OK; i++) {
        if (lease->asking) {
            rc = ces_redis_add(lease->conn, &asking, 1, err);
        }
        if (rc == CESSION_OK) {
            rc = ces_redis_add(lease->conn, commands[i].words, commands[i].count, err);
        }
    }
    if (rc == CESSION_OK) {
        rc = ces_redis_send(lease->conn, deadline, err);
    }
    for (size_t i = 0; i < count && rc == CESSION_OK; i++) {
        if (lease->asking) {
            ces_redis_reply *ignored = NULL;
            rc = ces_redis_receive(lease->conn, deadline, &ignored, err);
            ces_redis_reply_free(ignored);
        }
        if (rc == CESSION_OK) {
            rc = ces_redis_receive(lease->conn, deadline, &replies[i], err);
        }
    }
    if (rc != CESSION_OK) {
        free_replies(replies, count);
        return rc;
    }
    memcpy(ret_replies, replies, count * sizeof(ces_redis_reply *));
    return CESSION_OK;
}

/* The operation's own end, on the clock that the caller's deadline is on. */
static int start(const ces_redis_store *self, cession_deadline *io_deadline, cession_error *err)
{
    cession_deadline deadline = *io_deadline;
    if (deadline <= 0) {
        return cession_fail(err, CESSION_E_BUSY, "a Redis server has to be waited for");
    }
    int64_t now = ces_mono_ns();
    if (now >= deadline) {
        return cession_fail(err, CESSION_E_TIMEOUT, NULL);
    }
    int64_t limit_ms = self->settings->manner.timeout_ms;
    if (limit_ms > 0 && deadline - now > limit_ms * INT64_C(1000000)) {
        *io_deadline = now + limit_ms * INT64_C(1000000);
    }
    return CESSION_OK;
}

typedef struct repeats {
    bool harmless;  /* in: may be repeated after it may have been executed */
    bool uncertain; /* out: it was, so a first attempt may have been executed */
} repeats;

/* A key may be moved between two commands about it. */
static const ces_redis_reply *first_error(ces_redis_reply *const *replies, size_t count)
{
    for (size_t i = 0; i < count; i++) {
        if (replies[i]->kind == CES_REDIS_ERROR) {
            return replies[i];
        }
    }
    return NULL;
}

/* Commands about one key, wherever that is, and their answers. */
static int request(ces_redis_store *self, cession_span key, const ces_redis_command *commands,
                   size_t count, repeats *repeat, cession_deadline deadline,
                   ces_redis_reply **ret_replies, cession_error *err)
{
    ces_redis_nodes *nodes = self->nodes;
    ces_redis_lease lease = {NULL};
    bool repeated = false;
    int rc = nodes->ops->take(nodes, key, deadline, &lease, err);
    for (unsigned hops = 0; rc == CESSION_OK; hops++) {
        rc = ces_redis_converse(&lease, commands, count, deadline, ret_replies, err);
        const ces_redis_reply *answer = rc == CESSION_OK ? first_error(ret_replies, count) : NULL;
        bool moved = answer != NULL && hops < HOPS_MAX;
        bool lost = rc == CESSION_E_UNAVAILABLE && !lease.fresh && !repeated;
        if (lost && ces_redis_was_sent(lease.conn)) {
            lost = repeat->harmless;
            repeat->uncertain = repeat->uncertain || lost;
        }
        if (!moved && !lost) {
            break;
        }
        repeated = repeated || lost;
        int learned = nodes->ops->learn(nodes, key, answer, deadline, &lease, err);
        if (learned == CESSION_NOT_FOUND) {
            break;
        }
        if (rc == CESSION_OK) {
            free_replies(ret_replies, count);
        }
        if (learned == CESSION_OK) {
            cession_error_clear(err);
        }
        rc = learned;
    }
    ces_redis_lease_give(&lease);
    return rc;
}

#define TEXT(literal) cession_span_of(literal, sizeof(literal) - 1)

typedef struct number_text {
    char digits[24];
} number_text;

static cession_span number(number_text *room, int64_t n)
{
    int len = snprintf(room->digits, sizeof room->digits, "%lld", (long long)n);
    return cession_span_of(room->digits, (size_t)len);
}

/* A script about one key with arguments: by its hash, or whole where the server
 * does not know it, which teaches it. */
static int run_script(ces_redis_store *self, const char *text, const char *sha, cession_span key,
                      const cession_span *args, size_t count, repeats *repeat,
                      cession_deadline deadline, ces_redis_reply **ret_reply, cession_error *err)
{
    ces_redis_command command = {.words = {TEXT("EVALSHA"), cession_span_str(sha), TEXT("1"), key},
                                 .count = 4 + count};
    for (size_t i = 0; i < count; i++) {
        command.words[4 + i] = args[i];
    }
    int rc = request(self, key, &command, 1, repeat, deadline, ret_reply, err);
    if (rc == CESSION_OK && ces_redis_is_error(*ret_reply, "NOSCRIPT")) {
        free_replies(ret_reply, 1);
        command.words[0] = TEXT("EVAL");
        command.words[1] = cession_span_str(text);
        rc = request(self, key, &command, 1, repeat, deadline, ret_reply, err);
    }
    return rc;
}

/* ---- records ------------------------------------------------------------------------- */

static int give(const ces_redis_reply *value, int64_t left_ms, cession_stored *ret_stored,
                cession_error *err)
{
    int rc = cession_buf_set(&ret_stored->value, value->text, value->len);
    if (rc != CESSION_OK) {
        return cession_fail(err, rc, NULL);
    }
    ret_stored->version_len = 0;
    ret_stored->expires_at_ms = left_ms < 0 ? CESSION_EXPIRES_NEVER : ces_now_ms() + left_ms;
    return CESSION_OK;
}

int ces_redis_record(const ces_redis_reply *value, const ces_redis_reply *left,
                     cession_stored *ret_stored, cession_error *err)
{
    if (ces_redis_is_error(value, "WRONGTYPE")) {
        cession_buf_clear(&ret_stored->value);
        ret_stored->version_len = 0;
        ret_stored->expires_at_ms = CESSION_EXPIRES_NEVER;
        return CESSION_OK;
    }
    if (value->kind == CES_REDIS_NIL) {
        return CESSION_NOT_FOUND;
    }
    if (value->kind != CES_REDIS_STRING) {
        return ces_redis_fail(value, err);
    }
    if (left->kind != CES_REDIS_INTEGER) {
        return ces_redis_fail(left, err);
    }
    /* -2: it expired between the two commands; 0: it does so now. */
    return left->integer == -2 || left->integer == 0 ? CESSION_NOT_FOUND
                                                     : give(value, left->integer, ret_stored, err);
}

/* ---- operations ------------------------------------------------------------------------ */

static int redis_load(cession_store *store, cession_span key, cession_deadline deadline,
                      cession_stored *ret_stored, cession_error *err)
{
    ces_redis_store *self = self_of(store);
    const ces_redis_command commands[] = {{.words = {TEXT("GET"), key}, .count = 2},
                                          {.words = {TEXT("PTTL"), key}, .count = 2}};
    ces_redis_reply *replies[2] = {NULL};
    repeats repeat = {.harmless = true};
    int rc = start(self, &deadline, err);
    if (rc == CESSION_OK) {
        rc = request(self, key, commands, 2, &repeat, deadline, replies, err);
    }
    if (rc == CESSION_OK) {
        rc = ces_redis_record(replies[0], replies[1], ret_stored, err);
    }
    free_replies(replies, 2);
    return rc;
}

static int redis_create(cession_store *store, cession_span key, cession_span value, int64_t ttl_ms,
                        cession_deadline deadline, cession_error *err)
{
    ces_redis_store *self = self_of(store);
    number_text ttl;
    const ces_redis_command command = {
        .words = {TEXT("SET"), key, value, TEXT("NX"), TEXT("PX"), number(&ttl, ttl_ms)},
        .count = 6};
    ces_redis_reply *reply = NULL;
    repeats repeat = {.harmless = false};
    int rc = start(self, &deadline, err);
    if (rc == CESSION_OK) {
        rc = request(self, key, &command, 1, &repeat, deadline, &reply, err);
    }
    if (rc == CESSION_OK && reply->kind != CES_REDIS_STATUS) {
        rc = reply->kind == CES_REDIS_NIL ? CESSION_EXISTS : ces_redis_fail(reply, err);
    }
    ces_redis_reply_free(reply);
    return rc;
}

static bool is_pair(const ces_redis_reply *reply)
{
    return reply->kind == CES_REDIS_ARRAY && reply->count == 2 &&
           reply->items[0]->kind == CES_REDIS_STRING && reply->items[1]->kind == CES_REDIS_INTEGER;
}

static int judge_replace(const ces_redis_reply *reply, cession_span value, bool uncertain,
                         cession_stored *ret_current, cession_error *err)
{
    if (reply->kind == CES_REDIS_INTEGER && (reply->integer == 0 || reply->integer == 1)) {
        return reply->integer == 1 ? CESSION_OK : CESSION_GONE;
    }
    if (!is_pair(reply)) {
        return ces_redis_fail(reply, err);
    }
    const ces_redis_reply *current = reply->items[0];
    if (uncertain) {
        return cession_span_eq(cession_span_of(current->text, current->len), value)
                   ? CESSION_OK
                   : cession_fail(err, CESSION_E_UNAVAILABLE,
                                  "the connection to the Redis server was lost during a write, and "
                                  "the record has changed since: whether it was written is not "
                                  "known");
    }
    int rc = give(current, reply->items[1]->integer, ret_current, err);
    return rc == CESSION_OK ? CESSION_CONFLICT : rc;
}

static int redis_replace(cession_store *store, cession_span key, const cession_expected *expected,
                         cession_span value, int64_t ttl_ms, cession_deadline deadline,
                         cession_stored *ret_current, cession_error *err)
{
    ces_redis_store *self = self_of(store);
    number_text ttl;
    const cession_span args[] = {expected->value, value, number(&ttl, ttl_ms)};
    ces_redis_reply *reply = NULL;
    repeats repeat = {.harmless = true};
    int rc = start(self, &deadline, err);
    if (rc == CESSION_OK) {
        rc = run_script(self, script_replace, self->replace_sha, key, args, 3, &repeat, deadline,
                        &reply, err);
    }
    if (rc == CESSION_OK) {
        rc = judge_replace(reply, value, repeat.uncertain, ret_current, err);
    }
    ces_redis_reply_free(reply);
    return rc;
}

static int redis_touch(cession_store *store, cession_span key, const cession_expected *expected,
                       int64_t ttl_ms, cession_deadline deadline, cession_error *err)
{
    static const int answers[] = {CESSION_GONE, CESSION_OK, CESSION_CHANGED};
    ces_redis_store *self = self_of(store);
    number_text ttl;
    const cession_span args[] = {expected->value, number(&ttl, ttl_ms)};
    ces_redis_reply *reply = NULL;
    repeats repeat = {.harmless = true};
    int rc = start(self, &deadline, err);
    if (rc == CESSION_OK) {
        rc = run_script(self, script_touch, self->touch_sha, key, args, 2, &repeat, deadline,
                        &reply, err);
    }
    if (rc == CESSION_OK) {
        bool known = reply->kind == CES_REDIS_INTEGER && reply->integer >= 0 && reply->integer <= 2;
        rc = known ? answers[reply->integer] : ces_redis_fail(reply, err);
    }
    ces_redis_reply_free(reply);
    return rc;
}

static int redis_remove(cession_store *store, cession_span key, cession_deadline deadline,
                        cession_error *err)
{
    ces_redis_store *self = self_of(store);
    const ces_redis_command command = {.words = {TEXT("DEL"), key}, .count = 2};
    ces_redis_reply *reply = NULL;
    repeats repeat = {.harmless = true};
    int rc = start(self, &deadline, err);
    if (rc == CESSION_OK) {
        rc = request(self, key, &command, 1, &repeat, deadline, &reply, err);
    }
    if (rc == CESSION_OK && reply->kind != CES_REDIS_INTEGER) {
        rc = ces_redis_fail(reply, err);
    }
    ces_redis_reply_free(reply);
    return rc;
}

static int redis_scan(cession_store *store, cession_buf *cursor, size_t batch,
                      cession_deadline deadline, cession_scan_fn *visit, void *context,
                      cession_error *err)
{
    int rc = start(self_of(store), &deadline, err);
    return rc == CESSION_OK ? ces_redis_scan(store, cursor, batch, deadline, visit, context, err)
                            : rc;
}

/* ---- life --------------------------------------------------------------------------------- */

static void redis_close(cession_store *store)
{
    ces_redis_store *self = self_of(store);
    if (self->nodes != NULL) {
        self->nodes->ops->close(self->nodes);
    }
    ces_redis_dialer_free(self->dialer);
    ces_redis_settings_free(self->settings);
    ces_free(self);
}

/* Redis names a script by its SHA-1. */
static int hash_script(const char *text, char ret_sha[41], cession_error *err)
{
    unsigned char hash[EVP_MAX_MD_SIZE];
    unsigned len = 0;
    if (EVP_Digest(text, strlen(text), hash, &len, EVP_sha1(), NULL) != 1 || len != 20) {
        return cession_fail(err, CESSION_E_CRYPTO, "SHA-1, by which Redis names scripts, failed");
    }
    for (unsigned i = 0; i < len; i++) {
        snprintf(ret_sha + 2 * (size_t)i, 3, "%02x", hash[i]);
    }
    return CESSION_OK;
}

typedef int topology_new(const ces_redis_settings *settings, ces_redis_dialer *dialer,
                         ces_redis_nodes **ret_nodes, cession_error *err);
static topology_new *const topologies[] = {[CES_REDIS_SINGLE] = ces_redis_single_new,
                                           [CES_REDIS_SENTINEL] = ces_redis_sentinel_new,
                                           [CES_REDIS_CLUSTER] = ces_redis_cluster_new};

static int redis_open(const cession_option *options, size_t count, cession_store **ret_store,
                      cession_error *err)
{
    ces_redis_store *self = ces_alloc_zero(sizeof *self);
    if (self == NULL) {
        return cession_fail(err, CESSION_E_NOMEM, NULL);
    }
    self->base = (cession_store){
        .ops = &ces_driver_redis,
        .caps = CESSION_CAP_NATIVE_TTL | CESSION_CAP_GIVES_EXPIRY | CESSION_CAP_ATOMIC |
                CESSION_CAP_LISTABLE,
    };
    int rc;
    if ((rc = ces_redis_settings_new(options, count, &self->settings, err)) != CESSION_OK ||
        (rc = hash_script(script_replace, self->replace_sha, err)) != CESSION_OK ||
        (rc = hash_script(script_touch, self->touch_sha, err)) != CESSION_OK ||
        (rc = ces_redis_dialer_new(&self->settings->manner, &self->dialer, err)) != CESSION_OK ||
        (rc = topologies[self->settings->topology](self->settings, self->dialer, &self->nodes,
                                                   err)) != CESSION_OK) {
        redis_close(&self->base);
        return rc;
    }
    *ret_store = &self->base;
    return CESSION_OK;
}

const cession_store_ops ces_driver_redis = {
    .abi = CESSION_STORE_ABI,
    .size = sizeof(cession_store_ops),
    .name = "redis",
    .open = redis_open,
    .close = redis_close,
    .load = redis_load,
    .create = redis_create,
    .replace = redis_replace,
    .touch = redis_touch,
    .remove = redis_remove,
    .scan = redis_scan,
};
