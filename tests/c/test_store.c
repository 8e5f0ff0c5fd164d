/* The store floor: the contract on every driver and chain of decorators, the
 * wrappers, the pool, the decorators, the registry. */
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/os.h"
#include "contract.h"
#include "drivers/drivers.h"
#include "failing_alloc.h"
#include "harness.h"
#include "scratch.h"
#include "store/pool.h"

#define HOUR INT64_C(3600000)

static cession_deadline soon(void)
{
    return cession_deadline_in(20000);
}

/* ---- the contract ------------------------------------------------------------ */

static cession_store *make_memory(void *context)
{
    (void)context;
    cession_store *store = NULL;
    CHECK_OK(cession_store_open("memory", NULL, 0, &store, NULL));
    return store;
}

static cession_store *make_sqlite(void *context)
{
    static unsigned number;
    char name[32];
    snprintf(name, sizeof name, "contract-%u.sqlite3", number++);
    cession_option options[] = {
        {.name = "path", .value = scratch_path(name)},
        {.name = "synchronous", .value = context != NULL ? context : "normal"},
    };
    cession_store *store = NULL;
    cession_error err = CESSION_ERROR_INIT;
    CHECK_MSG(cession_store_open("sqlite", options, 2, &store, &err) == CESSION_OK, "%s", err.text);
    return store;
}

static cession_store *wrap_prefix(cession_store *inner)
{
    cession_store *store = NULL;
    CHECK_OK(cession_store_prefix(inner, SPAN("app:"), &store, NULL));
    return store;
}

static cession_store *wrap_trace(cession_store *inner)
{
    cession_store *store = NULL;
    CHECK_OK(cession_store_trace(inner, &store, NULL));
    return store;
}

static cession_store *wrap_breaker(cession_store *inner)
{
    cession_store *store = NULL;
    CHECK_OK(cession_store_breaker(inner, 0, 0, &store, NULL));
    return store;
}

static void no_fault(void *context, const char *operation, cession_fault *ret_fault)
{
    (void)context;
    (void)operation;
    (void)ret_fault;
}

static cession_store *wrap_fault(cession_store *inner)
{
    cession_store *store = NULL;
    CHECK_OK(cession_store_fault(inner, no_fault, NULL, &store, NULL));
    return store;
}

static cession_store *make_prefix_memory(void *context)
{
    return wrap_prefix(make_memory(context));
}

static cession_store *make_prefix_sqlite(void *context)
{
    return wrap_prefix(make_sqlite(context));
}

static cession_store *make_trace_sqlite(void *context)
{
    return wrap_trace(make_sqlite(context));
}

static cession_store *make_breaker_memory(void *context)
{
    return wrap_breaker(make_memory(context));
}

static cession_store *make_fault_memory(void *context)
{
    return wrap_fault(make_memory(context));
}

static cession_store *make_chain(void *context)
{
    return wrap_fault(wrap_breaker(wrap_trace(wrap_prefix(make_sqlite(context)))));
}

static void test_contract_memory(void)
{
    contract_run(&(contract_subject){.make = make_memory, .tick_ms = 1});
}

static void test_contract_sqlite(void)
{
    contract_run(&(contract_subject){.make = make_sqlite, .tick_ms = 1});
}

static void test_contract_sqlite_full(void)
{
    static char full[] = "full";
    contract_run(
        &(contract_subject){.make = make_sqlite, .context = full, .tick_ms = 1, .changes = 20});
}

static void test_contract_prefix_memory(void)
{
    contract_run(&(contract_subject){.make = make_prefix_memory, .tick_ms = 1});
}

static void test_contract_prefix_sqlite(void)
{
    contract_run(&(contract_subject){.make = make_prefix_sqlite, .tick_ms = 1, .changes = 20});
}

static void test_contract_trace_sqlite(void)
{
    contract_run(&(contract_subject){.make = make_trace_sqlite, .tick_ms = 1, .changes = 20});
}

static void test_contract_breaker_memory(void)
{
    contract_run(&(contract_subject){.make = make_breaker_memory, .tick_ms = 1});
}

static void test_contract_fault_memory(void)
{
    contract_run(&(contract_subject){.make = make_fault_memory, .tick_ms = 1});
}

static void test_contract_chain(void)
{
    contract_run(&(contract_subject){.make = make_chain, .tick_ms = 1, .changes = 20});
}

/* ---- the wrappers -------------------------------------------------------------- */

static void test_deadlines(void)
{
    CHECK_INT(cession_deadline_in(0), 0);
    CHECK_INT(cession_deadline_in(-5), 0);
    CHECK(cession_deadline_in(INT64_MAX) == INT64_MAX);
    CHECK(cession_deadline_in(INT64_MAX / 1000000) == INT64_MAX);
    CHECK_INT(cession_deadline_left_ms(0), 0);
    CHECK_INT(cession_deadline_left_ms(-1), 0);
    CHECK_INT(cession_deadline_left_ms(1), 0);
    int64_t before = ces_mono_ns();
    cession_deadline d = cession_deadline_in(3600000);
    CHECK(d >= before + INT64_C(3600000) * 1000000);
    int64_t left = cession_deadline_left_ms(d);
    CHECK(left > 0 && left <= 3600000);
    CHECK(cession_now_ms() > INT64_C(1600000000000));
}

/* A driver that answers what it is told to. */
static int canned;
static void canned_close(cession_store *store)
{
    (void)store;
}
static int canned_load(cession_store *store, cession_span key, cession_deadline deadline,
                       cession_stored *ret_stored, cession_error *err)
{
    (void)store, (void)key, (void)deadline, (void)ret_stored, (void)err;
    return canned;
}
static int canned_create(cession_store *store, cession_span key, cession_span value, int64_t ttl_ms,
                         cession_deadline deadline, cession_error *err)
{
    (void)store, (void)key, (void)value, (void)ttl_ms, (void)deadline, (void)err;
    return canned;
}
static int canned_replace(cession_store *store, cession_span key, const cession_expected *expected,
                          cession_span value, int64_t ttl_ms, cession_deadline deadline,
                          cession_stored *ret_current, cession_error *err)
{
    (void)store, (void)key, (void)expected, (void)value, (void)ttl_ms, (void)deadline;
    (void)ret_current, (void)err;
    return canned;
}
static int canned_touch(cession_store *store, cession_span key, const cession_expected *expected,
                        int64_t ttl_ms, cession_deadline deadline, cession_error *err)
{
    (void)store, (void)key, (void)expected, (void)ttl_ms, (void)deadline, (void)err;
    return canned;
}
static int canned_remove(cession_store *store, cession_span key, cession_deadline deadline,
                         cession_error *err)
{
    (void)store, (void)key, (void)deadline, (void)err;
    return canned;
}
static const cession_store_ops canned_ops = {
    .abi = CESSION_STORE_ABI,
    .size = sizeof(cession_store_ops),
    .name = "canned",
    .key_max = 8,
    .value_max = 4,
    .close = canned_close,
    .load = canned_load,
    .create = canned_create,
    .replace = canned_replace,
    .touch = canned_touch,
    .remove = canned_remove,
};

static void test_wrappers_judge_answers(void)
{
    cession_store store = {.ops = &canned_ops};
    cession_expected e = {.value = SPAN("v")};
    cession_stored out;
    cession_stored_init(&out);
    const cession_span k = SPAN("k"), v = SPAN("v");
    static const int codes[] = {CESSION_OK,
                                CESSION_NOT_FOUND,
                                CESSION_EXISTS,
                                CESSION_CONFLICT,
                                CESSION_GONE,
                                CESSION_CHANGED,
                                6,
                                1000,
                                INT32_MAX,
                                CESSION_E_BUSY,
                                -1000};
    for (size_t i = 0; i < sizeof codes / sizeof codes[0]; i++) {
        int c = canned = codes[i];
        const int bad = CESSION_E_INTERNAL;
        bool fine = c <= 0;
        CHECK_STATUS(cession_store_load(&store, k, 0, &out, NULL),
                     fine || c == CESSION_NOT_FOUND ? c : bad);
        CHECK_STATUS(cession_store_create(&store, k, v, 1, 0, NULL),
                     fine || c == CESSION_EXISTS ? c : bad);
        CHECK_STATUS(cession_store_replace(&store, k, &e, v, 1, 0, &out, NULL),
                     fine || c == CESSION_CONFLICT || c == CESSION_GONE ? c : bad);
        CHECK_STATUS(cession_store_touch(&store, k, &e, 1, 0, NULL),
                     fine || c == CESSION_CHANGED || c == CESSION_GONE ? c : bad);
        CHECK_STATUS(cession_store_remove(&store, k, 0, NULL), fine ? c : bad);
    }
    /* An error that came without a text gets the general one. */
    canned = CESSION_E_UNAVAILABLE;
    cession_error err = CESSION_ERROR_INIT;
    CHECK_STATUS(cession_store_remove(&store, k, 0, &err), CESSION_E_UNAVAILABLE);
    CHECK_INT(err.code, CESSION_E_UNAVAILABLE);
    CHECK_STR(err.text, cession_status_message(CESSION_E_UNAVAILABLE));
    /* The limits of the table. */
    canned = CESSION_OK;
    CHECK_OK(cession_store_create(&store, SPAN("12345678"), SPAN("1234"), 1, 0, NULL));
    CHECK_STATUS(cession_store_create(&store, SPAN("123456789"), v, 1, 0, &err), CESSION_E_LIMIT);
    CHECK(strstr(err.text, "12345") == NULL);
    CHECK_STATUS(cession_store_create(&store, k, SPAN("12345"), 1, 0, NULL), CESSION_E_LIMIT);
    /* What the table lacks. */
    size_t count;
    CHECK_STATUS(cession_store_purge(&store, 1, 0, &count, NULL), CESSION_E_UNSUPPORTED);
    CHECK_STATUS(cession_store_maintain(&store, 0, NULL), CESSION_E_UNSUPPORTED);
    CHECK(!cession_store_maintenance_due(&store));
    cession_stored_release(&out);
}

static void test_wrappers_check_the_table(void)
{
    cession_store_ops other = canned_ops;
    cession_store store = {.ops = &other};
    CHECK_OK(cession_store_remove(&store, SPAN("k"), 0, NULL));
    other.abi++;
    CHECK_STATUS(cession_store_remove(&store, SPAN("k"), 0, NULL), CESSION_E_ABI);
    CHECK(!cession_store_maintenance_due(&store));
    other.abi--;
    other.size -= 8;
    CHECK_STATUS(cession_store_remove(&store, SPAN("k"), 0, NULL), CESSION_E_ABI);
    store.ops = NULL;
    CHECK_STATUS(cession_store_remove(&store, SPAN("k"), 0, NULL), CESSION_E_INVALID);
    CHECK_STATUS(cession_store_remove(NULL, SPAN("k"), 0, NULL), CESSION_E_INVALID);
    CHECK(!cession_store_maintenance_due(NULL));
    cession_store_close(NULL);
}

/* ---- decorators ------------------------------------------------------------------ */

static void check_load(cession_store *store, const char *key, const char *expected)
{
    cession_stored stored;
    cession_stored_init(&stored);
    if (CHECK_OK(cession_store_load(store, cession_span_str(key), soon(), &stored, NULL))) {
        CHECK_SPAN(cession_buf_span(&stored.value), cession_span_str(expected));
    }
    cession_stored_release(&stored);
}

static int check_prefixed(void *context, cession_span key, cession_span value, int64_t expires)
{
    (void)expires;
    unsigned *count = context;
    CHECK_SPAN(key, SPAN("mine"));
    CHECK_SPAN(value, SPAN("m"));
    ++*count;
    return CESSION_OK;
}

static void test_prefix(void)
{
    cession_store *inner = make_memory(NULL);
    CHECK_OK(
        cession_store_create(inner, SPAN("app"), SPAN("shorter than the prefix"), HOUR, 0, NULL));
    CHECK_OK(cession_store_create(inner, SPAN("other:k"), SPAN("o"), HOUR, 0, NULL));
    cession_store *store = wrap_prefix(inner);
    CHECK_OK(cession_store_create(store, SPAN("mine"), SPAN("m"), HOUR, 0, NULL));
    check_load(store, "mine", "m");
    check_load(inner, "app:mine", "m");
    unsigned count = 0;
    cession_buf cursor;
    cession_buf_init(&cursor, 2000);
    CHECK_OK(cession_store_scan(store, &cursor, 100, 0, check_prefixed, &count, NULL));
    CHECK_INT(count, 1);
    CHECK_INT(cursor.len, 0);
    cession_buf_release(&cursor);

    static uint8_t key[CESSION_KEY_MAX];
    memset(key, 'k', sizeof key);
    cession_error err = CESSION_ERROR_INIT;
    CHECK_OK(cession_store_create(store, cession_span_of(key, sizeof key - 4), SPAN("x"), HOUR, 0,
                                  NULL));
    CHECK_STATUS(
        cession_store_create(store, cession_span_of(key, sizeof key - 3), SPAN("x"), HOUR, 0, &err),
        CESSION_E_LIMIT);
    CHECK(strstr(err.text, "kkk") == NULL);
    cession_store_close(store);

    inner = make_memory(NULL);
    CHECK_STATUS(cession_store_prefix(inner, cession_span_of(key, sizeof key), &store, NULL),
                 CESSION_E_LIMIT);
    CHECK_STATUS(cession_store_prefix(inner, cession_span_of(NULL, 3), &store, NULL),
                 CESSION_E_INVALID);
    CHECK_STATUS(cession_store_prefix(NULL, SPAN("x"), &store, NULL), CESSION_E_INVALID);
    CHECK_OK(cession_store_prefix(inner, cession_span_of(NULL, 0), &store, NULL));
    CHECK_OK(cession_store_create(store, SPAN("k"), SPAN("v"), HOUR, 0, NULL));
    check_load(inner, "k", "v");
    cession_store_close(store);
}

static void test_trace(void)
{
    cession_store *inner = make_memory(NULL);
    cession_store *store = wrap_trace(inner);
    cession_store_counts counts;
    cession_stored stored;
    cession_stored_init(&stored);
    cession_expected v = {.value = SPAN("v")}, x = {.value = SPAN("x")};
    size_t purged;
    cession_buf cursor;
    cession_buf_init(&cursor, 2000);

    CHECK_STATUS(cession_store_load(store, SPAN("k"), 0, &stored, NULL), CESSION_NOT_FOUND);
    CHECK_OK(cession_store_create(store, SPAN("k"), SPAN("v"), HOUR, 0, NULL));
    CHECK_STATUS(cession_store_create(store, SPAN("k"), SPAN("v"), HOUR, 0, NULL), CESSION_EXISTS);
    CHECK_OK(cession_store_replace(store, SPAN("k"), &v, SPAN("v"), HOUR, 0, &stored, NULL));
    CHECK_STATUS(cession_store_replace(store, SPAN("k"), &x, SPAN("v"), HOUR, 0, &stored, NULL),
                 CESSION_CONFLICT);
    CHECK_OK(cession_store_touch(store, SPAN("k"), &v, HOUR, 0, NULL));
    CHECK_STATUS(cession_store_touch(store, SPAN("k"), &x, HOUR, 0, NULL), CESSION_CHANGED);
    CHECK_STATUS(cession_store_touch(store, SPAN("no"), &x, HOUR, 0, NULL), CESSION_GONE);
    CHECK_OK(cession_store_remove(store, SPAN("k"), 0, NULL));
    CHECK_OK(cession_store_purge(store, 1, 0, &purged, NULL));
    unsigned n = 0;
    CHECK_OK(cession_store_scan(store, &cursor, 1, 0, check_prefixed, &n, NULL));
    CHECK_OK(cession_store_maintain(store, soon(), NULL));
    CHECK_OK(cession_store_trace_counts(store, &counts, NULL));
    CHECK_INT(counts.load, 1);
    CHECK_INT(counts.create, 2);
    CHECK_INT(counts.replace, 2);
    CHECK_INT(counts.touch, 3);
    CHECK_INT(counts.remove, 1);
    CHECK_INT(counts.purge, 1);
    CHECK_INT(counts.scan, 1);
    CHECK_INT(counts.maintain, 1);
    CHECK_INT(counts.not_found, 1);
    CHECK_INT(counts.exists, 1);
    CHECK_INT(counts.conflict, 1);
    CHECK_INT(counts.changed, 1);
    CHECK_INT(counts.gone, 1);
    CHECK_INT(counts.failed, 0);
    CHECK_INT(counts.busy, 0);
    CHECK_STATUS(cession_store_trace_counts(inner, &counts, NULL), CESSION_E_INVALID);
    CHECK_STATUS(cession_store_trace_counts(NULL, &counts, NULL), CESSION_E_INVALID);
    CHECK_STATUS(cession_store_trace(NULL, &store, NULL), CESSION_E_INVALID);
    cession_buf_release(&cursor);
    cession_stored_release(&stored);
    cession_store_close(store);

    cession_store fake = {.ops = &canned_ops};
    store = wrap_trace(&fake);
    canned = CESSION_E_BUSY;
    CHECK_STATUS(cession_store_remove(store, SPAN("k"), 0, NULL), CESSION_E_BUSY);
    canned = CESSION_E_IO;
    CHECK_STATUS(cession_store_remove(store, SPAN("k"), 0, NULL), CESSION_E_IO);
    CHECK_OK(cession_store_trace_counts(store, &counts, NULL));
    CHECK_INT(counts.busy, 1);
    CHECK_INT(counts.failed, 1);
    cession_store_close(store);
}

typedef struct plan {
    const char *operation; /* NULL: every one */
    cession_fault fault;
    unsigned asked;
    cession_store *again; /* when asked, call this store */
    int again_said;
} plan;

static void follow(void *context, const char *operation, cession_fault *ret_fault)
{
    plan *p = context;
    p->asked++;
    if (p->operation == NULL || strcmp(p->operation, operation) == 0) {
        *ret_fault = p->fault;
    }
    if (p->again != NULL) {
        cession_store *again = p->again;
        p->again = NULL;
        ces_sleep_ns(3000000); /* longer than the circuit rests */
        p->again_said = cession_store_remove(again, SPAN("x"), soon(), NULL);
    }
}

static int count_visits(void *context, cession_span key, cession_span value, int64_t expires)
{
    (void)key, (void)value, (void)expires;
    ++*(unsigned *)context;
    return CESSION_OK;
}

/* Every operation, on the key k, which holds v. */
static int call(cession_store *store, const char *operation, cession_stored *out)
{
    cession_expected v = {.value = SPAN("v")}, x = {.value = SPAN("x")};
    size_t purged = 0;
    unsigned visits = 0;
    cession_buf cursor;
    cession_buf_init(&cursor, 2000);
    int rc = CESSION_E_INTERNAL;
    if (strcmp(operation, "load") == 0) {
        rc = cession_store_load(store, SPAN("k"), 0, out, NULL);
    } else if (strcmp(operation, "create") == 0) {
        rc = cession_store_create(store, SPAN("new"), SPAN("n"), HOUR, 0, NULL);
    } else if (strcmp(operation, "replace") == 0) {
        rc = cession_store_replace(store, SPAN("k"), &x, SPAN("w"), HOUR, 0, out, NULL);
    } else if (strcmp(operation, "touch") == 0) {
        rc = cession_store_touch(store, SPAN("k"), &v, 2 * HOUR, 0, NULL);
    } else if (strcmp(operation, "remove") == 0) {
        rc = cession_store_remove(store, SPAN("gone"), 0, NULL);
    } else if (strcmp(operation, "purge") == 0) {
        rc = cession_store_purge(store, 5, 0, &purged, NULL);
    } else if (strcmp(operation, "scan") == 0) {
        rc = cession_store_scan(store, &cursor, 1, 0, count_visits, &visits, NULL);
    } else if (strcmp(operation, "maintain") == 0) {
        rc = cession_store_maintain(store, soon(), NULL);
    }
    cession_buf_release(&cursor);
    return rc;
}

static const char *const operations[] = {"load",   "create", "replace", "touch",
                                         "remove", "purge",  "scan",    "maintain"};
enum { OPERATIONS = sizeof operations / sizeof operations[0] };

static void test_fault(void)
{
    for (int i = 0; i < OPERATIONS; i++) {
        cession_store *inner = make_memory(NULL);
        plan p = {.operation = operations[i]};
        cession_store *store = NULL;
        cession_stored out;
        cession_stored_init(&out);
        CHECK_OK(cession_store_fault(inner, follow, &p, &store, NULL));
        CHECK_OK(cession_store_create(inner, SPAN("k"), SPAN("v"), HOUR, 0, NULL));
        CHECK_OK(cession_store_create(inner, SPAN("gone"), SPAN("v"), HOUR, 0, NULL));

        p.fault = (cession_fault){.before = CESSION_E_IO};
        CHECK_STATUS(call(store, operations[i], &out), CESSION_E_IO);
        CHECK_INT(out.value.len, 0);
        check_load(inner, "gone", "v"); /* nothing took effect */
        p.fault = (cession_fault){.after = CESSION_E_TIMEOUT};
        CHECK_STATUS(call(store, operations[i], &out), CESSION_E_TIMEOUT);
        CHECK_INT(out.value.len, 0);
        if (strcmp(operations[i], "create") == 0) {
            check_load(inner, "new", "n");
        }
        if (strcmp(operations[i], "remove") == 0) {
            CHECK_STATUS(cession_store_load(inner, SPAN("gone"), 0, &out, NULL), CESSION_NOT_FOUND);
        }
        p.fault = (cession_fault){.before = CESSION_GONE};
        CHECK_STATUS(call(store, operations[i], &out), CESSION_E_INVALID);
        p.fault = (cession_fault){0};
        CHECK(call(store, operations[i], &out) >= 0);
        CHECK_INT(p.asked, 4);
        cession_stored_release(&out);
        cession_store_close(store);
    }
}

typedef struct breaker_world {
    plan p;
    cession_store *faulty, *store;
} breaker_world;

static void breaker_begin(breaker_world *w, unsigned failures, int64_t retry_ms)
{
    *w = (breaker_world){0};
    CHECK_OK(cession_store_fault(make_memory(NULL), follow, &w->p, &w->faulty, NULL));
    CHECK_OK(cession_store_breaker(w->faulty, failures, retry_ms, &w->store, NULL));
}

static void test_breaker_opens_and_closes(void)
{
    cession_stored out;
    cession_stored_init(&out);
    for (int i = 0; i < OPERATIONS; i++) {
        breaker_world w;
        breaker_begin(&w, 3, 60000);
        w.p.fault.before = CESSION_E_UNAVAILABLE;
        for (int k = 0; k < 3; k++) {
            CHECK_STATUS(call(w.store, operations[i], &out), CESSION_E_UNAVAILABLE);
        }
        for (int k = 0; k < OPERATIONS; k++) {
            CHECK_STATUS(call(w.store, operations[k], &out), CESSION_E_CIRCUIT);
        }
        CHECK_INT(w.p.asked, 3);
        CHECK(!cession_store_maintenance_due(w.store));
        cession_store_close(w.store);

        breaker_begin(&w, 3, 1);
        w.p.fault.before = CESSION_E_UNAVAILABLE;
        for (int k = 0; k < 3; k++) {
            CHECK_STATUS(call(w.store, operations[i], &out), CESSION_E_UNAVAILABLE);
        }
        ces_sleep_ns(2000000);
        CHECK_STATUS(call(w.store, operations[i], &out), CESSION_E_UNAVAILABLE); /* a trial */
        CHECK_INT(w.p.asked, 4);
        ces_sleep_ns(2000000);
        w.p.fault.before = 0;
        CHECK(call(w.store, operations[i], &out) >= 0); /* closes it */
        w.p.fault.before = CESSION_E_UNAVAILABLE;
        for (int k = 0; k < 3; k++) { /* and the count starts anew */
            CHECK_STATUS(call(w.store, operations[i], &out), CESSION_E_UNAVAILABLE);
        }
        cession_store_close(w.store);
    }
    cession_stored_release(&out);
}

static void test_breaker_what_counts(void)
{
    static const struct {
        int status;
        bool counts, resets;
    } rows[] = {
        {CESSION_E_UNAVAILABLE, true, false}, {CESSION_E_TIMEOUT, true, false},
        {CESSION_E_IO, true, false},          {CESSION_E_PERMISSION, true, false},
        {CESSION_E_CALLBACK, true, false},    {CESSION_E_BUSY, false, false},
        {CESSION_E_INVALID, false, false},    {CESSION_E_LIMIT, false, false},
        {CESSION_E_NOMEM, false, false},      {CESSION_E_FORMAT, false, false},
        {CESSION_E_FORK, false, false},       {CESSION_OK, false, true},
        {CESSION_GONE, false, true},          {CESSION_CONFLICT, false, true},
    };
    cession_expected e = {.value = SPAN("v")};
    cession_stored out;
    cession_stored_init(&out);
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        cession_store fake = {.ops = &canned_ops};
        cession_store *store = NULL;
        CHECK_OK(cession_store_breaker(&fake, 3, 60000, &store, NULL));
        canned = CESSION_E_IO;
        for (int k = 0; k < 2; k++) {
            CHECK_STATUS(cession_store_remove(store, SPAN("k"), 0, NULL), CESSION_E_IO);
        }
        canned = rows[i].status;
        CHECK_STATUS(cession_store_replace(store, SPAN("k"), &e, SPAN("v"), 1, 0, &out, NULL),
                     canned);
        canned = CESSION_E_IO;
        CHECK_STATUS(cession_store_remove(store, SPAN("k"), 0, NULL),
                     rows[i].counts ? CESSION_E_CIRCUIT : CESSION_E_IO);
        CHECK_STATUS(cession_store_remove(store, SPAN("k"), 0, NULL),
                     rows[i].resets ? CESSION_E_IO : CESSION_E_CIRCUIT);
        cession_store_close(store);
    }
    cession_stored_release(&out);
}

static void test_breaker_one_trial(void)
{
    breaker_world w;
    breaker_begin(&w, 1, 1);
    w.p.fault.before = CESSION_E_IO;
    CHECK_STATUS(cession_store_remove(w.store, SPAN("k"), 0, NULL), CESSION_E_IO);
    ces_sleep_ns(2000000);
    /* While a trial with a deadline is under way there is no second one. */
    w.p.again = w.store;
    CHECK_STATUS(cession_store_remove(w.store, SPAN("k"), soon(), NULL), CESSION_E_IO);
    CHECK_STATUS(w.p.again_said, CESSION_E_CIRCUIT);
    /* A trial that was busy taught nothing: the next operation is one, too. */
    ces_sleep_ns(2000000);
    w.p.fault.before = CESSION_E_BUSY;
    CHECK_STATUS(cession_store_remove(w.store, SPAN("k"), 0, NULL), CESSION_E_BUSY);
    w.p.fault.before = 0;
    CHECK_OK(cession_store_remove(w.store, SPAN("k"), soon(), NULL));
    cession_store_close(w.store);

    cession_store *memory = make_memory(NULL), *store;
    CHECK_STATUS(cession_store_breaker(memory, 1, -1, &store, NULL), CESSION_E_INVALID);
    CHECK_STATUS(cession_store_breaker(memory, 1, INT64_MAX, &store, NULL), CESSION_E_INVALID);
    CHECK_STATUS(cession_store_breaker(NULL, 1, 1, &store, NULL), CESSION_E_INVALID);
    cession_store_close(memory);
}

typedef struct breaker_crowd {
    cession_store *store;
    pthread_barrier_t start;
    atomic_uint circuit, other;
} breaker_crowd;

static void *knock(void *context)
{
    breaker_crowd *c = context;
    for (int i = 0; i < 500; i++) {
        pthread_barrier_wait(&c->start);
        int rc = cession_store_remove(c->store, SPAN("k"), 0, NULL);
        atomic_fetch_add(rc == CESSION_E_CIRCUIT ? &c->circuit : &c->other, 1);
    }
    return NULL;
}

/* However many fail at the same time, the circuit opens and stays open. */
static void test_breaker_threads(void)
{
    cession_store fake = {.ops = &canned_ops};
    breaker_crowd c = {0};
    canned = CESSION_E_IO;
    CHECK_OK(cession_store_breaker(&fake, 100, 60000, &c.store, NULL));
    pthread_t threads[4];
    pthread_barrier_init(&c.start, NULL, 4);
    for (int i = 0; i < 4; i++) {
        REQUIRE(pthread_create(&threads[i], NULL, knock, &c) == 0);
    }
    for (int i = 0; i < 4; i++) {
        pthread_join(threads[i], NULL);
    }
    pthread_barrier_destroy(&c.start);
    CHECK_INT(c.circuit + c.other, 2000);
    CHECK(c.other >= 100 && c.other <= 103);
    cession_store_close(c.store);
}

static void test_decorators_forward_hints(void)
{
    cession_store *memory = make_memory(NULL);
    cession_store *chain = wrap_fault(wrap_breaker(wrap_trace(wrap_prefix(memory))));
    CHECK_INT(chain->caps, memory->caps);
    CHECK(!cession_store_maintenance_due(chain));
    cession_expected v = {.value = SPAN("v")};
    CHECK_OK(cession_store_create(chain, SPAN("k"), SPAN("v"), HOUR, 0, NULL));
    for (int i = 0; i < 5000; i++) {
        CHECK_OK(cession_store_touch(chain, SPAN("k"), &v, HOUR, 0, NULL));
    }
    CHECK(cession_store_maintenance_due(chain));
    CHECK_OK(cession_store_maintain(chain, soon(), NULL));
    CHECK(!cession_store_maintenance_due(chain));
    cession_store_close(chain);
}

/* ---- the pool --------------------------------------------------------------------- */

typedef struct pool_world {
    ces_pool *pool;
    atomic_int opened, closed, forgotten;
    int open_says;
    int handles[64];
} pool_world;

static int pool_open(void *context, cession_deadline deadline, void **ret_handle,
                     cession_error *err)
{
    pool_world *w = context;
    (void)deadline;
    if (w->open_says != CESSION_OK) {
        return cession_fail(err, w->open_says, "as told");
    }
    *ret_handle = &w->handles[atomic_fetch_add(&w->opened, 1)];
    return CESSION_OK;
}

static void pool_close(void *context, void *handle)
{
    pool_world *w = context;
    CHECK((int *)handle >= w->handles && (int *)handle < w->handles + 64);
    w->closed++;
}

static void pool_forget(void *context, void *handle)
{
    pool_world *w = context;
    CHECK((int *)handle >= w->handles && (int *)handle < w->handles + 64);
    w->forgotten++;
}

static void pool_begin(pool_world *w, size_t max, bool close_before_fork)
{
    memset(w, 0, sizeof *w);
    ces_pool_config config = {.max = max,
                              .open = pool_open,
                              .close = pool_close,
                              .forget = pool_forget,
                              .close_before_fork = close_before_fork,
                              .context = w};
    REQUIRE_OK(ces_pool_new(&config, &w->pool, NULL));
}

static void test_pool(void)
{
    pool_world w;
    pool_begin(&w, 2, true);
    void *a, *b, *c = NULL;
    CHECK_OK(ces_pool_take(w.pool, 0, &a, NULL));
    CHECK_OK(ces_pool_take(w.pool, 0, &b, NULL));
    CHECK(a != b);
    CHECK_STATUS(ces_pool_take(w.pool, 0, &c, NULL), CESSION_E_BUSY);
    CHECK_STATUS(ces_pool_take(w.pool, cession_deadline_in(5), &c, NULL), CESSION_E_TIMEOUT);
    CHECK(c == NULL);
    ces_pool_give(w.pool, a, true);
    ces_pool_give(w.pool, b, true);
    CHECK_OK(ces_pool_take(w.pool, 0, &c, NULL));
    CHECK(c == b); /* last in, first out */
    CHECK_INT(w.opened, 2);
    ces_pool_give(w.pool, c, false);
    CHECK_INT(w.closed, 1);
    CHECK_OK(ces_pool_take(w.pool, 0, &a, NULL));
    w.open_says = CESSION_E_UNAVAILABLE;
    for (int i = 0; i < 3; i++) { /* a failed open takes no place */
        CHECK_STATUS(ces_pool_take(w.pool, 0, &b, NULL), CESSION_E_UNAVAILABLE);
    }
    w.open_says = CESSION_OK;
    CHECK_OK(ces_pool_take(w.pool, 0, &b, NULL));
    ces_pool_give(w.pool, a, true);
    ces_pool_give(w.pool, b, true);
    ces_fork_quiesce();
    CHECK_INT(w.closed, 3);
    CHECK_OK(ces_pool_take(w.pool, 0, &a, NULL));
    CHECK_INT(w.opened, 4);
    ces_pool_give(w.pool, a, true);
    ces_pool_free(w.pool);
    CHECK_INT(w.closed, 4);
    ces_pool_free(NULL);
    ces_pool_config bad = {.max = 0};
    CHECK_STATUS(ces_pool_new(&bad, &w.pool, NULL), CESSION_E_INVALID);
}

static void *pool_work(void *context)
{
    pool_world *w = context;
    for (int i = 0; i < 2000; i++) {
        void *taken;
        if (!CHECK_OK(ces_pool_take(w->pool, soon(), &taken, NULL))) {
            break;
        }
        int *handle = taken;
        CHECK_INT(++*handle, 1); /* nobody else has it */
        --*handle;
        ces_pool_give(w->pool, taken, i % 500 != 0);
    }
    return NULL;
}

static void test_pool_threads(void)
{
    pool_world w;
    pthread_t threads[8];
    pool_begin(&w, 3, true);
    for (int i = 0; i < 8; i++) {
        REQUIRE(pthread_create(&threads[i], NULL, pool_work, &w) == 0);
    }
    for (int i = 0; i < 20; i++) {
        ces_fork_quiesce();
        ces_sleep_ns(200000);
    }
    for (int i = 0; i < 8; i++) {
        pthread_join(threads[i], NULL);
    }
    ces_pool_free(w.pool);
    CHECK_INT(w.opened, w.closed);
}

static int pool_in_child(void *context)
{
    pool_world *w = context;
    void *a, *b;
    int opened = w->opened, closed = w->closed;
    if (ces_pool_take(w->pool, 0, &a, NULL) != CESSION_OK || w->opened != opened + 1) {
        return 1; /* nothing is inherited */
    }
    if (ces_pool_take(w->pool, 0, &b, NULL) != CESSION_OK ||
        ces_pool_take(w->pool, 0, &a, NULL) != CESSION_E_BUSY) {
        return 2; /* and the child has all places */
    }
    ces_pool_give(w->pool, b, true);
    ces_pool_give(w->pool, a, true);
    ces_pool_free(w->pool);
    return w->closed == closed + 2 ? 0 : 3;
}

static void test_pool_fork(void)
{
    pool_world w;
    void *a;
    pool_begin(&w, 2, true);
    CHECK_OK(ces_pool_take(w.pool, 0, &a, NULL));
    ces_pool_give(w.pool, a, true);
    CHECK_INT(child_run(pool_in_child, &w), 0);
    CHECK_INT(w.closed, 1); /* before the fork */
    CHECK_OK(ces_pool_take(w.pool, 0, &a, NULL));
    ces_pool_give(w.pool, a, true);
    CHECK_INT(child_run(pool_in_child, &w), 0); /* a second time */
    ces_pool_free(w.pool);
}

static int dead_in_child(void *context)
{
    pool_world *w = context;
    void *a;
    int closed = w->closed;
    cession_error err = CESSION_ERROR_INIT;
    for (int i = 0; i < 2; i++) {
        if (ces_pool_take(w->pool, soon(), &a, &err) != CESSION_E_FORK || err.text[0] == '\0') {
            return 1;
        }
    }
    ces_pool_give(w->pool, &w->handles[0], true); /* the forking thread's own */
    if (ces_pool_take(w->pool, soon(), &a, &err) != CESSION_E_FORK) {
        return 2;
    }
    ces_pool_free(w->pool);
    return w->closed == closed ? 0 : 3;
}

/* Takes the five seconds that the pool waits. */
static void test_pool_fork_while_out(void)
{
    pool_world w;
    void *a, *b;
    pool_begin(&w, 2, true);
    CHECK_OK(ces_pool_take(w.pool, 0, &a, NULL));
    CHECK_OK(ces_pool_take(w.pool, 0, &b, NULL));
    ces_pool_give(w.pool, b, true);
    CHECK_INT(child_run(dead_in_child, &w), 0);
    CHECK_INT(w.closed, 1);                       /* the idle one */
    CHECK_OK(ces_pool_take(w.pool, 0, &b, NULL)); /* the parent goes on */
    ces_pool_give(w.pool, a, true);
    ces_pool_give(w.pool, b, true);
    ces_pool_free(w.pool);
    CHECK_INT(w.closed, 3);
}

static int forget_in_child(void *context)
{
    pool_world *w = context;
    if (w->forgotten != 1 || w->closed != 0) {
        return 1; /* the idle one, without a word on the wire */
    }
    ces_pool_give(w->pool, &w->handles[0], true); /* the forking thread's own */
    if (w->forgotten != 2) {
        return 2;
    }
    void *a;
    if (ces_pool_take(w->pool, 0, &a, NULL) != CESSION_OK || w->opened != 3) {
        return 3;
    }
    ces_pool_give(w->pool, a, true);
    ces_pool_free(w->pool);
    return w->closed == 1 ? 0 : 4;
}

static void test_pool_fork_network(void)
{
    pool_world w;
    void *a, *b;
    pool_begin(&w, 2, false);
    CHECK_OK(ces_pool_take(w.pool, 0, &a, NULL));
    CHECK_OK(ces_pool_take(w.pool, 0, &b, NULL));
    ces_pool_give(w.pool, b, true);
    CHECK_INT(child_run(forget_in_child, &w), 0);
    CHECK_INT(w.closed + w.forgotten, 0); /* the parent keeps its own */
    CHECK_OK(ces_pool_take(w.pool, 0, &b, NULL));
    CHECK_INT(w.opened, 2);
    ces_pool_give(w.pool, a, true);
    ces_pool_give(w.pool, b, true);
    ces_pool_free(w.pool);
}

/* ---- the memory driver ---------------------------------------------------------------- */

static int memory_in_child(void *context)
{
    cession_store *store = context;
    cession_expected one = {.value = SPAN("one")};
    cession_stored out;
    cession_stored_init(&out);
    if (cession_store_replace(store, SPAN("k"), &one, SPAN("child"), HOUR, 0, &out, NULL) !=
        CESSION_OK) {
        return 1;
    }
    cession_stored_release(&out);
    cession_store_close(store);
    return 0;
}

typedef struct memory_load {
    cession_store *store;
    atomic_bool stop;
} memory_load;

static void *memory_busy(void *context)
{
    memory_load *l = context;
    for (unsigned i = 0; !atomic_load(&l->stop); i++) {
        char key[32];
        snprintf(key, sizeof key, "busy %u", i % 1000);
        int rc = cession_store_create(l->store, cession_span_str(key), SPAN("x"), HOUR, 0, NULL);
        CHECK(rc == CESSION_OK || rc == CESSION_EXISTS);
        CHECK_OK(cession_store_remove(l->store, cession_span_str(key), 0, NULL));
    }
    return NULL;
}

static void test_memory_fork(void)
{
    memory_load l = {.store = make_memory(NULL)};
    pthread_t thread;
    CHECK_OK(cession_store_create(l.store, SPAN("k"), SPAN("one"), HOUR, 0, NULL));
    REQUIRE(pthread_create(&thread, NULL, memory_busy, &l) == 0);
    for (int i = 0; i < 10; i++) {
        CHECK_INT(child_run(memory_in_child, l.store), 0);
    }
    atomic_store(&l.stop, true);
    pthread_join(thread, NULL);
    check_load(l.store, "k", "one");
    cession_store_close(l.store);
}

static void test_memory_forgets_the_dead(void)
{
    /* Growth drops what is expired, so that they do not pile up unpurged. */
    cession_store *store = make_memory(NULL);
    char key[32];
    for (int round = 0; round < 20; round++) {
        for (int i = 0; i < 2000; i++) {
            snprintf(key, sizeof key, "%d %d", round, i);
            CHECK_OK(cession_store_create(store, cession_span_str(key), SPAN("x"), 1, 0, NULL));
        }
        ces_sleep_ns(2000000);
    }
    size_t count = 0;
    CHECK_OK(cession_store_purge(store, 1000000, 0, &count, NULL));
    CHECK_MSG(count < 10000, "%zu of 40000 left", count);
    cession_store_close(store);
}

/* ---- the registry ----------------------------------------------------------------------- */

static void check_url(const char *url, int expected, const char *in_text)
{
    cession_store *store = NULL;
    cession_error err = CESSION_ERROR_INIT;
    int rc = cession_store_open_url(url, &store, &err);
    CHECK_MSG(rc == expected, "%s: %s %s", url, cession_status_name(rc), err.text);
    if (in_text != NULL) {
        CHECK_MSG(strstr(err.text, in_text) != NULL, "%s: %s", url, err.text);
    }
    CHECK(strstr(err.text, "secret") == NULL);
    cession_store_close(store);
}

static void test_urls(void)
{
    check_url("memory:", CESSION_OK, NULL);
    check_url("memory://", CESSION_OK, NULL);
    check_url("MEMORY:", CESSION_OK, NULL);
    check_url("memory:path", CESSION_E_INVALID, "memory:");
    check_url("memory:?secret=1", CESSION_E_INVALID, "no options");
    check_url("memory", CESSION_E_INVALID, "memory, sqlite");
    check_url("", CESSION_E_INVALID, NULL);
    check_url(":", CESSION_E_UNSUPPORTED, NULL);
    check_url("mongodb://:secret@host/0", CESSION_E_UNSUPPORTED, "memory, sqlite");
    check_url("sqlite:", CESSION_E_INVALID, "no path");
    check_url("sqlite://", CESSION_E_INVALID, "no path");
    check_url("sqlite://secret/path", CESSION_E_INVALID, "three slashes");
    check_url("sqlite:///", CESSION_E_INVALID, "path to a file");
    check_url("sqlite::memory:", CESSION_E_INVALID, "memory store");
    check_url("sqlite:file", CESSION_OK, NULL);
    check_url("sqlite:/absolute/file", CESSION_OK, NULL);
    check_url("sqlite:///absolute/file?synchronous=full&max_handles=4", CESSION_OK, NULL);
    check_url("sqlite:///absolute/file?", CESSION_OK, NULL);
    check_url("sqlite:f?synchronous=FULL", CESSION_OK, NULL);
    check_url("sqlite:f?synchronous=secret", CESSION_E_INVALID, "normal or full");
    check_url("sqlite:f?timeout=secret", CESSION_E_INVALID,
              "path, synchronous, max_handles and keys");
    check_url("sqlite:f?keys=text", CESSION_OK, NULL);
    check_url("sqlite:f?keys=hashed", CESSION_OK, NULL);
    check_url("sqlite:f?keys=secret", CESSION_E_INVALID, "text or hashed");
    check_url("sqlite:f?path=secret", CESSION_E_INVALID, "twice");
    check_url("sqlite:f?max_handles=0", CESSION_E_INVALID, "1 to 64");
    check_url("sqlite:f?max_handles=65", CESSION_E_INVALID, "1 to 64");
    check_url("sqlite:f?max_handles=-1", CESSION_E_INVALID, "1 to 64");
    check_url("sqlite:f?max_handles=3x", CESSION_E_INVALID, "1 to 64");
    check_url("sqlite:f?max_handles=", CESSION_E_INVALID, "1 to 64");
    check_url("sqlite:f?max_handles=99999999999999999999", CESSION_E_INVALID, "1 to 64");
    check_url("sqlite:f?m%61x_handles=%34", CESSION_OK, NULL);
    check_url("sqlite:f?secret", CESSION_E_INVALID, "name=value");
    check_url("sqlite:f?=secret", CESSION_E_INVALID, "name=value");
    check_url("sqlite:f?&", CESSION_E_INVALID, "name=value");
    check_url("sqlite:f%", CESSION_E_INVALID, "hexadecimal");
    check_url("sqlite:f%4", CESSION_E_INVALID, "hexadecimal");
    check_url("sqlite:f%4?max_handles=4", CESSION_E_INVALID, "hexadecimal");
    check_url("sqlite:f%zz", CESSION_E_INVALID, "hexadecimal");
    check_url("sqlite:f%00secret", CESSION_E_INVALID, "NUL");
    check_url("sqlite:f#secret", CESSION_E_INVALID, "%23");
    char *url = malloc(20000);
    memset(url, 'x', 19999);
    url[19999] = '\0';
    memcpy(url, "sqlite:", 7);
    check_url(url, CESSION_E_LIMIT, NULL);
    url[6000] = '\0';
    check_url(url, CESSION_E_LIMIT, "path");
    char *at = url + sprintf(url, "sqlite:f?x=1");
    for (int i = 0; i < 40; i++) {
        at += sprintf(at, "&x%d=1", i);
    }
    check_url(url, CESSION_E_LIMIT, "options");
    free(url);

    cession_store *store = NULL;
    CHECK_STATUS(cession_store_open_url(NULL, &store, NULL), CESSION_E_INVALID);
    CHECK_STATUS(cession_store_open(NULL, NULL, 0, &store, NULL), CESSION_E_INVALID);
    CHECK_STATUS(cession_store_open("memory", NULL, 1, &store, NULL), CESSION_E_INVALID);
    CHECK_STATUS(cession_store_open("memory", NULL, 0, NULL, NULL), CESSION_E_INVALID);
    CHECK_STATUS(cession_store_open("no", NULL, 0, &store, NULL), CESSION_E_UNSUPPORTED);
    cession_option no_value = {.name = "path"}, no_name = {.value = "x"};
    CHECK_STATUS(cession_store_open("sqlite", &no_value, 1, &store, NULL), CESSION_E_INVALID);
    CHECK_STATUS(cession_store_open("sqlite", &no_name, 1, &store, NULL), CESSION_E_INVALID);
    CHECK_STATUS(cession_store_open("sqlite", NULL, 0, &store, NULL), CESSION_E_INVALID);
    CHECK(ces_driver_find("SQLite") == &ces_driver_sqlite);
    CHECK(ces_driver_find("sqlit") == NULL);
}

/* Odd characters in a path arrive in the file system as they were meant. */
static void test_url_path(void)
{
    char url[8192];
    const char *path = scratch_path("a b%c#d?e=f&g+h.sqlite3");
    const char *encoded = scratch_path("a%20b%25c%23d%3Fe=f&g+h.sqlite3");
    snprintf(url, sizeof url, "sqlite://%s?max_handles=2", encoded);
    cession_store *store = NULL;
    REQUIRE_OK(cession_store_open_url(url, &store, NULL));
    struct stat st;
    CHECK(stat(path, &st) != 0); /* not before it is used */
    CHECK_OK(cession_store_create(store, SPAN("k"), SPAN("v"), HOUR, soon(), NULL));
    CHECK(stat(path, &st) == 0);
    cession_store_close(store);
}

/* ---- memory that runs out ------------------------------------------------------------------ */

static void use(cession_store *store)
{
    cession_stored out;
    cession_stored_init(&out);
    cession_expected v = {.value = SPAN("v")}, x = {.value = SPAN("x")};
    size_t count;
    unsigned visits = 0;
    cession_buf cursor;
    cession_buf_init(&cursor, 2000);
    int rc[] = {
        cession_store_create(store, SPAN("k"), SPAN("v"), HOUR, soon(), NULL),
        cession_store_load(store, SPAN("k"), soon(), &out, NULL),
        cession_store_replace(store, SPAN("k"), &v, SPAN("v"), HOUR, soon(), &out, NULL),
        cession_store_replace(store, SPAN("k"), &x, SPAN("v"), HOUR, soon(), &out, NULL),
        cession_store_touch(store, SPAN("k"), &v, HOUR, soon(), NULL),
        cession_store_touch(store, SPAN("k"), &v, HOUR / 2, soon(), NULL),
        cession_store_purge(store, 10, soon(), &count, NULL),
        cession_store_scan(store, &cursor, 10, soon(), count_visits, &visits, NULL),
        cession_store_maintain(store, soon(), NULL),
        cession_store_remove(store, SPAN("k"), soon(), NULL),
    };
    bool failed = false;
    for (size_t i = 0; i < sizeof rc / sizeof rc[0]; i++) {
        CHECK(rc[i] >= 0 || (failing_alloc_fired() && rc[i] == CESSION_E_NOMEM));
        failed |= rc[i] < 0;
    }
    CHECK(failed || !failing_alloc_fired());
    cession_buf_release(&cursor);
    cession_stored_release(&out);
}

static void test_out_of_memory(void)
{
    for (int kind = 0; kind < 2; kind++) {
        const char *path = scratch_path(kind == 0 ? "unused" : "nomem.sqlite3");
        char url[8192];
        snprintf(url, sizeof url, kind == 0 ? "memory:" : "sqlite://%s", path);
        FAILING_ALLOC_LOOP(n)
        {
            cession_store *store = NULL, *next = NULL;
            int rc = cession_store_open_url(url, &store, NULL);
            if (rc == CESSION_OK) {
                rc = cession_store_prefix(store, SPAN("app:"), &next, NULL);
                store = rc == CESSION_OK ? next : store;
            }
            if (rc == CESSION_OK) {
                rc = cession_store_trace(store, &next, NULL);
                store = rc == CESSION_OK ? next : store;
            }
            if (rc == CESSION_OK) {
                rc = cession_store_fault(store, no_fault, NULL, &next, NULL);
                store = rc == CESSION_OK ? next : store;
            }
            if (rc == CESSION_OK) {
                rc = cession_store_breaker(store, 0, 0, &next, NULL);
                store = rc == CESSION_OK ? next : store;
            }
            if (rc == CESSION_OK) {
                use(store);
            } else {
                CHECK(failing_alloc_fired());
                CHECK_STATUS(rc, CESSION_E_NOMEM);
            }
            cession_store_close(store);
        }
    }
}

/* Growth that fails leaves what is there, and works when there is memory again. */
static void test_out_of_memory_growing(void)
{
    cession_store *store = NULL;
    failing_alloc_install();
    REQUIRE_OK(cession_store_open("memory", NULL, 0, &store, NULL));
    char key[32];
    for (int i = 0; i < 2000; i++) {
        snprintf(key, sizeof key, "%d", i);
        for (size_t nth = 0;; nth++) {
            failing_alloc_arm(nth);
            int rc = cession_store_create(store, cession_span_str(key), cession_span_str(key), HOUR,
                                          0, NULL);
            if (rc == CESSION_OK) {
                break;
            }
            if (!CHECK_STATUS(rc, CESSION_E_NOMEM)) {
                break;
            }
        }
    }
    failing_alloc_arm(SIZE_MAX);
    for (int i = 0; i < 2000; i++) {
        snprintf(key, sizeof key, "%d", i);
        check_load(store, key, key);
    }
    cession_store_close(store);
    CHECK_INT(failing_alloc_live(), 0);
    failing_alloc_uninstall();
}

static const harness_test tests[] = {
    HARNESS_TEST(deadlines),
    HARNESS_TEST(wrappers_judge_answers),
    HARNESS_TEST(wrappers_check_the_table),
    HARNESS_TEST(prefix),
    HARNESS_TEST(trace),
    HARNESS_TEST(fault),
    HARNESS_TEST(breaker_opens_and_closes),
    HARNESS_TEST(breaker_what_counts),
    HARNESS_TEST(breaker_one_trial),
    HARNESS_TEST(breaker_threads),
    HARNESS_TEST(decorators_forward_hints),
    HARNESS_TEST(pool),
    HARNESS_TEST(pool_threads),
    HARNESS_TEST(pool_fork),
    HARNESS_TEST(pool_fork_while_out),
    HARNESS_TEST(pool_fork_network),
    HARNESS_TEST(memory_fork),
    HARNESS_TEST(memory_forgets_the_dead),
    HARNESS_TEST(urls),
    HARNESS_TEST(url_path),
    HARNESS_TEST(out_of_memory),
    HARNESS_TEST(out_of_memory_growing),
    HARNESS_TEST(contract_memory),
    HARNESS_TEST(contract_prefix_memory),
    HARNESS_TEST(contract_breaker_memory),
    HARNESS_TEST(contract_fault_memory),
    HARNESS_TEST(contract_sqlite),
    HARNESS_TEST(contract_sqlite_full),
    HARNESS_TEST(contract_prefix_sqlite),
    HARNESS_TEST(contract_trace_sqlite),
    HARNESS_TEST(contract_chain),
};
HARNESS_MAIN(tests)
