#include "contract.h"

#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "harness.h"

#define HOUR INT64_C(3600000)
#define DAY (24 * HOUR)

/* One case's store, and the operations in short. */
typedef struct world {
    const contract_subject *subject;
    cession_store *store;
    uint32_t caps;
} world;

static cession_deadline soon(const world *w)
{
    return cession_deadline_in(w->subject->deadline_ms != 0 ? w->subject->deadline_ms : 20000);
}

static void sleep_ms(int64_t ms)
{
    struct timespec left = {.tv_sec = ms / 1000, .tv_nsec = (ms % 1000) * 1000000};
    while (nanosleep(&left, &left) != 0) {
    }
}

static int create(const world *w, cession_span key, cession_span value, int64_t ttl_ms)
{
    return cession_store_create(w->store, key, value, ttl_ms, soon(w), NULL);
}

static int load(const world *w, cession_span key, cession_stored *ret_stored)
{
    return cession_store_load(w->store, key, soon(w), ret_stored, NULL);
}

static int replace(const world *w, cession_span key, cession_span expected, cession_span value,
                   int64_t ttl_ms, cession_stored *ret_current)
{
    cession_expected e = {.value = expected};
    return cession_store_replace(w->store, key, &e, value, ttl_ms, soon(w), ret_current, NULL);
}

static int touch(const world *w, cession_span key, cession_span expected, int64_t ttl_ms)
{
    cession_expected e = {.value = expected};
    return cession_store_touch(w->store, key, &e, ttl_ms, soon(w), NULL);
}

static int remove_key(const world *w, cession_span key)
{
    return cession_store_remove(w->store, key, soon(w), NULL);
}

static cession_expected expected_of(const cession_stored *stored)
{
    return (cession_expected){.value = cession_buf_span(&stored->value),
                              .version = cession_span_of(stored->version, stored->version_len)};
}

#define CHECK_HOLDS(w, key, expected) check_holds(w, key, expected, __FILE__, __LINE__)
static void check_holds(const world *w, cession_span key, cession_span expected, const char *file,
                        int line)
{
    cession_stored stored;
    cession_stored_init(&stored);
    if (harness_check_status(load(w, key, &stored), CESSION_OK, file, line, "load")) {
        harness_check_span(cession_buf_span(&stored.value), expected, file, line, "value");
    }
    cession_stored_release(&stored);
}

#define CHECK_MISSING(w, key) check_missing(w, key, __FILE__, __LINE__)
static void check_missing(const world *w, cession_span key, const char *file, int line)
{
    cession_stored stored;
    cession_stored_init(&stored);
    harness_check_status(load(w, key, &stored), CESSION_NOT_FOUND, file, line, "load");
    cession_stored_release(&stored);
}

static int64_t expiry_of(const world *w, cession_span key)
{
    cession_stored stored;
    cession_stored_init(&stored);
    CHECK_OK(load(w, key, &stored));
    int64_t expires = stored.expires_at_ms;
    cession_stored_release(&stored);
    return expires;
}

/* The expiry that was set between two readings of the clock. */
#define CHECK_EXPIRY(w, key, before, ttl) check_expiry(w, key, before, ttl, __FILE__, __LINE__)
static void check_expiry(const world *w, cession_span key, int64_t before_ms, int64_t ttl_ms,
                         const char *file, int line)
{
    int64_t after = cession_now_ms();
    int64_t expires = expiry_of(w, key);
    if ((w->caps & CESSION_CAP_GIVES_EXPIRY) == 0) {
        harness_check_int(expires, CESSION_EXPIRES_UNKNOWN, file, line, "expiry");
    } else {
        harness_check(expires >= before_ms + ttl_ms, file, line, "not earlier than asked for");
        harness_check(expires <= after + ttl_ms + w->subject->tick_ms + w->subject->late_ms, file,
                      line, "not later than its tick");
    }
}

/* ---- cases: one after the other --------------------------------------------- */

static void case_create_and_load(world *w)
{
    cession_stored stored;
    cession_stored_init(&stored);
    CHECK_OK(cession_buf_set(&stored.value, "kept", 4));
    stored.version_len = 1;
    stored.version[0] = 7;
    stored.expires_at_ms = 42;
    CHECK_STATUS(load(w, SPAN("k"), &stored), CESSION_NOT_FOUND);
    CHECK_SPAN(cession_buf_span(&stored.value), SPAN("kept"));
    CHECK_INT(stored.version_len, 1);
    CHECK_INT(stored.expires_at_ms, 42);

    int64_t before = cession_now_ms();
    CHECK_OK(create(w, SPAN("k"), SPAN("one"), HOUR));
    CHECK_OK(load(w, SPAN("k"), &stored));
    CHECK_SPAN(cession_buf_span(&stored.value), SPAN("one"));
    CHECK(stored.version_len <= CESSION_VERSION_MAX);
    CHECK_EXPIRY(w, SPAN("k"), before, HOUR);

    CHECK_STATUS(create(w, SPAN("k"), SPAN("two"), 2 * HOUR), CESSION_EXISTS);
    CHECK_HOLDS(w, SPAN("k"), SPAN("one"));
    CHECK_EXPIRY(w, SPAN("k"), before, HOUR);
    CHECK_MISSING(w, SPAN("K"));
    cession_stored_release(&stored);
}

static void case_replace(world *w)
{
    cession_stored current;
    cession_stored_init(&current);
    CHECK_STATUS(replace(w, SPAN("k"), SPAN(""), SPAN("new"), HOUR, &current), CESSION_GONE);
    CHECK_MISSING(w, SPAN("k"));

    CHECK_OK(create(w, SPAN("k"), SPAN("one"), HOUR));
    int64_t before = cession_now_ms();
    CHECK_OK(replace(w, SPAN("k"), SPAN("one"), SPAN("two"), 2 * HOUR, &current));
    CHECK_INT(current.value.len, 0);
    CHECK_HOLDS(w, SPAN("k"), SPAN("two"));
    CHECK_EXPIRY(w, SPAN("k"), before, 2 * HOUR);
    before = cession_now_ms();
    CHECK_OK(replace(w, SPAN("k"), SPAN("two"), SPAN("two"), HOUR, &current));
    CHECK_EXPIRY(w, SPAN("k"), before, HOUR);

    /* A stale value: told what is there, nothing changed. */
    CHECK_STATUS(replace(w, SPAN("k"), SPAN("one"), SPAN("three"), 5 * HOUR, &current),
                 CESSION_CONFLICT);
    CHECK_SPAN(cession_buf_span(&current.value), SPAN("two"));
    CHECK_HOLDS(w, SPAN("k"), SPAN("two"));
    CHECK_EXPIRY(w, SPAN("k"), before, HOUR);
    /* Lengths that differ, one the start of the other. */
    CHECK_STATUS(replace(w, SPAN("k"), SPAN("tw"), SPAN("x"), HOUR, &current), CESSION_CONFLICT);
    CHECK_STATUS(replace(w, SPAN("k"), SPAN("two\0"), SPAN("x"), HOUR, &current), CESSION_CONFLICT);
    CHECK_STATUS(replace(w, SPAN("k"), SPAN(""), SPAN("x"), HOUR, &current), CESSION_CONFLICT);
    /* What it told is enough to go on. */
    cession_expected told = expected_of(&current);
    cession_stored again;
    cession_stored_init(&again);
    CHECK_OK(cession_store_replace(w->store, SPAN("k"), &told, SPAN("three"), HOUR, soon(w), &again,
                                   NULL));
    CHECK_HOLDS(w, SPAN("k"), SPAN("three"));
    cession_stored_release(&again);
    cession_stored_release(&current);
}

static void case_versions(world *w)
{
    cession_stored old, current;
    cession_stored_init(&old);
    cession_stored_init(&current);
    CHECK_OK(create(w, SPAN("k"), SPAN("one"), HOUR));
    CHECK_OK(load(w, SPAN("k"), &old));

    /* A touch in between: the version may differ, the value is the same. */
    CHECK_OK(touch(w, SPAN("k"), SPAN("one"), 2 * HOUR));
    cession_expected stale = expected_of(&old);
    CHECK_OK(cession_store_touch(w->store, SPAN("k"), &stale, HOUR, soon(w), NULL));
    CHECK_OK(cession_store_replace(w->store, SPAN("k"), &stale, SPAN("two"), HOUR, soon(w),
                                   &current, NULL));
    /* A change in between: version and value are stale. */
    CHECK_STATUS(cession_store_touch(w->store, SPAN("k"), &stale, HOUR, soon(w), NULL),
                 CESSION_CHANGED);
    CHECK_STATUS(cession_store_replace(w->store, SPAN("k"), &stale, SPAN("x"), HOUR, soon(w),
                                       &current, NULL),
                 CESSION_CONFLICT);
    CHECK_SPAN(cession_buf_span(&current.value), SPAN("two"));
    CHECK_HOLDS(w, SPAN("k"), SPAN("two"));
    cession_stored_release(&old);
    cession_stored_release(&current);
}

static void case_remove(world *w)
{
    cession_stored current;
    cession_stored_init(&current);
    CHECK_OK(remove_key(w, SPAN("never")));
    CHECK_OK(create(w, SPAN("k"), SPAN("one"), HOUR));
    CHECK_OK(create(w, SPAN("other"), SPAN("stays"), HOUR));
    CHECK_OK(remove_key(w, SPAN("k")));
    CHECK_MISSING(w, SPAN("k"));
    CHECK_OK(remove_key(w, SPAN("k")));
    CHECK_STATUS(replace(w, SPAN("k"), SPAN("one"), SPAN("two"), HOUR, &current), CESSION_GONE);
    CHECK_STATUS(touch(w, SPAN("k"), SPAN("one"), HOUR), CESSION_GONE);
    CHECK_MISSING(w, SPAN("k"));
    CHECK_HOLDS(w, SPAN("other"), SPAN("stays"));
    CHECK_OK(create(w, SPAN("k"), SPAN("anew"), HOUR));
    CHECK_HOLDS(w, SPAN("k"), SPAN("anew"));
    cession_stored_release(&current);
}

static void case_touch(world *w)
{
    cession_stored current;
    cession_stored_init(&current);
    CHECK_STATUS(touch(w, SPAN("k"), SPAN("one"), HOUR), CESSION_GONE);
    CHECK_OK(create(w, SPAN("k"), SPAN("one"), HOUR));
    int64_t before = cession_now_ms();
    CHECK_OK(touch(w, SPAN("k"), SPAN("one"), 2 * HOUR));
    CHECK_EXPIRY(w, SPAN("k"), before, 2 * HOUR);
    CHECK_HOLDS(w, SPAN("k"), SPAN("one"));
    /* Twice in one second, to the same lifetime: nothing to change is no CHANGED. */
    CHECK_OK(touch(w, SPAN("k"), SPAN("one"), 2 * HOUR));
    CHECK_OK(touch(w, SPAN("k"), SPAN("one"), 2 * HOUR));
    before = cession_now_ms();
    CHECK_OK(touch(w, SPAN("k"), SPAN("one"), HOUR / 2));
    CHECK_EXPIRY(w, SPAN("k"), before, HOUR / 2);
    before = cession_now_ms();
    CHECK_OK(touch(w, SPAN("k"), SPAN("one"), HOUR));
    CHECK_EXPIRY(w, SPAN("k"), before, HOUR);

    /* After somebody else's write a touch changes nothing. */
    before = cession_now_ms();
    CHECK_OK(replace(w, SPAN("k"), SPAN("one"), SPAN("theirs"), HOUR, &current));
    int64_t expires = expiry_of(w, SPAN("k"));
    CHECK_STATUS(touch(w, SPAN("k"), SPAN("one"), 9 * HOUR), CESSION_CHANGED);
    CHECK_HOLDS(w, SPAN("k"), SPAN("theirs"));
    CHECK(llabs(expiry_of(w, SPAN("k")) - expires) <= w->subject->late_ms);
    cession_stored_release(&current);
}

typedef struct seen {
    const world *w;
    size_t count;
    unsigned times[64]; /* values are one byte: the number of the record */
    unsigned stop_after;
} seen;

static int see(void *context, cession_span key, cession_span value, int64_t expires_at_ms)
{
    seen *s = context;
    CHECK(key.len > 0);
    CHECK(expires_at_ms > cession_now_ms() - 1000 || expires_at_ms < 0);
    if (CHECK(value.len == 1 && value.data[0] < 64)) {
        s->times[value.data[0]]++;
        if ((s->w->caps & CESSION_CAP_HASHED_KEYS) == 0) {
            char expected[32];
            snprintf(expected, sizeof expected, "record %u", value.data[0]);
            CHECK_SPAN(key, cession_span_str(expected));
        }
    }
    s->count++;
    return s->stop_after != 0 && s->count == s->stop_after ? 77 : CESSION_OK;
}

static size_t scan_all(const world *w, seen *s, size_t batch)
{
    cession_buf cursor;
    cession_buf_init(&cursor, 4096);
    memset(s, 0, sizeof *s);
    s->w = w;
    size_t rounds = 0;
    do {
        size_t before = s->count;
        if (!CHECK_OK(cession_store_scan(w->store, &cursor, batch, soon(w), see, s, NULL))) {
            break;
        }
        CHECK(s->count - before <= batch);
    } while (cursor.len != 0 && CHECK(++rounds < 1000));
    cession_buf_release(&cursor);
    return s->count;
}

/* One real wait for all that has to do with expiry. */
static void case_expiry(world *w)
{
    const int64_t ttl = w->subject->tick_ms > 50 ? w->subject->tick_ms : 50;
    static const char *const keys[] = {"load", "create", "replace", "touch", "remove", "shrunk"};
    enum { KEYS = sizeof keys / sizeof keys[0] };
    cession_stored current;
    cession_stored_init(&current);
    for (int i = 0; i < KEYS - 1; i++) {
        CHECK_OK(create(w, cession_span_str(keys[i]), SPAN("x"), ttl));
    }
    CHECK_OK(create(w, SPAN("shrunk"), SPAN("x"), HOUR));
    CHECK_OK(touch(w, SPAN("shrunk"), SPAN("x"), ttl));
    /* Lifetimes people use: a second, and more than the 30 days above which
     * some stores take a number for a date. */
    int64_t before = cession_now_ms();
    CHECK_OK(create(w, SPAN("second"), SPAN("x"), 1000));
    cession_stored second;
    cession_stored_init(&second);
    int rc = load(w, SPAN("second"), &second);
    CHECK(rc == CESSION_OK || cession_now_ms() >= before + 1000);
    cession_stored_release(&second);
    before = cession_now_ms();
    CHECK_OK(create(w, SPAN("40 days"), SPAN("x"), 40 * DAY));
    CHECK_EXPIRY(w, SPAN("40 days"), before, 40 * DAY);
    before = cession_now_ms();
    CHECK_OK(create(w, SPAN("grown"), SPAN("x"), 1000));
    rc = touch(w, SPAN("grown"), SPAN("x"), HOUR);
    if (rc != CESSION_OK) { /* a machine that stood still for a second */
        CHECK_STATUS(rc, CESSION_GONE);
        CHECK(cession_now_ms() >= before + 1000);
        CHECK_OK(create(w, SPAN("grown"), SPAN("x"), HOUR));
    }

    sleep_ms(1000 + w->subject->tick_ms + 5);
    CHECK_MISSING(w, SPAN("load"));
    CHECK_MISSING(w, SPAN("second"));
    CHECK_MISSING(w, SPAN("shrunk"));
    CHECK_HOLDS(w, SPAN("40 days"), SPAN("x"));
    CHECK_HOLDS(w, SPAN("grown"), SPAN("x"));
    CHECK_STATUS(replace(w, SPAN("replace"), SPAN("x"), SPAN("y"), HOUR, &current), CESSION_GONE);
    CHECK_STATUS(replace(w, SPAN("replace"), SPAN("-"), SPAN("y"), HOUR, &current), CESSION_GONE);
    CHECK_STATUS(touch(w, SPAN("touch"), SPAN("x"), HOUR), CESSION_GONE);
    CHECK_MISSING(w, SPAN("replace"));
    CHECK_MISSING(w, SPAN("touch"));
    CHECK_OK(remove_key(w, SPAN("remove")));
    CHECK_OK(create(w, SPAN("create"), SPAN("again"), HOUR));
    CHECK_HOLDS(w, SPAN("create"), SPAN("again"));
    if ((w->caps & CESSION_CAP_LISTABLE) != 0) {
        CHECK_OK(remove_key(w, SPAN("40 days")));
        CHECK_OK(remove_key(w, SPAN("grown")));
        CHECK_OK(remove_key(w, SPAN("create")));
        seen s;
        CHECK_INT(scan_all(w, &s, 10), 0); /* the expired are there, and not shown */
    }
    cession_stored_release(&current);
}

static void case_purge(world *w)
{
    const int64_t ttl = w->subject->tick_ms > 20 ? w->subject->tick_ms : 20;
    cession_stored current;
    cession_stored_init(&current);
    size_t count = 12345;
    if ((w->caps & CESSION_CAP_NATIVE_TTL) != 0) {
        CHECK_STATUS(cession_store_purge(w->store, 10, soon(w), &count, NULL),
                     CESSION_E_UNSUPPORTED);
        CHECK_INT(count, 12345);
        return;
    }
    CHECK_OK(cession_store_purge(w->store, 10, soon(w), &count, NULL));
    CHECK_INT(count, 0);
    char key[32];
    for (int i = 0; i < 30; i++) {
        snprintf(key, sizeof key, "k%d", i);
        CHECK_OK(create(w, cession_span_str(key), SPAN("x"), i < 22 ? ttl : HOUR));
    }
    /* Two of the long-lived become short-lived, two of the short-lived long. */
    CHECK_OK(touch(w, SPAN("k22"), SPAN("x"), ttl));
    CHECK_OK(replace(w, SPAN("k23"), SPAN("x"), SPAN("y"), ttl, &current));
    int rc = touch(w, SPAN("k0"), SPAN("x"), HOUR);
    size_t expired = 24;
    expired -= rc == CESSION_OK;
    rc = replace(w, SPAN("k1"), SPAN("x"), SPAN("y"), HOUR, &current);
    expired -= rc == CESSION_OK;
    sleep_ms(ttl + w->subject->tick_ms + 5);
    CHECK_OK(cession_store_purge(w->store, 10, soon(w), &count, NULL));
    CHECK_INT(count, 10);
    CHECK_OK(cession_store_purge(w->store, 10, soon(w), &count, NULL));
    CHECK_INT(count, 10);
    CHECK_OK(cession_store_purge(w->store, 10, soon(w), &count, NULL));
    CHECK_INT(count, expired - 20);
    CHECK_OK(cession_store_purge(w->store, 10, soon(w), &count, NULL));
    CHECK_INT(count, 0);
    for (int i = 24; i < 30; i++) {
        snprintf(key, sizeof key, "k%d", i);
        CHECK_HOLDS(w, cession_span_str(key), SPAN("x"));
    }
    cession_stored_release(&current);
}

static int visit_and_call(void *context, cession_span key, cession_span value,
                          int64_t expires_at_ms)
{
    const world *w = context;
    (void)key;
    (void)value;
    (void)expires_at_ms;
    CHECK_HOLDS(w, SPAN("record 1"), SPAN("\x01"));
    CHECK_OK(remove_key(w, SPAN("record 0")));
    return CESSION_OK;
}

static void case_scan(world *w)
{
    seen s;
    cession_buf cursor;
    cession_buf_init(&cursor, 4096);
    if ((w->caps & CESSION_CAP_LISTABLE) == 0) {
        CHECK_STATUS(cession_store_scan(w->store, &cursor, 10, soon(w), see, &s, NULL),
                     CESSION_E_UNSUPPORTED);
        return;
    }
    CHECK_INT(scan_all(w, &s, 10), 0);
    for (uint8_t i = 0; i < 57; i++) {
        char key[32];
        snprintf(key, sizeof key, "record %u", i);
        CHECK_OK(create(w, cession_span_str(key), cession_span_of(&i, 1), HOUR));
    }
    static const size_t batches[] = {1, 10, 57, 1000};
    for (size_t b = 0; b < sizeof batches / sizeof batches[0]; b++) {
        size_t visits = scan_all(w, &s, batches[b]);
        CHECK(visits == 57 || (w->subject->repeats && visits > 57));
        for (int i = 0; i < 57; i++) {
            CHECK(s.times[i] == 1 || (w->subject->repeats && s.times[i] > 1));
        }
    }
    /* The visitor ends it, with its own value. */
    memset(&s, 0, sizeof s);
    s.w = w;
    s.stop_after = 3;
    CHECK_INT(cession_store_scan(w->store, &cursor, 10, soon(w), see, &s, NULL), 77);
    CHECK_INT(s.count, 3);
    cession_buf_clear(&cursor);
    /* And may call the store. */
    CHECK_OK(cession_store_scan(w->store, &cursor, 5, soon(w), visit_and_call, w, NULL));
    CHECK_MISSING(w, SPAN("record 0"));
    /* A cursor of something else is refused or ends, and does no harm. */
    CHECK_OK(cession_buf_set(&cursor, "abc", 3));
    int rc = cession_store_scan(w->store, &cursor, 5, soon(w), see, &s, NULL);
    CHECK(rc == CESSION_OK || rc == CESSION_E_INVALID);
    cession_buf_release(&cursor);
}

static void case_values(world *w)
{
    enum { BIG = 1024 * 1024 };
    cession_stored current;
    cession_stored_init(&current);
    uint8_t *big = malloc(BIG);
    harness_rng rng = {.state = 1};
    for (size_t i = 0; i < BIG; i++) {
        big[i] = (uint8_t)harness_random(&rng);
    }
    uint8_t all[256];
    for (int i = 0; i < 256; i++) {
        all[i] = (uint8_t)i;
    }
    const cession_span values[] = {
        SPAN("plain"),
        SPAN(""),
        SPAN("\0"),
        SPAN("\0\0after NULs"),
        SPAN("line\nline\r\n"),
        SPAN("\xf0\x9f\x8d\xaa \xff\xfe not UTF-8"),
        cession_span_of(all, sizeof all),
        cession_span_of(big, BIG),
        cession_span_of(NULL, 0),
        SPAN("last"),
    };
    enum { VALUES = sizeof values / sizeof values[0] };
    CHECK_OK(create(w, SPAN("k"), values[0], HOUR));
    for (int i = 1; i < VALUES; i++) {
        CHECK_OK(replace(w, SPAN("k"), values[i - 1], values[i], HOUR, &current));
        CHECK_HOLDS(w, SPAN("k"), values[i]);
        CHECK_OK(touch(w, SPAN("k"), values[i], 2 * HOUR));
        CHECK_STATUS(touch(w, SPAN("k"), SPAN("something else"), 2 * HOUR), CESSION_CHANGED);
        char key[16];
        snprintf(key, sizeof key, "new %d", i);
        CHECK_OK(create(w, cession_span_str(key), values[i], HOUR));
        CHECK_HOLDS(w, cession_span_str(key), values[i]);
    }
    /* One byte of a large value, at its end. */
    CHECK_OK(replace(w, SPAN("k"), SPAN("last"), cession_span_of(big, BIG), HOUR, &current));
    big[BIG - 1] ^= 1;
    CHECK_STATUS(replace(w, SPAN("k"), cession_span_of(big, BIG), SPAN("x"), HOUR, &current),
                 CESSION_CONFLICT);
    CHECK_INT(current.value.len, BIG);
    free(big);
    cession_stored_release(&current);
}

static void case_keys(world *w)
{
    char longest[1001], other[1001];
    memset(longest, 'x', 1000);
    memset(other, 'x', 999);
    other[999] = 'y';
    const cession_span keys[] = {
        SPAN("a"),
        SPAN("A"),
        SPAN("a\0"),
        SPAN("a\0b"),
        SPAN("a "),
        SPAN(" a"),
        SPAN("a\n"),
        SPAN("a\r\n"),
        SPAN("\xc3\xa9"),
        SPAN("e\xcc\x81"),
        SPAN("\xf0\x9f\x8d\xaa"),
        SPAN("'; DROP TABLE x; --"),
        SPAN("a/../b"),
        SPAN("%s%n*?[a]{b}\\"),
        SPAN("session:0123456789abcdef"),
        cession_span_of(longest, 999),
        cession_span_of(longest, 1000),
        cession_span_of(other, 1000),
    };
    enum { KEYS = sizeof keys / sizeof keys[0] };
    for (uint8_t i = 0; i < KEYS; i++) {
        CHECK_MISSING(w, keys[i]);
        CHECK_OK(create(w, keys[i], cession_span_of(&i, 1), HOUR));
    }
    for (uint8_t i = 0; i < KEYS; i++) {
        CHECK_HOLDS(w, keys[i], cession_span_of(&i, 1));
        CHECK_OK(touch(w, keys[i], cession_span_of(&i, 1), HOUR));
    }
    for (uint8_t i = 0; i < KEYS; i += 2) {
        CHECK_OK(remove_key(w, keys[i]));
    }
    for (uint8_t i = 0; i < KEYS; i++) {
        if (i % 2 == 0) {
            CHECK_MISSING(w, keys[i]);
        } else {
            CHECK_HOLDS(w, keys[i], cession_span_of(&i, 1));
        }
    }
}

static void case_many(world *w)
{
    const int many = w->subject->changes != 0 ? 10 * (int)w->subject->changes : 3000;
    char key[32];
    for (int i = 0; i < many; i++) {
        snprintf(key, sizeof key, "key %d", i);
        CHECK_OK(create(w, cession_span_str(key), cession_span_str(key), HOUR));
    }
    for (int i = 0; i < many; i += 3) {
        snprintf(key, sizeof key, "key %d", i);
        CHECK_OK(remove_key(w, cession_span_str(key)));
    }
    for (int i = 0; i < many; i++) {
        snprintf(key, sizeof key, "key %d", i);
        if (i % 3 == 0) {
            CHECK_MISSING(w, cession_span_str(key));
        } else {
            CHECK_HOLDS(w, cession_span_str(key), cession_span_str(key));
        }
    }
}

static void case_deadlines(world *w)
{
    cession_stored current;
    cession_stored_init(&current);
    CHECK_OK(create(w, SPAN("k"), SPAN("x"), HOUR)); /* opens what has to be opened */
    cession_expected x = {.value = SPAN("x")};
    const bool fast = (w->caps & CESSION_CAP_FAST) != 0;
    const cession_deadline deadlines[] = {0, 1, INT64_MAX};
    for (int i = 0; i < 3; i++) {
        /* Unhindered, a fast store answers whatever the deadline; any other may
         * say that it has no time, and not that it worked when it did not. */
        cession_deadline d = deadlines[i];
        int late = i == 0 ? CESSION_E_BUSY : CESSION_E_TIMEOUT;
        bool may_be_late = !fast && i < 2;
        int rc = cession_store_load(w->store, SPAN("k"), d, &current, NULL);
        CHECK(rc == CESSION_OK || (may_be_late && rc == late));
        rc = cession_store_touch(w->store, SPAN("k"), &x, HOUR, d, NULL);
        CHECK(rc == CESSION_OK || (may_be_late && rc == late));
        rc = cession_store_replace(w->store, SPAN("k"), &x, SPAN("x"), HOUR, d, &current, NULL);
        CHECK(rc == CESSION_OK || (may_be_late && rc == late));
        rc = cession_store_create(w->store, SPAN("k"), SPAN("y"), HOUR, d, NULL);
        CHECK(rc == CESSION_EXISTS || (may_be_late && rc == late));
        rc = cession_store_remove(w->store, SPAN("another"), d, NULL);
        CHECK(rc == CESSION_OK || (may_be_late && rc == late));
    }
    CHECK_HOLDS(w, SPAN("k"), SPAN("x"));
    if ((w->caps & CESSION_CAP_MAINTAIN) != 0) {
        CHECK_OK(cession_store_maintain(w->store, soon(w), NULL));
        CHECK_HOLDS(w, SPAN("k"), SPAN("x"));
    } else {
        CHECK_STATUS(cession_store_maintain(w->store, soon(w), NULL), CESSION_E_UNSUPPORTED);
        CHECK(!cession_store_maintenance_due(w->store));
    }
    cession_stored_release(&current);
}

static void case_arguments(world *w)
{
    static const char long_key[CESSION_KEY_MAX + 1];
    const cession_span k = SPAN("k"), none = cession_span_of(NULL, 0), v = SPAN("v");
    const cession_span bad_value = cession_span_of(NULL, 3);
    const cession_span huge = cession_span_of("v", (size_t)CESSION_VALUE_MAX + 1);
    const cession_span too_long = cession_span_of(long_key, sizeof long_key);
    const int64_t bad_ttls[] = {0, -1, INT64_MIN, INT64_MAX};
    cession_expected e = {.value = v};
    cession_expected bad_version = {.value = v, .version = cession_span_of(long_key, 33)};
    cession_stored out;
    cession_stored_init(&out);
    cession_deadline d = soon(w);
    cession_store *s = w->store;
    size_t count = 0;
    cession_buf cursor;
    cession_buf_init(&cursor, 100);
    seen visited = {0};

    const cession_span bad_keys[] = {none, cession_span_of("x", 0), cession_span_of(NULL, 5),
                                     too_long};
    for (size_t i = 0; i < 4; i++) {
        int refused = i < 3 ? CESSION_E_INVALID : CESSION_E_LIMIT;
        cession_error err = CESSION_ERROR_INIT;
        CHECK_STATUS(cession_store_load(s, bad_keys[i], d, &out, &err), refused);
        CHECK_INT(err.code, refused);
        CHECK(err.text[0] != '\0');
        CHECK_STATUS(cession_store_create(s, bad_keys[i], v, HOUR, d, NULL), refused);
        CHECK_STATUS(cession_store_replace(s, bad_keys[i], &e, v, HOUR, d, &out, NULL), refused);
        CHECK_STATUS(cession_store_touch(s, bad_keys[i], &e, HOUR, d, NULL), refused);
        CHECK_STATUS(cession_store_remove(s, bad_keys[i], d, NULL), refused);
    }
    for (size_t i = 0; i < 4; i++) {
        CHECK_STATUS(cession_store_create(s, k, v, bad_ttls[i], d, NULL), CESSION_E_INVALID);
        CHECK_STATUS(cession_store_replace(s, k, &e, v, bad_ttls[i], d, &out, NULL),
                     CESSION_E_INVALID);
        CHECK_STATUS(cession_store_touch(s, k, &e, bad_ttls[i], d, NULL), CESSION_E_INVALID);
    }
    CHECK_STATUS(cession_store_create(s, k, bad_value, HOUR, d, NULL), CESSION_E_INVALID);
    CHECK_STATUS(cession_store_create(s, k, huge, HOUR, d, NULL), CESSION_E_LIMIT);
    CHECK_STATUS(cession_store_replace(s, k, &e, huge, HOUR, d, &out, NULL), CESSION_E_LIMIT);
    CHECK_STATUS(cession_store_replace(s, k, NULL, v, HOUR, d, &out, NULL), CESSION_E_INVALID);
    CHECK_STATUS(cession_store_replace(s, k, &e, v, HOUR, d, NULL, NULL), CESSION_E_INVALID);
    CHECK_STATUS(cession_store_replace(s, k, &bad_version, v, HOUR, d, &out, NULL),
                 CESSION_E_INVALID);
    CHECK_STATUS(cession_store_touch(s, k, NULL, HOUR, d, NULL), CESSION_E_INVALID);
    CHECK_STATUS(cession_store_load(s, k, d, NULL, NULL), CESSION_E_INVALID);
    CHECK_STATUS(cession_store_purge(s, 0, d, &count, NULL), CESSION_E_INVALID);
    CHECK_STATUS(cession_store_purge(s, 1, d, NULL, NULL), CESSION_E_INVALID);
    CHECK_STATUS(cession_store_scan(s, &cursor, 0, d, see, &visited, NULL), CESSION_E_INVALID);
    CHECK_STATUS(cession_store_scan(s, NULL, 1, d, see, &visited, NULL), CESSION_E_INVALID);
    CHECK_STATUS(cession_store_scan(s, &cursor, 1, d, NULL, NULL, NULL), CESSION_E_INVALID);
    CHECK_MISSING(w, k);
    cession_stored_release(&out);
}

/* ---- cases: at the same time --------------------------------------------------- */

enum { THREADS = 8 };

typedef struct team {
    world *w;
    pthread_barrier_t start;
    atomic_uint next;
    atomic_uint wins, losses, conflicts;
    unsigned rounds;
} team;

static void run_team(team *t, void *(*work)(void *))
{
    pthread_t threads[THREADS];
    pthread_barrier_init(&t->start, NULL, THREADS);
    for (int i = 0; i < THREADS; i++) {
        if (pthread_create(&threads[i], NULL, work, t) != 0) {
            fprintf(stderr, "no thread\n");
            exit(2);
        }
    }
    for (int i = 0; i < THREADS; i++) {
        pthread_join(threads[i], NULL);
    }
    pthread_barrier_destroy(&t->start);
}

static unsigned number_in(const cession_stored *stored)
{
    char text[16] = "";
    if (CHECK(stored->value.len < sizeof text)) {
        memcpy(text, stored->value.data, stored->value.len);
    }
    return (unsigned)strtoul(text, NULL, 10);
}

static void *count_up(void *context)
{
    team *t = context;
    cession_stored held, current;
    cession_stored_init(&held);
    cession_stored_init(&current);
    pthread_barrier_wait(&t->start);
    for (unsigned i = 0; i < t->rounds; i++) {
        int rc = load(t->w, SPAN("counter"), &held);
        while (rc == CESSION_OK || rc == CESSION_CONFLICT) {
            char text[16];
            int len = snprintf(text, sizeof text, "%u", number_in(&held) + 1);
            cession_expected e = expected_of(&held);
            rc = cession_store_replace(t->w->store, SPAN("counter"), &e,
                                       cession_span_of(text, (size_t)len), HOUR, soon(t->w),
                                       &current, NULL);
            if (rc == CESSION_OK) {
                break;
            }
            if (rc == CESSION_CONFLICT) {
                atomic_fetch_add(&t->conflicts, 1);
                cession_stored swap = held;
                held = current;
                current = swap;
            }
        }
        if (!CHECK_OK(rc)) {
            break;
        }
    }
    cession_stored_release(&held);
    cession_stored_release(&current);
    return NULL;
}

static void case_no_change_is_lost(world *w)
{
    if ((w->caps & CESSION_CAP_ATOMIC) == 0) {
        return;
    }
    team t = {.w = w, .rounds = w->subject->changes != 0 ? w->subject->changes : 200};
    CHECK_OK(create(w, SPAN("counter"), SPAN("0"), HOUR));
    run_team(&t, count_up);
    char total[16];
    snprintf(total, sizeof total, "%u", t.rounds * THREADS);
    CHECK_HOLDS(w, SPAN("counter"), cession_span_str(total));
}

static void *create_same(void *context)
{
    team *t = context;
    for (unsigned i = 0; i < t->rounds; i++) {
        char key[32];
        snprintf(key, sizeof key, "contested %u", i);
        pthread_barrier_wait(&t->start);
        int rc = create(t->w, cession_span_str(key), SPAN("x"), HOUR);
        if (rc == CESSION_OK) {
            atomic_fetch_add(&t->wins, 1);
        } else if (CHECK_STATUS(rc, CESSION_EXISTS)) {
            atomic_fetch_add(&t->losses, 1);
        }
    }
    return NULL;
}

static void case_create_has_one_winner(world *w)
{
    if ((w->caps & CESSION_CAP_ATOMIC) == 0) {
        return;
    }
    team t = {.w = w, .rounds = 40};
    run_team(&t, create_same);
    CHECK_INT(atomic_load(&t.wins), 40);
    CHECK_INT(atomic_load(&t.losses), 40 * (THREADS - 1));
}

static void *remove_against_changes(void *context)
{
    team *t = context;
    unsigned me = atomic_fetch_add(&t->next, 1);
    cession_stored current;
    cession_stored_init(&current);
    for (unsigned i = 0; i < t->rounds; i++) {
        char key[32];
        snprintf(key, sizeof key, "removed %u", i);
        pthread_barrier_wait(&t->start);
        if (me == 0) {
            CHECK_OK(remove_key(t->w, cession_span_str(key)));
        } else if (me % 2 == 0) {
            int rc = touch(t->w, cession_span_str(key), SPAN("x"), HOUR);
            CHECK(rc == CESSION_OK || rc == CESSION_GONE);
        } else {
            int rc = replace(t->w, cession_span_str(key), SPAN("x"), SPAN("x"), HOUR, &current);
            CHECK(rc == CESSION_OK || rc == CESSION_GONE);
        }
    }
    cession_stored_release(&current);
    return NULL;
}

static void case_removed_stays_removed(world *w)
{
    if ((w->caps & CESSION_CAP_ATOMIC) == 0) {
        return;
    }
    team t = {.w = w, .rounds = 40};
    char key[32];
    for (unsigned i = 0; i < t.rounds; i++) {
        snprintf(key, sizeof key, "removed %u", i);
        CHECK_OK(create(w, cession_span_str(key), SPAN("x"), HOUR));
    }
    run_team(&t, remove_against_changes);
    for (unsigned i = 0; i < t.rounds; i++) {
        snprintf(key, sizeof key, "removed %u", i);
        CHECK_MISSING(w, cession_span_str(key));
    }
}

static void *mix(void *context)
{
    team *t = context;
    unsigned me = atomic_fetch_add(&t->next, 1);
    harness_rng rng = {.state = me};
    cession_stored current;
    cession_stored_init(&current);
    cession_buf cursor;
    cession_buf_init(&cursor, 4096);
    seen visited = {.w = t->w};
    pthread_barrier_wait(&t->start);
    for (unsigned i = 0; i < t->rounds; i++) {
        /* Own keys: what this thread was told must hold; scans and purges of the
         * others must not disturb it. */
        char key[32];
        uint8_t value = (uint8_t)(me * 8 + harness_below(&rng, 8));
        snprintf(key, sizeof key, "record %u", value);
        cession_span k = cession_span_str(key), v = cession_span_of(&value, 1);
        CHECK_OK(create(t->w, k, v, HOUR));
        CHECK_HOLDS(t->w, k, v);
        CHECK_OK(replace(t->w, k, v, v, HOUR, &current));
        size_t count;
        if (i % 8 == 0 && (t->w->caps & CESSION_CAP_NATIVE_TTL) == 0) {
            CHECK_OK(cession_store_purge(t->w->store, 10, soon(t->w), &count, NULL));
        }
        if (i % 8 == 4 && (t->w->caps & CESSION_CAP_LISTABLE) != 0) {
            CHECK_OK(cession_store_scan(t->w->store, &cursor, 5, soon(t->w), see, &visited, NULL));
        }
        if (i % 16 == 9 && (t->w->caps & CESSION_CAP_MAINTAIN) != 0) {
            CHECK_OK(cession_store_maintain(t->w->store, soon(t->w), NULL));
        }
        CHECK_OK(touch(t->w, k, v, HOUR));
        CHECK_OK(remove_key(t->w, k));
        CHECK_MISSING(t->w, k);
    }
    cession_stored_release(&current);
    cession_buf_release(&cursor);
    return NULL;
}

static void case_all_at_once(world *w)
{
    team t = {.w = w, .rounds = 64};
    run_team(&t, mix);
}

/* ---- the suite -------------------------------------------------------------------- */

static void (*const cases[])(world *w) = {
    case_create_and_load,
    case_replace,
    case_versions,
    case_remove,
    case_touch,
    case_expiry,
    case_purge,
    case_scan,
    case_values,
    case_keys,
    case_many,
    case_deadlines,
    case_arguments,
    case_no_change_is_lost,
    case_create_has_one_winner,
    case_removed_stays_removed,
    case_all_at_once,
};

void contract_run(const contract_subject *subject)
{
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        world w = {.subject = subject, .store = subject->make(subject->context)};
        if (!CHECK(w.store != NULL)) {
            return;
        }
        w.caps = w.store->caps;
        cases[i](&w);
        cession_store_close(w.store);
    }
}
