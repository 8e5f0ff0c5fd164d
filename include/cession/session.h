/* Sessions: ids, signatures, and the life of one session in one request.
 *
 *     flow = cession_flow_new(config)              once per process and store
 *     s    = cession_session_open(flow, sid)       no I/O
 *            cession_session_load(s)               one store read
 *            cession_session_value(s)              bytes to decode
 *            cession_session_commit(s, new bytes)  decide, compare-and-set, merge
 *            cession_session_free(s)
 *
 * Caveats first:
 * - A client's id is never adopted: an unknown, expired, malformed or tampered
 *   sid gives a new empty session with a new sid, never an error.
 * - A session that vanished (logout elsewhere) is never re-created.
 * - Threads: a cession_flow may be shared; a cession_session belongs to one
 *   thread at a time, the caller serializes.
 * - Fork: nothing here holds state that a fork breaks; see store.h for stores.
 * - Errors never contain the sid or session data.
 */
#ifndef CESSION_SESSION_H
#define CESSION_SESSION_H

#include <stdbool.h>
#include <stdint.h>

#include "cession/buf.h"
#include "cession/codec.h"
#include "cession/error.h"
#include "cession/store.h"

#ifdef __cplusplus
extern "C" {
#endif

/* ---- ids ---------------------------------------------------------------- */

#define CESSION_SID_MIN 16u        /* characters a valid sid has at least */
#define CESSION_SID_MAX 256u       /* and at most */
#define CESSION_SID_BYTES_MIN 16u  /* entropy, bytes */
#define CESSION_SID_BYTES_MAX 192u /* 192 bytes are 256 characters */
#define CESSION_SID_BYTES_DEFAULT 32u

/* entropy_bytes random bytes as unpadded base64url (RFC 4648, section 5),
 * NUL-terminated; *ret_len without the terminator. E_INVALID outside the
 * limits, E_RANDOM when the system gives none. Any thread; safe after fork. */
CESSION_API int cession_sid_generate(size_t entropy_bytes, char ret_sid[CESSION_SID_MAX + 1],
                                     size_t *ret_len, cession_error *err);
/* 16 to 256 characters of [A-Za-z0-9_-]; with any_printable 1 to 256 of
 * printable ASCII without space, ", comma, ; and \ (an application's own ids). */
CESSION_API bool cession_sid_valid(cession_span sid, bool any_printable);

/* ---- signatures ---------------------------------------------------------- */

#define CESSION_SIGNED_MAX 512u /* bytes of a signed value: sid, dot, signature */

/* Compatible with itsdangerous.Signer(key, salt="flask-session",
 * key_derivation="hmac"), digest SHA-1: value "." base64url(HMAC(k, value)),
 * k = HMAC(key, salt). keys[0] signs; all verify. Immutable, any thread. */
typedef struct cession_signer cession_signer;
CESSION_API int cession_signer_new(const cession_span *keys, size_t count,
                                   cession_signer **ret_signer, cession_error *err);
CESSION_API void cession_signer_free(cession_signer *signer); /* wipes the keys */
/* Append the signed value to out; E_LIMIT when it would be longer than CESSION_SIGNED_MAX. */
CESSION_API int cession_signer_sign(const cession_signer *signer, cession_span value,
                                    cession_buf *out, cession_error *err);
/* OK: *ret_value lies in `signed_value`, *ret_key is the index of the key that
 * made it (0: the current one). NOT_FOUND: no key fits. Constant time. */
CESSION_API int cession_signer_verify(const cession_signer *signer, cession_span signed_value,
                                      cession_span *ret_value, size_t *ret_key, cession_error *err);

/* ---- the decision --------------------------------------------------------- */

/* What is true at the end of a request. Plain data: the decision is a pure
 * function of it, tested as a table. */
typedef struct cession_facts {
    bool accessed; /* the application looked at the session */
    bool is_new;   /* the store holds no record for this sid */
    bool empty;    /* nothing but _permanent */
    bool changed;  /* the canonical bytes differ from what was loaded */
    bool modified; /* the application says so, or wrote to the top level */
    bool permanent;
    bool permanence_changed;
    bool sid_changed;   /* regenerated in this request */
    bool old_signature; /* the cookie was signed with a fallback key, or not as configured */
    bool unknown_sid;   /* the request brought a sid that the store did not know */
    bool retired;       /* a tombstone was found */
    bool lost;          /* GONE was answered before: the session is dead */
    bool touch_due;
    bool refresh; /* SESSION_REFRESH_EACH_REQUEST */
} cession_facts;

typedef enum cession_action {
    CESSION_ACT_NONE = 0,
    CESSION_ACT_TOUCH,
    CESSION_ACT_CREATE,
    CESSION_ACT_REPLACE,
    CESSION_ACT_REMOVE,
    CESSION_ACT_REGENERATE, /* create the new record, retire the old one */
    CESSION_ACT_DROP        /* what was written is lost: retired or gone */
} cession_action;

typedef enum cession_cookie {
    CESSION_COOKIE_NONE = 0, /* no Set-Cookie at all */
    CESSION_COOKIE_SET,
    CESSION_COOKIE_DELETE
} cession_cookie;

/* Which store operation the facts ask for. */
CESSION_API cession_action cession_decide_action(const cession_facts *facts);
/* The cookie once the store has answered status to action. */
CESSION_API cession_cookie cession_decide_cookie(const cession_facts *facts, cession_action action,
                                                 int status);
/* A touch is due when the expiry lies outside lifetime +- interval from now.
 * interval_ms < 0: min(lifetime/20, 60 s). Unknown or no expiry: due. */
CESSION_API bool cession_touch_due(int64_t now_ms, int64_t expires_at_ms, int64_t lifetime_ms,
                                   int64_t interval_ms);

/* ---- flow ---------------------------------------------------------------- */

typedef int cession_generate_sid_fn(void *context, char ret_sid[CESSION_SID_MAX + 1],
                                    size_t *ret_len, cession_error *err);

typedef struct cession_flow_config {
    cession_store *store;                  /* borrowed; must outlive the flow */
    const cession_codec *codec;            /* borrowed; NULL: MessagePack */
    size_t sid_bytes;                      /* entropy of new ids; 0: CESSION_SID_BYTES_DEFAULT */
    cession_generate_sid_fn *generate_sid; /* NULL: cession_sid_generate */
    void *generate_context;
    bool any_printable_sid;    /* ids of the application's own shape */
    int64_t touch_interval_ms; /* < 0: the default rule */
    int64_t tombstone_ttl_ms;  /* 0: 30,000 */
    bool raise_on_conflict;    /* both changed one key: E_CONFLICT instead of "mine" */
    bool caller_validates;     /* load skips the full check of a value: the caller decodes it
                                  and calls cession_session_reject when that fails */
    int64_t (*now_ms)(void);   /* tests; NULL: cession_now_ms */
} cession_flow_config;

typedef struct cession_flow cession_flow;
CESSION_API int cession_flow_new(const cession_flow_config *config, cession_flow **ret_flow,
                                 cession_error *err);
CESSION_API void cession_flow_free(cession_flow *flow);

typedef struct cession_session cession_session;

/* Start a session for the sid that the client sent (empty span: none). No I/O.
 * A syntactically impossible sid counts as none. The sid must already be
 * unsigned. With no usable sid the session is new and loaded at once. */
CESSION_API int cession_session_open(cession_flow *flow, cession_span sid,
                                     cession_session **ret_session, cession_error *err);
CESSION_API void cession_session_free(cession_session *session);

/* Read the record: at most one store operation, none when already loaded.
 * OK also for unknown, expired and malformed records: the session is then new
 * (cession_session_is_new). Negative: the store failed; the session is failed
 * from then on, commit and value refuse with E_STATE. But E_BUSY to a deadline of
 * 0 changes nothing: load again with time to wait. */
CESSION_API int cession_session_load(cession_session *session, cession_deadline deadline,
                                     cession_error *err) CESSION_MUST_CHECK;

/* The caller could not decode what load gave: treat it as no session (new sid,
 * empty, `rejected` in the outcome). */
CESSION_API int cession_session_reject(cession_session *session, cession_error *err);

/* Borrowed until the next call on the session. sid: NUL-terminated. value: the
 * application's part as loaded (metadata stripped), in a format the codec's
 * canonical() reads; empty span for a new or retired session. */
CESSION_API const char *cession_session_sid(const cession_session *session, size_t *ret_len);
CESSION_API cession_span cession_session_value(const cession_session *session);
CESSION_API bool cession_session_is_new(const cession_session *session);
CESSION_API bool cession_session_is_loaded(const cession_session *session);
CESSION_API bool cession_session_is_retired(const cession_session *session);
CESSION_API bool cession_session_was_rejected(const cession_session *session);
/* The request brought a well-formed sid that the store did not know. */
CESSION_API bool cession_session_sid_unknown(const cession_session *session);

/* Say what the application is based on: the canonical encoding of the decoded
 * value. Optional; without it a base that is not canonical is made so by the
 * codec when it is needed. Copies, unless it is the very span that
 * cession_session_value gave: that says that these bytes are canonical. */
CESSION_API int cession_session_set_base(cession_session *session, cession_span canonical,
                                         cession_error *err) CESSION_MUST_CHECK;

/* Replace the sid at the next commit: new record first, then the old one by
 * compare-and-set into a tombstone. No I/O now; cession_session_sid is the new
 * one at once. Twice in one request: the first old sid is the one retired. A new
 * session only gets another sid; on a retired or lost one nothing happens. */
CESSION_API int cession_session_regenerate(cession_session *session, cession_error *err);

typedef struct cession_commit {
    cession_span mine; /* canonical encoding of the session now, without metadata;
                          may be empty when it was not accessed */
    bool accessed, modified, empty, permanent, permanence_changed;
    bool old_signature;        /* see cession_facts */
    bool refresh;              /* SESSION_REFRESH_EACH_REQUEST */
    bool force_store;          /* write even when equal (an overridden should_set_storage); counts
                                  as accessed, does not make a record for an empty new session */
    bool never_store;          /* the application's own rule says no: no operation, no cookie */
    int64_t lifetime_ms;       /* > 0 */
    cession_deadline deadline; /* for all store operations of this commit together */
} cession_commit;

typedef struct cession_outcome {
    cession_action action;
    int status; /* the store's last answer, OK when none was asked */
    cession_cookie cookie;
    unsigned conflicts; /* keys that both sides changed */
    bool merged;        /* another request's changes were mixed in */
    bool lost;          /* what was written is dropped: gone, retired */
} cession_outcome;

/* Decide and do. OK: *ret_outcome is set and the session is ready for a second
 * commit (what was written is the new base; after REMOVE it is new, and what is
 * written then gets another sid; after `lost` everything is dropped). A cookie
 * that an outcome asks for stays the caller's to send: a second commit knows
 * nothing of it. The sid may change in a commit (the one it had was taken): ask
 * for it afterwards.
 * Negative: nothing is known about the store beyond the error; no cookie may be
 * set; the session is as before and the same commit may be tried again. E_BUSY to
 * a deadline of 0 asks for just that, with time to wait: a commit that created
 * the new record of a regenerate remembers it for the next one. E_CONFLICT only
 * with raise_on_conflict. E_TIMEOUT when merging did not succeed in time. */
CESSION_API int cession_session_commit(cession_session *session, const cession_commit *commit,
                                       cession_outcome *ret_outcome,
                                       cession_error *err) CESSION_MUST_CHECK;

#ifdef __cplusplus
}
#endif
#endif
