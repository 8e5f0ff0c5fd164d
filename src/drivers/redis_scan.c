/* Listing the records of a redis store.
 *
 * SCAN gives a page of keys and the cursor of the next one. Pages have about the
 * length asked for, not exactly; a caller of ours gets at most its batch. So a
 * page that does not fit into what is left of the batch is asked for again at the
 * next call; and one that does not fit into a whole batch is visited in parts:
 * the cursor then carries hashes of the keys of this page that were seen.
 *
 * Our cursor: number of the node, blank, cursor of Redis, blank, hashes of 8
 * bytes. What comes in is checked, it may be anything. */
#include "drivers/redis.h"

#include <stdio.h>

#include "base/msgpack.h"
#include "base/banned.h"

#define PAGES_MAX 64u /* of one call: where few keys match, it ends without any */
#define COUNT_MAX 1024u
#define KEYS_AT_ONCE (CES_REDIS_COMMANDS_MAX / 2)
#define DIGITS_MAX 20u
#define HASH_LEN 8u

typedef struct scan {
    ces_redis_store *self;
    cession_deadline deadline;
    cession_scan_fn *visit;
    void *context;
    cession_error *err;
    unsigned node;
    char at[DIGITS_MAX + 1];
    cession_buf seen; /* hashes */
    cession_buf pattern;
} scan;

/* ---- cursors ---------------------------------------------------------------------- */

static int foreign_cursor(cession_error *err)
{
    return cession_fail(err, CESSION_E_INVALID, "the cursor comes from another store");
}

static size_t digits(const uint8_t *data, size_t len)
{
    size_t n = 0;
    while (n < len && data[n] >= '0' && data[n] <= '9') {
        n++;
    }
    return n;
}

static int read_cursor(scan *s, const cession_buf *cursor)
{
    const uint8_t *data = cursor->data;
    size_t len = cursor->len;
    if (len == 0) {
        s->node = 0;
        memcpy(s->at, "0", 2);
        return CESSION_OK;
    }
    size_t n = digits(data, len);
    if (n == 0 || n > 4 || n == len || data[n] != ' ') {
        return foreign_cursor(s->err);
    }
    s->node = 0;
    for (size_t i = 0; i < n; i++) {
        s->node = s->node * 10 + (unsigned)(data[i] - '0');
    }
    data += n + 1;
    len -= n + 1;
    n = digits(data, len);
    if (n == 0 || n > DIGITS_MAX || n == len || data[n] != ' ' || (len - n - 1) % HASH_LEN != 0) {
        return foreign_cursor(s->err);
    }
    memcpy(s->at, data, n);
    s->at[n] = '\0';
    int rc = cession_buf_set(&s->seen, data + n + 1, len - n - 1);
    return rc == CESSION_OK ? rc : cession_fail(s->err, rc, NULL);
}

static int write_cursor(scan *s, cession_buf *cursor)
{
    char head[DIGITS_MAX + 16];
    int len = snprintf(head, sizeof head, "%u %s ", s->node, s->at);
    int rc = cession_buf_set(cursor, head, (size_t)len);
    if (rc == CESSION_OK) {
        rc = cession_buf_append(cursor, s->seen.data, s->seen.len);
    }
    return rc == CESSION_OK ? rc : cession_fail(s->err, rc, NULL);
}

/* FNV-1a: two keys of one page with the same hash cost one of them its place in
 * a listing, once in 10^19. */
static uint64_t hash_of(const ces_redis_reply *key)
{
    uint64_t hash = UINT64_C(0xcbf29ce484222325);
    for (size_t i = 0; i < key->len; i++) {
        hash = (hash ^ (uint8_t)key->text[i]) * UINT64_C(0x100000001b3);
    }
    return hash;
}

static bool was_seen(const scan *s, const ces_redis_reply *key)
{
    uint64_t hash = hash_of(key);
    for (size_t at = 0; at < s->seen.len; at += HASH_LEN) {
        if (memcmp(s->seen.data + at, &hash, HASH_LEN) == 0) {
            return true;
        }
    }
    return false;
}

/* The prefix as a pattern that matches it as it is. */
static int write_pattern(scan *s, const char *prefix)
{
    int rc = CESSION_OK;
    for (const char *at = prefix; *at != '\0' && rc == CESSION_OK; at++) {
        if (strchr("*?[]\\^-", *at) != NULL) {
            rc = cession_buf_byte(&s->pattern, '\\');
        }
        if (rc == CESSION_OK) {
            rc = cession_buf_byte(&s->pattern, (uint8_t)*at);
        }
    }
    if (rc == CESSION_OK) {
        rc = cession_buf_byte(&s->pattern, '*');
    }
    return rc == CESSION_OK ? rc : cession_fail(s->err, rc, NULL);
}

/* ---- asking one node ------------------------------------------------------------------ */

#define TEXT(literal) cession_span_of(literal, sizeof(literal) - 1)

/* As in redis.c, but for the node and not for a key: reading may be repeated. */
static int ask(scan *s, const ces_redis_command *commands, size_t count,
               ces_redis_reply **ret_replies)
{
    ces_redis_nodes *nodes = s->self->nodes;
    for (bool repeated = false;; repeated = true) {
        ces_redis_lease lease = {NULL};
        int rc = nodes->ops->nth(nodes, s->node, s->deadline, &lease, s->err);
        if (rc != CESSION_OK) {
            return rc;
        }
        rc = ces_redis_converse(&lease, commands, count, s->deadline, ret_replies, s->err);
        bool again = rc == CESSION_E_UNAVAILABLE && !lease.fresh && !repeated;
        ces_redis_lease_give(&lease);
        if (!again) {
            return rc;
        }
    }
}

static bool is_page(const ces_redis_reply *reply)
{
    if (reply->kind != CES_REDIS_ARRAY || reply->count != 2 ||
        reply->items[0]->kind != CES_REDIS_STRING || reply->items[1]->kind != CES_REDIS_ARRAY) {
        return false;
    }
    const ces_redis_reply *next = reply->items[0], *keys = reply->items[1];
    bool fine = next->len > 0 && next->len <= DIGITS_MAX &&
                digits((const uint8_t *)next->text, next->len) == next->len;
    for (size_t i = 0; fine && i < keys->count; i++) {
        fine = keys->items[i]->kind == CES_REDIS_STRING;
    }
    return fine;
}

/* NOT_FOUND: there is no such node (any more). */
static int read_page(scan *s, size_t count, ces_redis_reply **ret_page)
{
    char number[24];
    int len = snprintf(number, sizeof number, "%zu", count);
    ces_redis_command command = {.words = {TEXT("SCAN"), cession_span_str(s->at), TEXT("COUNT"),
                                           cession_span_of(number, (size_t)len), TEXT("MATCH"),
                                           cession_buf_span(&s->pattern)},
                                 .count = s->pattern.len != 0 ? 6 : 4};
    ces_redis_reply *page = NULL;
    int rc = ask(s, &command, 1, &page);
    if (rc == CESSION_OK && !is_page(page)) {
        rc = ces_redis_fail(page, s->err);
    }
    if (rc != CESSION_OK) {
        ces_redis_reply_free(page);
        return rc;
    }
    *ret_page = page;
    return CESSION_OK;
}

/* ---- visiting --------------------------------------------------------------------------- */

/* No record of ours: of another type, under a key that no store takes, or moved to
 * another node meanwhile, where it is seen or not. */
static bool is_passed_over(const ces_redis_reply *key, const ces_redis_reply *value)
{
    return ces_redis_is_error(value, "WRONGTYPE") || ces_redis_is_error(value, "MOVED") ||
           ces_redis_is_error(value, "ASK") || key->len == 0 || key->len > CESSION_KEY_MAX ||
           !ces_utf8_valid((const uint8_t *)key->text, key->len);
}

/* Read the records of some keys, give the connection back, then visit: the
 * visitor may call the store. */
static int visit_some(scan *s, ces_redis_reply *const *keys, size_t count)
{
    ces_redis_command commands[CES_REDIS_COMMANDS_MAX];
    ces_redis_reply *replies[CES_REDIS_COMMANDS_MAX] = {NULL};
    for (size_t i = 0; i < count; i++) {
        cession_span key = cession_span_of(keys[i]->text, keys[i]->len);
        commands[2 * i] = (ces_redis_command){.words = {TEXT("GET"), key}, .count = 2};
        commands[2 * i + 1] = (ces_redis_command){.words = {TEXT("PTTL"), key}, .count = 2};
    }
    int rc = ask(s, commands, 2 * count, replies);
    if (rc != CESSION_OK) {
        return rc;
    }
    cession_stored record;
    cession_stored_init(&record);
    for (size_t i = 0; i < count && rc == CESSION_OK; i++) {
        const ces_redis_reply *value = replies[2 * i];
        if (is_passed_over(keys[i], value)) {
            continue;
        }
        rc = ces_redis_record(value, replies[2 * i + 1], &record, s->err);
        if (rc == CESSION_OK) {
            rc = s->visit(s->context, cession_span_of(keys[i]->text, keys[i]->len),
                          cession_buf_span(&record.value), record.expires_at_ms);
        } else if (rc == CESSION_NOT_FOUND) {
            rc = CESSION_OK;
        }
    }
    cession_stored_release(&record);
    for (size_t i = 0; i < 2 * count; i++) {
        ces_redis_reply_free(replies[i]);
    }
    return rc;
}

static int visit_all(scan *s, ces_redis_reply *const *keys, size_t count)
{
    int rc = CESSION_OK;
    for (size_t at = 0; at < count && rc == CESSION_OK; at += KEYS_AT_ONCE) {
        rc = visit_some(s, keys + at, count - at < KEYS_AT_ONCE ? count - at : KEYS_AT_ONCE);
    }
    return rc;
}

/* Keys that a listing has not seen yet to the front; their number. */
static size_t drop_seen(const scan *s, ces_redis_reply *keys)
{
    size_t kept = 0;
    for (size_t i = 0; s->seen.len != 0 && i < keys->count; i++) {
        if (!was_seen(s, keys->items[i])) {
            ces_redis_reply *swap = keys->items[kept];
            keys->items[kept++] = keys->items[i];
            keys->items[i] = swap;
        }
    }
    return s->seen.len != 0 ? kept : keys->count;
}

/* The cursor can carry no more than its buffer holds: then the batch is
 * exceeded rather than a key left out. */
static size_t part_of(scan *s, const cession_buf *cursor, size_t fresh, size_t left)
{
    size_t room = cursor->max > 64 ? (cursor->max - 64) / HASH_LEN : 0;
    return s->seen.len / HASH_LEN + left <= room ? left : fresh;
}

static int mark_seen(scan *s, ces_redis_reply *const *keys, size_t count)
{
    for (size_t i = 0; i < count; i++) {
        uint64_t hash = hash_of(keys[i]);
        int rc = cession_buf_append(&s->seen, &hash, HASH_LEN);
        if (rc != CESSION_OK) {
            return cession_fail(s->err, rc, NULL);
        }
    }
    return CESSION_OK;
}

/* Visit of one page what fits. *io_left goes down; *ret_done: the page is over. */
static int visit_page(scan *s, ces_redis_reply *keys, const cession_buf *cursor, size_t *io_left,
                      bool *ret_done)
{
    size_t fresh = drop_seen(s, keys);
    size_t part = fresh <= *io_left ? fresh : part_of(s, cursor, fresh, *io_left);
    int rc = visit_all(s, keys->items, part);
    if (rc == CESSION_OK && part < fresh) {
        rc = mark_seen(s, keys->items, part);
    }
    *io_left = part < *io_left ? *io_left - part : 0;
    *ret_done = part == fresh;
    return rc;
}

/* The end of a node leads to the next one. */
static void go_on(scan *s, const ces_redis_reply *next)
{
    cession_buf_clear(&s->seen);
    memcpy(s->at, next->text, next->len);
    s->at[next->len] = '\0';
    if (next->len == 1 && next->text[0] == '0') {
        s->node++;
    }
}

/* COUNT is how many keys the server looks at, not how many match. */
static size_t next_count(size_t count, size_t first, size_t matched)
{
    size_t next = matched == 0 ? 2 * count : first;
    return next < COUNT_MAX ? next : COUNT_MAX;
}

static int scan_pages(scan *s, cession_buf *cursor, size_t batch)
{
    const size_t first = 1 + batch / 2 < COUNT_MAX ? 1 + batch / 2 : COUNT_MAX;
    size_t left = batch;
    size_t count = s->seen.len != 0 ? 1 : first; /* the very page that was left in its middle */
    for (unsigned pages = 0; pages < PAGES_MAX && left > 0; pages++) {
        ces_redis_reply *page = NULL;
        int rc = read_page(s, count, &page);
        if (rc == CESSION_NOT_FOUND) {
            cession_buf_clear(cursor);
            return CESSION_OK;
        }
        if (rc != CESSION_OK) {
            return rc;
        }
        ces_redis_reply *keys = page->items[1];
        bool done = false;
        if (keys->count <= left || (left == batch && count == 1)) {
            rc = visit_page(s, keys, cursor, &left, &done);
            if (rc == CESSION_OK && done) {
                count = next_count(count, first, keys->count);
                go_on(s, page->items[0]);
            }
        } else if (left == batch) {
            count = 1; /* the shortest page there is */
        } else {
            left = 0; /* this one is for the next call */
        }
        ces_redis_reply_free(page);
        if (rc != CESSION_OK) {
            return rc;
        }
    }
    return write_cursor(s, cursor);
}

int ces_redis_scan(cession_store *store, cession_buf *cursor, size_t batch,
                   cession_deadline deadline, cession_scan_fn *visit, void *context,
                   cession_error *err)
{
    ces_redis_store *self = (ces_redis_store *)store;
    scan s = {.self = self, .deadline = deadline, .visit = visit, .context = context, .err = err};
    cession_buf_init(&s.seen, CESSION_KEY_MAX * 8);
    cession_buf_init(&s.pattern, CESSION_KEY_MAX * 8);
    int rc = read_cursor(&s, cursor);
    if (rc == CESSION_OK && self->settings->scan_prefix != NULL) {
        rc = write_pattern(&s, self->settings->scan_prefix);
    }
    if (rc == CESSION_OK) {
        rc = scan_pages(&s, cursor, batch);
    }
    cession_buf_release(&s.seen);
    cession_buf_release(&s.pattern);
    return rc;
}
