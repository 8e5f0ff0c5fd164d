/* Decorator: makes operations fail as a plan says, before or after they took
 * effect. For tests of what stands above a store. */
#include "cession/store.h"

#include "base/alloc.h"
#include "base/banned.h"

typedef struct fault_store {
    cession_store base;
    cession_store *inner;
    cession_fault_fn *plan;
    void *context;
} fault_store;

static const cession_store_ops fault_ops;

static fault_store *self_of(cession_store *store)
{
    return (fault_store *)store;
}

static cession_fault ask(const fault_store *self, const char *operation)
{
    cession_fault fault = {0, 0};
    self->plan(self->context, operation, &fault);
    return fault;
}

/* Only errors can be injected: an answer such as CONFLICT would promise outputs. */
static int inject(int code, const char *operation, cession_error *err)
{
    if (code > 0) {
        return cession_fail(err, CESSION_E_INVALID, "%s is not an error that can be injected",
                            cession_status_name(code));
    }
    return cession_fail(err, code, "injected into %s: %s", operation, cession_status_message(code));
}

static void fault_close(cession_store *store)
{
    fault_store *self = self_of(store);
    cession_store_close(self->inner);
    ces_free(self);
}

static int fault_load(cession_store *store, cession_span key, cession_deadline deadline,
                      cession_stored *ret_stored, cession_error *err)
{
    fault_store *self = self_of(store);
    cession_fault fault = ask(self, "load");
    if (fault.before != 0) {
        return inject(fault.before, "load", err);
    }
    if (fault.after == 0) {
        return cession_store_load(self->inner, key, deadline, ret_stored, err);
    }
    cession_stored unseen;
    cession_stored_init(&unseen);
    int rc = cession_store_load(self->inner, key, deadline, &unseen, err);
    cession_stored_release(&unseen);
    return rc < 0 ? rc : inject(fault.after, "load", err);
}

static int fault_create(cession_store *store, cession_span key, cession_span value, int64_t ttl_ms,
                        cession_deadline deadline, cession_error *err)
{
    fault_store *self = self_of(store);
    cession_fault fault = ask(self, "create");
    if (fault.before != 0) {
        return inject(fault.before, "create", err);
    }
    int rc = cession_store_create(self->inner, key, value, ttl_ms, deadline, err);
    return fault.after == 0 || rc < 0 ? rc : inject(fault.after, "create", err);
}

static int fault_replace(cession_store *store, cession_span key, const cession_expected *expected,
                         cession_span value, int64_t ttl_ms, cession_deadline deadline,
                         cession_stored *ret_current, cession_error *err)
{
    fault_store *self = self_of(store);
    cession_fault fault = ask(self, "replace");
    if (fault.before != 0) {
        return inject(fault.before, "replace", err);
    }
    if (fault.after == 0) {
        return cession_store_replace(self->inner, key, expected, value, ttl_ms, deadline,
                                     ret_current, err);
    }
    cession_stored unseen;
    cession_stored_init(&unseen);
    int rc = cession_store_replace(self->inner, key, expected, value, ttl_ms, deadline, &unseen,
                                   err);
    cession_stored_release(&unseen);
    return rc < 0 ? rc : inject(fault.after, "replace", err);
}

static int fault_touch(cession_store *store, cession_span key, const cession_expected *expected,
                       int64_t ttl_ms, cession_deadline deadline, cession_error *err)
{
    fault_store *self = self_of(store);
    cession_fault fault = ask(self, "touch");
    if (fault.before != 0) {
        return inject(fault.before, "touch", err);
    }
    int rc = cession_store_touch(self->inner, key, expected, ttl_ms, deadline, err);
    return fault.after == 0 || rc < 0 ? rc : inject(fault.after, "touch", err);
}

static int fault_remove(cession_store *store, cession_span key, cession_deadline deadline,
                        cession_error *err)
{
    fault_store *self = self_of(store);
    cession_fault fault = ask(self, "remove");
    if (fault.before != 0) {
        return inject(fault.before, "remove", err);
    }
    int rc = cession_store_remove(self->inner, key, deadline, err);
    return fault.after == 0 || rc < 0 ? rc : inject(fault.after, "remove", err);
}

static int fault_purge(cession_store *store, size_t limit, cession_deadline deadline,
                       size_t *ret_count, cession_error *err)
{
    fault_store *self = self_of(store);
    cession_fault fault = ask(self, "purge");
    if (fault.before != 0) {
        return inject(fault.before, "purge", err);
    }
    size_t count = 0;
    int rc = cession_store_purge(self->inner, limit, deadline, &count, err);
    if (fault.after != 0 && rc >= 0) {
        return inject(fault.after, "purge", err);
    }
    if (rc == CESSION_OK) {
        *ret_count = count;
    }
    return rc;
}

static int fault_scan(cession_store *store, cession_buf *cursor, size_t batch,
                      cession_deadline deadline, cession_scan_fn *visit, void *context,
                      cession_error *err)
{
    fault_store *self = self_of(store);
    cession_fault fault = ask(self, "scan");
    if (fault.before != 0) {
        return inject(fault.before, "scan", err);
    }
    int rc = cession_store_scan(self->inner, cursor, batch, deadline, visit, context, err);
    return fault.after == 0 || rc < 0 ? rc : inject(fault.after, "scan", err);
}

static int fault_maintain(cession_store *store, cession_deadline deadline, cession_error *err)
{
    fault_store *self = self_of(store);
    cession_fault fault = ask(self, "maintain");
    if (fault.before != 0) {
        return inject(fault.before, "maintain", err);
    }
    int rc = cession_store_maintain(self->inner, deadline, err);
    return fault.after == 0 || rc < 0 ? rc : inject(fault.after, "maintain", err);
}

static bool fault_maintenance_due(const cession_store *store)
{
    return cession_store_maintenance_due(((const fault_store *)store)->inner);
}

static const cession_store_ops fault_ops = {
    .abi = CESSION_STORE_ABI,
    .size = sizeof(cession_store_ops),
    .name = "fault",
    .close = fault_close,
    .load = fault_load,
    .create = fault_create,
    .replace = fault_replace,
    .touch = fault_touch,
    .remove = fault_remove,
    .purge = fault_purge,
    .scan = fault_scan,
    .maintain = fault_maintain,
    .maintenance_due = fault_maintenance_due,
};

int cession_store_fault(cession_store *inner, cession_fault_fn *plan, void *context,
                        cession_store **ret_store, cession_error *err)
{
    if (inner == NULL || plan == NULL || ret_store == NULL) {
        return cession_fail(err, CESSION_E_INVALID, NULL);
    }
    fault_store *self = ces_alloc(sizeof *self);
    if (self == NULL) {
        return cession_fail(err, CESSION_E_NOMEM, NULL);
    }
    *self = (fault_store){
        .base = {.ops = &fault_ops, .caps = inner->caps},
        .inner = inner,
        .plan = plan,
        .context = context,
    };
    *ret_store = &self->base;
    return CESSION_OK;
}
