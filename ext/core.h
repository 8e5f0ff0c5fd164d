/* What the files of the extension share: module state, object layouts, and the
 * functions that cross files. The only floor that includes Python.h.
 *
 * GIL: every function here needs it. It is released in exactly one place,
 * store_gil.c. Objects are only changed with the GIL held; the C session inside
 * a cx_session is used by one thread at a time through cx_core_enter/leave,
 * because a store operation may give the GIL away in the middle.
 */
#ifndef CX_CORE_H
#define CX_CORE_H

#define PY_SSIZE_T_CLEAN
#include <Python.h>
#include <stdbool.h>
#include <stdint.h>

#include "attr.h"
#include "cession/cession.h"
#include "codec.h"

/* X(name): strings used as attribute and key names, interned once. */
/* clang-format off */
#define CX_NAMES(X)                                                                               \
    X(accessed) X(acquire) X(add) X(app) X(APPLICATION_ROOT) X(cache_control) X(capabilities)     \
    X(config) X(cookies) X(copy) X(create) X(delete_cookie) X(domain) X(emit) X(environ)          \
    X(expires) X(format) X(_generate_sid) X(get) X(get_cookie_domain) X(get_cookie_httponly)      \
    X(get_cookie_name) X(get_cookie_partitioned) X(get_cookie_path) X(get_cookie_samesite)        \
    X(get_cookie_secure) X(get_expiration_time) X(get_ident) X(headers) X(HTTP_COOKIE)            \
    X(httponly) X(_import_cookie) X(is_null_session) X(items) X(keys) X(_list) X(load) X(Lock)    \
    X(made_private) X(name) X(null_session_class) X(open_session) X(partitioned) X(path)          \
    X(_permanent) X(PERMANENT_SESSION_LIFETIME) X(permanent) X(permanent_session_lifetime)        \
    X(private) X(purge) X(receivers) X(regenerate) X(release) X(remove) X(replace) X(request)     \
    X(s_maxage) X(samesite) X(save_session) X(scan) X(secret_key) X(secure) X(serializer)         \
    X(_session) X(session_class) X(SESSION_COOKIE_DOMAIN) X(SESSION_COOKIE_HTTPONLY)              \
    X(SESSION_COOKIE_NAME) X(SESSION_COOKIE_PARTITIONED) X(SESSION_COOKIE_PATH)                   \
    X(SESSION_COOKIE_SAMESITE) X(SESSION_COOKIE_SECURE) X(session_interface)                      \
    X(SESSION_REFRESH_EACH_REQUEST) X(set_cookie) X(should_set_cookie) X(should_set_storage)      \
    X(sid) X(sid_length) X(signals) X(store_failed) X(touch) X(_unavailable) X(vary)
/* clang-format on */

/* X(name): events, in the order of cx_interface.counts. */
/* clang-format off */
#define CX_EVENTS(X)                                                                              \
    X(created) X(loaded) X(saved) X(touched) X(conflict) X(lost) X(regenerated) X(removed)        \
    X(rejected) X(store_error) X(made_private)
/* clang-format on */

typedef enum cx_event {
#define CX_EVENT_ENUM(name) CX_EV_##name,
    CX_EVENTS(CX_EVENT_ENUM)
#undef CX_EVENT_ENUM
        CX_EV_COUNT
} cx_event;

typedef struct cx_state {
    PyTypeObject *session_type;
    PyTypeObject *interface_type;
    PyTypeObject *store_type;
    PyObject *store_error, *conflict_error, *config_error;
    PyObject *threading;   /* module: Lock and get_ident are looked up late (gevent) */
    PyObject *context_var; /* flask.globals._cv_request (or what replaced it), NULL: none */
    PyObject *timedelta_type;
    PyObject *lifetime_attr; /* Flask's own permanent_session_lifetime, or NULL */
    PyObject *not_loaded;    /* what stands in the storage of a session without content */
    /* What the shortcuts of headers.c rely on; NULL: this werkzeug has no such thing. */
    PyObject *request_type, *response_type, *headers_type, *dump_cookie;
    PyObject *cookie_key, *vary_key, *set_cookie_key; /* names of headers */
    PyObject *event_names[CX_EV_COUNT];
    /* dict's own methods, for what PyDict_... does not offer */
    PyObject *dict_update, *dict_pop, *dict_popitem, *dict_setdefault, *dict_clear;
    PyObject *dict_keys, *dict_values, *dict_items, *dict_reversed, *dict_getitem;
    uint8_t hash_salt[32]; /* of the sid hashes in events; fresh per process start */
    cx_codec_state codec;
    struct {
#define CX_NAME_FIELD(name) PyObject *name;
        CX_NAMES(CX_NAME_FIELD)
#undef CX_NAME_FIELD
    } s;
} cx_state;

extern struct PyModuleDef cx_module_def;
/* The state of the module that made type (or a base of it). NULL + exception. */
cx_state *cx_state_of_type(PyTypeObject *type);
static inline cx_state *cx_state_of(PyObject *module)
{
    return (cx_state *)PyModule_GetState(module);
}

/* ---- errors.c -------------------------------------------------------------- */

int cx_errors_add(PyObject *module, cx_state *state);
/* Turn a negative status into an exception and return NULL. A Python exception
 * that is already set becomes the cause (or stays, when it is none of
 * Exception's: KeyboardInterrupt, GreenletExit). */
PyObject *cx_raise(cx_state *state, int status, const cession_error *err);

/* ---- store ------------------------------------------------------------------ */

/* What a store is put together of, each part owned by the outermost one; NULL: none. */
typedef struct cx_parts {
    cession_store *trace;             /* counts */
    cession_store *bare;              /* may be called without the GIL; NULL for Python stores */
    cession_store *choice;            /* between a driver and an adapter */
    const char *name;                 /* of the driver; static */
    PyObject *adapter;                /* of a wrapped store */
    PyObject *check;                  /* of choice */
    struct cx_maintainer *maintainer; /* of bare; this one is the cx_store's own */
    /* Of a store that moves records: the decorator, and three of the other store's. */
    cession_store *migrate, *other_trace;
    const char *other_name;
    PyObject *other_adapter;
} cx_parts;

typedef struct cx_store {
    PyObject_HEAD
    cession_store *store; /* outermost: prefix(trace(gil(breaker(driver)))); NULL once closed */
    Py_ssize_t users;     /* flows over it and operations under way; then it is not closed */
    cx_parts in;
} cx_store;

int cx_store_add(PyObject *module, cx_state *state);
/* store_py.c: a store whose operations are methods of `adapter` (contract.py). */
int cx_store_py_new(cx_state *state, PyObject *adapter, cession_store **ret_store);
/* store_gil.c: the one place that releases the GIL. Takes ownership of inner on
 * success. */
int cx_store_gil_new(cession_store *inner, cession_store **ret_store, cession_error *err);
/* store_switch.c: native while check() is True, other from then on. Takes ownership of both
 * stores on success; name is static. */
int cx_store_switch_new(const char *name, cession_store *native, cession_store *other,
                        PyObject *check, cession_store **ret_store, cession_error *err);
bool cx_store_switch_aside(const cession_store *store); /* of one that _new made */
/* maintain.c: after a commit; starts background maintenance when it is due.
 * Costs one atomic read otherwise. */
void cx_store_maintain_soon(cx_store *store);
void cx_maintainer_free(struct cx_maintainer *maintainer); /* waits for it to end */

/* ---- interface ---------------------------------------------------------------- */

/* Which methods of the interface's class are ours. */
typedef struct cx_overrides {
    unsigned type_version; /* tp_version_tag when computed; 0: compute again */
    bool lazy_unsafe; /* open_session, save_session, is_null_session or a should_... is not ours */
    bool should_set_cookie, should_set_storage, generate_sid;
    bool getters;    /* one of get_cookie_... is not Flask's */
    bool expiration; /* get_expiration_time is not Flask's */
} cx_overrides;

#define CX_COOKIE_INPUTS 8
typedef enum cx_cookie_kind {
    CX_COOKIE_SESSION = 0, /* without an expiry */
    CX_COOKIE_EXPIRES,
    CX_COOKIE_DELETED,
    CX_COOKIE_KINDS
} cx_cookie_kind;

/* A Set-Cookie line as werkzeug wrote it, cut where value and expiry go. */
typedef struct cx_cookie_template {
    PyObject *head, *middle, *tail;     /* ASCII str; NULL: none yet */
    PyObject *inputs[CX_COOKIE_INPUTS]; /* the configuration it was made from */
} cx_cookie_template;

/* A flow, and what it borrows. A session keeps the one it was opened with when the
 * serializer is replaced meanwhile. */
typedef struct cx_flow {
    Py_ssize_t refs; /* under the GIL */
    cession_flow *flow;
    cx_flow_codec codec;
    cx_store *store;
} cx_flow;

typedef struct cx_interface {
    PyObject_HEAD
    cx_state *state;
    cx_store *store; /* NULL until configured */
    PyObject *session_class;
    PyObject *events;     /* emit(name, app, sid_hash, info) */
    PyObject *no_args;    /* () */
    PyObject *signals;    /* dict: event name -> blinker signal, or NULL */
    PyObject *defaults;   /* dict: method name -> the package's own function, or NULL */
    PyObject *key_prefix; /* str; for Python only, the store adds it by itself */
    cx_flow *flow;
    PyTypeObject *serializer_class; /* ours, which stands for our own formats; or NULL */
    cession_signer *signer;         /* cached for signer_secret and signer_fallbacks */
    PyObject *signer_secret, *signer_fallbacks;
    cx_overrides overrides;
    cx_cookie_template cookie_template[CX_COOKIE_KINDS];
    int64_t timeout_ms, touch_interval_ms;
    uint64_t counts[CX_EV_COUNT];
    bool permanent, use_signer, lazy, strict_types, plain_session_class, raise_on_conflict;
    bool imports_cookies; /* _import_cookie is asked about cookies that hold no id */
    char on_store_error;  /* 'r' raise, 'e' empty, '5' 503 */
    Py_ssize_t sid_length;
} cx_interface;

int cx_interface_add(PyObject *module, cx_state *state);
/* interface_type.c: overrides of self's class, computed anew when it changed. */
int cx_interface_overrides(cx_interface *self);
cx_flow *cx_flow_ref(cx_flow *flow);
void cx_flow_unref(cx_flow *flow); /* NULL is fine */
/* errors.c: raise the SessionStoreError `error` as SESSION_ON_STORE_ERROR says, as it is
 * or as the 503 that Flask knows how to answer. */
void cx_raise_failure(cx_interface *self, PyObject *error);

/* ---- session -------------------------------------------------------------------- */

typedef enum cx_load_state {
    CX_LOADED = 0, /* zero: a session made by hand is usable */
    CX_UNLOADED,
    CX_FAILED
} cx_load_state;

typedef struct cx_session {
    PyDictObject dict;
    cx_state *state;
    cx_interface *interface; /* NULL for a session made by hand */
    PyObject *app;
    cession_session *core; /* NULL for a session made by hand */
    cx_flow *flow;         /* of core */
    PyObject *sid;         /* str, None, or NULL: ask core */
    PyObject *stored_sid;  /* str: the id before a regenerate() that is not saved, or NULL */
    PyObject *failure;     /* the exception of a failed load, raised again on every use */
    PyObject *waiters;     /* lock on which other threads wait for core, or NULL */
    PyObject *weakrefs;
    uintptr_t owner; /* who works on core; 0: nobody */
    uint8_t load_state;
    uint8_t pending_cookie; /* cession_cookie of an explicit save(), for the response */
    bool accessed, modified;
    bool was_permanent; /* at load or last save */
    bool old_signature;
    bool degraded;    /* the store failed and SESSION_ON_STORE_ERROR is "empty" */
    bool save_failed; /* nothing more is stored and no cookie is set */
    bool lost;        /* the store holds it no longer: no cookie for it */
} cx_session;

int cx_session_add(PyObject *module, cx_state *state);
static inline bool cx_session_check(cx_state *state, PyObject *obj)
{
    return PyObject_TypeCheck(obj, state->session_type);
}
/* Loaded, or an exception. Every slot asks this first. */
int cx_session_load_slow(cx_session *self);
/* Mark the empty storage of a session that has no content yet. 0, or -1 with an
 * exception. */
int cx_session_mark(cx_session *self);
static inline int cx_session_ensure(cx_session *self)
{
    return self->load_state == CX_LOADED ? 0 : cx_session_load_slow(self);
}
/* Take and give back the C session; a second thread waits, the same one gets a
 * RuntimeError (its own store met the session again). */
int cx_core_enter(cx_session *self);
void cx_core_leave(cx_session *self);
/* Nothing but _permanent in the dict. */
bool cx_session_empty(cx_session *self);
/* The value of _permanent: 1, 0, or -1 with an exception. */
int cx_session_permanent(cx_session *self);

/* open.c */
PyObject *cx_open_session(cx_interface *self, PyObject *app, PyObject *request);
/* Attach a fresh C session for the current sid to self (reload). */
int cx_session_reopen(cx_session *self);
/* The signer for app's keys, cached; NULL without exception when there is no
 * secret key. */
int cx_interface_signer(cx_interface *self, PyObject *app, const cession_signer **ret_signer);

/* save.c */
int cx_save_session(cx_interface *self, PyObject *app, cx_session *session, PyObject *response);
/* Commit now, without a response; the cookie is remembered for it. */
int cx_session_commit_now(cx_session *self);

/* headers.c: shortcuts. 1: done; 0: not certain to be the same, take the Python way; -1:
 * exception. config is app.config. */
int cx_fast_cookie(cx_interface *self, PyObject *config, PyObject *request, PyObject **ret_value);
int cx_fast_vary(cx_state *state, PyObject *response);
/* expires_in_us: microseconds from now, negative: no Expires. */
int cx_fast_set_cookie(cx_interface *self, PyObject *config, PyObject *response, PyObject *text,
                       int64_t expires_in_us);
int cx_fast_delete_cookie(cx_interface *self, PyObject *config, PyObject *response);

/* cookie.c: what a response gets. */
int cx_response_vary(cx_state *state, PyObject *response);
int cx_response_set_cookie(cx_interface *self, PyObject *app, cx_session *session,
                           PyObject *response);
int cx_response_delete_cookie(cx_interface *self, PyObject *app, PyObject *response);

/* events.c: count, and tell whoever listens. Exceptions of receivers propagate
 * as -1 (blinker's semantics). */
int cx_emit(cx_interface *self, PyObject *app, cx_event event, const char *sid, size_t sid_len,
            PyObject *info);

/* ids.c: generate_sid, sign, unsign, sid_hash, fork_quiesce as module functions */
extern PyMethodDef cx_ids_methods[];

/* Seconds of a Python number as milliseconds, rounded up; -1 + exception. */
int cx_seconds_to_ms(PyObject *seconds, int64_t *ret_ms);
/* A timedelta as microseconds; -1 + exception. */
int cx_timedelta_to_us(cx_state *state, PyObject *delta, int64_t *ret_us);
/* Whether config[key] is what the dict holds: a subclass (Flask's Config is one) may answer in
 * its own way. */
bool cx_plain_config(const cx_state *state, PyObject *config);
/* app.permanent_session_lifetime, which must be above zero; -1 + exception. */
int cx_lifetime_us(cx_state *state, PyObject *app, int64_t *ret_us);

#endif
