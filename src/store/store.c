/* The wrappers of the contract: the only code that calls through a driver's
 * table. They see to it that a driver never gets an argument outside the
 * contract and that a caller never gets an answer outside it. */
#include "cession/store.h"

#include "base/os.h"
#include "base/banned.h"

/* A hundred years: far above any lifetime, far below an overflow of now + ttl. */
#define TTL_MAX_MS (INT64_C(100) * 366 * 24 * 3600 * 1000)
#define NS_PER_MS INT64_C(1000000)

cession_deadline cession_deadline_in(int64_t ms)
{
    if (ms <= 0) {
        return 0;
    }
    int64_t now = ces_mono_ns();
    if (ms > (INT64_MAX - now) / NS_PER_MS) {
        return INT64_MAX;
    }
    return now + ms * NS_PER_MS;
}

int64_t cession_deadline_left_ms(cession_deadline deadline)
{
    if (deadline <= 0) {
        return 0;
    }
    int64_t left = deadline - ces_mono_ns();
    if (left <= 0) {
        return 0;
    }
    return left / NS_PER_MS + (left % NS_PER_MS != 0);
}

int64_t cession_now_ms(void)
{
    return ces_now_ms();
}

void cession_stored_init(cession_stored *stored)
{
    cession_buf_init(&stored->value, CESSION_VALUE_MAX);
    stored->version_len = 0;
    stored->expires_at_ms = CESSION_EXPIRES_UNKNOWN;
}

void cession_stored_release(cession_stored *stored)
{
    if (stored == NULL) {
        return;
    }
    cession_buf_release(&stored->value);
    stored->version_len = 0;
    stored->expires_at_ms = CESSION_EXPIRES_UNKNOWN;
}

/* ---- what goes in --------------------------------------------------------- */

static int check_store(const cession_store *store, cession_error *err)
{
    if (store == NULL || store->ops == NULL) {
        return cession_fail(err, CESSION_E_INVALID, "no store was given");
    }
    if (store->ops->abi != CESSION_STORE_ABI || store->ops->size != sizeof(cession_store_ops)) {
        return cession_fail(err, CESSION_E_ABI, NULL);
    }
    return CESSION_OK;
}

static bool span_ok(cession_span span)
{
    return span.data != NULL || span.len == 0;
}

static int check_key(const cession_store *store, cession_span key, cession_error *err)
{
    int rc = check_store(store, err);
    if (rc != CESSION_OK) {
        return rc;
    }
    if (key.data == NULL || key.len == 0) {
        return cession_fail(err, CESSION_E_INVALID, "the key is empty");
    }
    size_t max = store->ops->key_max != 0 ? store->ops->key_max : CESSION_KEY_MAX;
    if (key.len > max) {
        return cession_fail(err, CESSION_E_LIMIT, "the key has %zu bytes, %s takes at most %zu",
                            key.len, store->ops->name, max);
    }
    return CESSION_OK;
}

static int check_value(const cession_store *store, cession_span value, cession_error *err)
{
    if (!span_ok(value)) {
        return cession_fail(err, CESSION_E_INVALID, "no value was given");
    }
    size_t max = store->ops->value_max != 0 ? store->ops->value_max : CESSION_VALUE_MAX;
    if (value.len > max) {
        return cession_fail(err, CESSION_E_LIMIT, "the value has %zu bytes, %s takes at most %zu",
                            value.len, store->ops->name, max);
    }
    return CESSION_OK;
}

static int check_ttl(int64_t ttl_ms, cession_error *err)
{
    if (ttl_ms <= 0 || ttl_ms > TTL_MAX_MS) {
        return cession_fail(err, CESSION_E_INVALID,
                            "the lifetime must be above 0 and at most 100 years");
    }
    return CESSION_OK;
}

static int check_expected(const cession_expected *expected, cession_error *err)
{
    if (expected == NULL || !span_ok(expected->value) || !span_ok(expected->version)) {
        return cession_fail(err, CESSION_E_INVALID, "the expected record is not given");
    }
    if (expected->version.len > CESSION_VERSION_MAX) {
        return cession_fail(err, CESSION_E_INVALID, "the expected version has more than %u bytes",
                            CESSION_VERSION_MAX);
    }
    return CESSION_OK;
}

static int no_output(cession_error *err)
{
    return cession_fail(err, CESSION_E_INVALID, "no place for the answer was given");
}

static int unsupported(const cession_store *store, const char *what, cession_error *err)
{
    return cession_fail(err, CESSION_E_UNSUPPORTED, "the %s store cannot %s", store->ops->name,
                        what);
}

/* ---- what comes out ------------------------------------------------------- */

#define ANSWER(status) (1u << (status))

/* Drivers include code of other people (adapters over client objects): an answer
 * outside the contract must not reach the commit logic, and an error must not
 * come without a text. */
static int judge(const cession_store *store, int status, unsigned answers, cession_error *err)
{
    if (status == CESSION_OK) {
        return status;
    }
    if (status < 0) {
        if (err != NULL && err->code != status) {
            cession_fail(err, status, NULL);
        }
        return status;
    }
    if (status < 32 && (answers & ANSWER(status)) != 0) {
        return status;
    }
    return cession_fail(err, CESSION_E_INTERNAL,
                        "the %s store answered %s, which is no answer here", store->ops->name,
                        cession_status_name(status));
}

/* ---- operations ----------------------------------------------------------- */

void cession_store_close(cession_store *store)
{
    if (store != NULL) {
        store->ops->close(store);
    }
}

int cession_store_load(cession_store *store, cession_span key, cession_deadline deadline,
                       cession_stored *ret_stored, cession_error *err)
{
    int rc = check_key(store, key, err);
    if (rc != CESSION_OK) {
        return rc;
    }
    if (ret_stored == NULL) {
        return no_output(err);
    }
    rc = store->ops->load(store, key, deadline, ret_stored, err);
    return judge(store, rc, ANSWER(CESSION_NOT_FOUND), err);
}

int cession_store_create(cession_store *store, cession_span key, cession_span value, int64_t ttl_ms,
                         cession_deadline deadline, cession_error *err)
{
    int rc;
    if ((rc = check_key(store, key, err)) != CESSION_OK ||
        (rc = check_value(store, value, err)) != CESSION_OK ||
        (rc = check_ttl(ttl_ms, err)) != CESSION_OK) {
        return rc;
    }
    rc = store->ops->create(store, key, value, ttl_ms, deadline, err);
    return judge(store, rc, ANSWER(CESSION_EXISTS), err);
}

int cession_store_replace(cession_store *store, cession_span key, const cession_expected *expected,
                          cession_span value, int64_t ttl_ms, cession_deadline deadline,
                          cession_stored *ret_current, cession_error *err)
{
    int rc;
    if ((rc = check_key(store, key, err)) != CESSION_OK ||
        (rc = check_expected(expected, err)) != CESSION_OK ||
        (rc = check_value(store, value, err)) != CESSION_OK ||
        (rc = check_ttl(ttl_ms, err)) != CESSION_OK) {
        return rc;
    }
    if (ret_current == NULL) {
        return no_output(err);
    }
    rc = store->ops->replace(store, key, expected, value, ttl_ms, deadline, ret_current, err);
    return judge(store, rc, ANSWER(CESSION_CONFLICT) | ANSWER(CESSION_GONE), err);
}

int cession_store_touch(cession_store *store, cession_span key, const cession_expected *expected,
                        int64_t ttl_ms, cession_deadline deadline, cession_error *err)
{
    int rc;
    if ((rc = check_key(store, key, err)) != CESSION_OK ||
        (rc = check_expected(expected, err)) != CESSION_OK ||
        (rc = check_ttl(ttl_ms, err)) != CESSION_OK) {
        return rc;
    }
    rc = store->ops->touch(store, key, expected, ttl_ms, deadline, err);
    return judge(store, rc, ANSWER(CESSION_CHANGED) | ANSWER(CESSION_GONE), err);
}

int cession_store_remove(cession_store *store, cession_span key, cession_deadline deadline,
                         cession_error *err)
{
    int rc = check_key(store, key, err);
    if (rc != CESSION_OK) {
        return rc;
    }
    return judge(store, store->ops->remove(store, key, deadline, err), 0, err);
}

int cession_store_purge(cession_store *store, size_t limit, cession_deadline deadline,
                        size_t *ret_count, cession_error *err)
{
    int rc = check_store(store, err);
    if (rc != CESSION_OK) {
        return rc;
    }
    if (limit == 0) {
        return cession_fail(err, CESSION_E_INVALID, "the limit of a purge must be above 0");
    }
    if (ret_count == NULL) {
        return no_output(err);
    }
    if (store->ops->purge == NULL) {
        return unsupported(store, "purge: its records expire by themselves", err);
    }
    return judge(store, store->ops->purge(store, limit, deadline, ret_count, err), 0, err);
}

/* A visitor may end a scan with any value of its own; judging the answer would
 * forbid the positive ones. */
int cession_store_scan(cession_store *store, cession_buf *cursor, size_t batch,
                       cession_deadline deadline, cession_scan_fn *visit, void *context,
                       cession_error *err)
{
    int rc = check_store(store, err);
    if (rc != CESSION_OK) {
        return rc;
    }
    if (batch == 0) {
        return cession_fail(err, CESSION_E_INVALID, "the batch of a scan must be above 0");
    }
    if (cursor == NULL || visit == NULL) {
        return no_output(err);
    }
    if (store->ops->scan == NULL) {
        return unsupported(store, "list its records", err);
    }
    return store->ops->scan(store, cursor, batch, deadline, visit, context, err);
}

int cession_store_maintain(cession_store *store, cession_deadline deadline, cession_error *err)
{
    int rc = check_store(store, err);
    if (rc != CESSION_OK) {
        return rc;
    }
    if (store->ops->maintain == NULL) {
        return unsupported(store, "maintain: there is nothing to do", err);
    }
    return judge(store, store->ops->maintain(store, deadline, err), 0, err);
}

bool cession_store_maintenance_due(const cession_store *store)
{
    return check_store(store, NULL) == CESSION_OK && store->ops->maintenance_due != NULL &&
           store->ops->maintenance_due(store);
}
