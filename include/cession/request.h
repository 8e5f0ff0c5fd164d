/* One session in one request of a web program: from the Cookie header to Set-Cookie.
 *
 *     cession_app_new(&config, &app, &err)               once per process
 *     cession_request_open(app, cookie header, &r, &err) no I/O
 *     cession_request_get(r, "user", &value, &err)       the first use loads: one read
 *     cession_request_set_item(r, "seen", &item, &err)   no I/O
 *     cession_request_commit(r, NULL, &err)              at most one write, mostly
 *     cession_request_cookie(r, &buf, &err)              a Set-Cookie, or none
 *     cession_request_free(r)
 *
 * It shares live sessions with a Flask application that has the same store, key
 * prefix, keys and cookie: what one commits, the next request of the other reads.
 *
 * Caveats first:
 * - Whoever does not commit changes nothing. Changes of others to other keys are
 *   kept (merged) by a commit; of one key that both changed, the later commit wins.
 * - A session that was logged out elsewhere is not created again: the commit
 *   says `lost`, and no cookie is to be set.
 * - Without a valid cookie the session is new: nothing is stored and no cookie
 *   set until something is set in it and committed.
 * - The store's values must be MessagePack, as with the default of
 *   SESSION_SERIALIZATION_FORMAT; of tagged JSON, loading is E_UNSUPPORTED.
 * - Threads: a cession_app is immutable and may be shared; a cession_request
 *   belongs to one thread at a time.
 * - Fork: as the store (cession/store.h).
 * - Spans that come out live until the next call that changes, commits or frees
 *   the request. Errors never contain ids, keys or values.
 * - A failed load is final: every later call on the request says E_STATE.
 */
#ifndef CESSION_REQUEST_H
#define CESSION_REQUEST_H

#include <stdbool.h>
#include <stdint.h>

#include "cession/buf.h"
#include "cession/codec.h"
#include "cession/cookie.h"
#include "cession/error.h"
#include "cession/item.h"
#include "cession/session.h"
#include "cession/store.h"

#ifdef __cplusplus
extern "C" {
#endif

/* ---- the application --------------------------------------------------------- */

/* What the Flask application has in its configuration. Zero is Flask's default
 * everywhere but for `store`. */
typedef struct cession_app_config {
    cession_store *store;     /* borrowed, must outlive the app; wrapped by cession_store_prefix
                                 with SESSION_KEY_PREFIX ("session:" unless the app says else) */
    const cession_span *keys; /* SECRET_KEY, then SECRET_KEY_FALLBACKS in their order: the first
                                 signs, all verify. Copied. May be NULL without use_signer */
    size_t key_count;
    bool use_signer;     /* SESSION_USE_SIGNER */
    bool not_permanent;  /* SESSION_PERMANENT is False: new sessions end with the browser */
    bool no_refresh;     /* SESSION_REFRESH_EACH_REQUEST is False */
    size_t sid_bytes;    /* SESSION_ID_LENGTH; 0: 32 */
    int64_t lifetime_ms; /* PERMANENT_SESSION_LIFETIME; 0: 31 days */
    int64_t touch_ms;    /* SESSION_TOUCH_INTERVAL; 0: a twentieth of the lifetime, at most 60 s */
    int64_t timeout_ms;  /* SESSION_STORE_TIMEOUT, for one load or one commit; 0: 2,000 */
    bool raise_on_conflict;           /* SESSION_CONFLICT is "raise": commit says E_CONFLICT */
    cession_cookie_attributes cookie; /* its texts are copied */
} cession_app_config;

typedef struct cession_app cession_app;

/* OK; E_INVALID with a text that says what is wrong; E_NOMEM, E_CRYPTO. */
CESSION_API int cession_app_new(const cession_app_config *config, cession_app **ret_app,
                                cession_error *err) CESSION_MUST_CHECK;
/* No request of it may be left. The store stays the caller's. NULL is fine. */
CESSION_API void cession_app_free(cession_app *app);

/* ---- opening ------------------------------------------------------------------ */

typedef struct cession_request cession_request;

/* From the value of the request's Cookie header (HTTP_COOKIE in CGI); an empty
 * span: there is none. No I/O; the header is not kept. A cookie that is missing,
 * malformed or not signed as configured gives a new session, never an error. OK,
 * E_NOMEM, E_CRYPTO, E_RANDOM. */
CESSION_API int cession_request_open(const cession_app *app, cession_span cookie_header,
                                     cession_request **ret_request,
                                     cession_error *err) CESSION_MUST_CHECK;
/* The same from the value of the session cookie alone. */
CESSION_API int cession_request_open_value(const cession_app *app, cession_span cookie_value,
                                           cession_request **ret_request,
                                           cession_error *err) CESSION_MUST_CHECK;
/* Drops what was not committed. NULL is fine. */
CESSION_API void cession_request_free(cession_request *request);

/* ---- reading ------------------------------------------------------------------ */

/* Read the session from the store, unless that was done: every function below
 * that has an `err` begins with it, so calling it is optional. OK also where there
 * is no such session. Negative: the store's error; E_UNSUPPORTED: not MessagePack. */
CESSION_API int cession_request_load(cession_request *request,
                                     cession_error *err) CESSION_MUST_CHECK;
/* Once loaded: the store holds no such session. (True for a session that was
 * replaced by another id a moment ago, too.) */
CESSION_API bool cession_request_is_new(const cession_request *request);
/* Once loaded: `session.permanent`. */
CESSION_API bool cession_request_is_permanent(const cession_request *request);
/* The session was looked at: the response is to say `Vary: Cookie`, and no shared
 * cache may keep it. */
CESSION_API bool cession_request_was_accessed(const cession_request *request);

/* The value of a top-level key (UTF-8) as one encoded item, to be read with
 * cession_item_read. OK; NOT_FOUND: no such key. */
CESSION_API int cession_request_get(cession_request *request, const char *key,
                                    cession_span *ret_value, cession_error *err) CESSION_MUST_CHECK;
/* All top-level entries in their order, keys and values as encoded items;
 * CESSION_PERMANENT_KEY is among them. *ret_entries may be NULL when there are none. */
CESSION_API int cession_request_entries(cession_request *request, const cession_entry **ret_entries,
                                        size_t *ret_count, cession_error *err) CESSION_MUST_CHECK;

/* ---- changing ----------------------------------------------------------------- */

/* All of these change this copy of the session only; cession_request_commit
 * stores it. On failure the copy is as before. */

/* Set a top-level key (UTF-8) to one encoded item, copied. OK, E_NOMEM, E_LIMIT;
 * E_INVALID: not exactly one valid item, or a key that is not UTF-8 or reserved
 * (CESSION_META_KEY). */
CESSION_API int cession_request_set(cession_request *request, const char *key, cession_span value,
                                    cession_error *err) CESSION_MUST_CHECK;
/* The same with an item that is no array or map. */
CESSION_API int cession_request_set_item(cession_request *request, const char *key,
                                         const cession_item *item,
                                         cession_error *err) CESSION_MUST_CHECK;
/* Delete a key. OK; NOT_FOUND: it was not there. */
CESSION_API int cession_request_unset(cession_request *request, const char *key,
                                      cession_error *err) CESSION_MUST_CHECK;
/* Delete everything but the permanent mark: log out. The commit removes the
 * session from the store, whatever others changed, and deletes the cookie. */
CESSION_API int cession_request_clear(cession_request *request,
                                      cession_error *err) CESSION_MUST_CHECK;
/* Set `session.permanent`: whether the cookie outlives the browser. */
CESSION_API int cession_request_set_permanent(cession_request *request, bool permanent,
                                              cession_error *err) CESSION_MUST_CHECK;
/* Another id for the same data, at login and every other change of privilege: at
 * the commit the old id becomes worthless. */
CESSION_API int cession_request_regenerate(cession_request *request,
                                           cession_error *err) CESSION_MUST_CHECK;

/* ---- the end ------------------------------------------------------------------ */

/* Decide what the store has to do, as Flask's save_session would, and do it; see
 * cession_session_commit. A session that was not loaded costs nothing. OK:
 * *ret_outcome is set (may be NULL); look at its `lost`. Negative: nothing was
 * decided, no cookie may be set, the same commit may be tried again. */
CESSION_API int cession_request_commit(cession_request *request, cession_outcome *ret_outcome,
                                       cession_error *err) CESSION_MUST_CHECK;
/* After the commit: append the value of the Set-Cookie header that the response
 * must carry. OK; NOT_FOUND: none. E_NOMEM, E_LIMIT, E_CRYPTO. */
CESSION_API int cession_request_cookie(const cession_request *request, cession_buf *out,
                                       cession_error *err) CESSION_MUST_CHECK;

#ifdef __cplusplus
}
#endif
#endif
