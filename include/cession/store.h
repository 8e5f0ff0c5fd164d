/* The store contract: what a backend must do, worded on the function typedefs.
 *
 * A store maps a key (bytes, valid UTF-8, may contain any character) to a value
 * (opaque bytes) that expires. The session layer above never assumes more than
 * is written here; `memory` (src/drivers/memory.c) is the commented reference.
 *
 * Caveats first:
 * - Lifetimes are relative milliseconds (ttl_ms > 0), expiries are absolute
 *   Unix milliseconds in UTC. A backend with coarser time rounds ttl UP.
 * - An expired record counts as missing in every operation, swept or not.
 * - Deadlines are absolute CLOCK_MONOTONIC nanoseconds (cession_deadline_in);
 *   0 means "do not wait": an operation that would have to wait answers
 *   E_BUSY. Where any I/O takes place the deadline bounds it.
 * - Threads: every operation may be called by many threads at once on one
 *   store. open and close may not overlap with anything.
 * - Fork: a store opened before fork() may be used in parent and child; the
 *   driver reopens what cannot be shared. E_FORK when it could not be closed
 *   in time.
 * - Outputs come last and stay untouched unless the return value says they are
 *   set. Inputs are never NULL unless said so. No operation logs, spawns
 *   threads or touches a record that it was not asked about.
 */
#ifndef CESSION_STORE_H
#define CESSION_STORE_H

#include <stdbool.h>
#include <stdint.h>

#include "cession/buf.h"
#include "cession/error.h"

#ifdef __cplusplus
extern "C" {
#endif

/* Changes when struct cession_store_ops or the meaning of an operation changes. */
#define CESSION_STORE_ABI 1u

#define CESSION_VERSION_MAX 32u                 /* bytes of an opaque record version */
#define CESSION_KEY_MAX 1024u                   /* bytes of a key, prefix included */
#define CESSION_VALUE_MAX (64u * 1024u * 1024u) /* bytes of a value */

/* Special values of cession_stored.expires_at_ms. */
#define CESSION_EXPIRES_UNKNOWN (-1) /* the store cannot tell */
#define CESSION_EXPIRES_NEVER (-2)   /* stored without expiry: live, and due for a touch */

/* Capabilities, constant for a store's life. */
enum {
    CESSION_CAP_NATIVE_TTL =
        1u << 0, /* expired records vanish by themselves; purge is not needed */
    CESSION_CAP_GIVES_EXPIRY = 1u << 1, /* load tells expires_at_ms */
    CESSION_CAP_ATOMIC = 1u << 2,       /* create, replace and touch are one atomic step */
    CESSION_CAP_LISTABLE = 1u << 3,     /* scan works */
    CESSION_CAP_FAST = 1u << 4, /* an unhindered operation is microseconds of in-process work */
    CESSION_CAP_HASHED_KEYS = 1u << 5, /* scan gives hashes, not the keys that were stored */
    CESSION_CAP_MAINTAIN = 1u << 6     /* maintain has work to do now and then */
};

typedef int64_t cession_deadline;

/* The deadline ms milliseconds from now; ms <= 0 gives 0 (do not wait). */
CESSION_API cession_deadline cession_deadline_in(int64_t ms);
/* Milliseconds left, 0 when passed or when the deadline is 0; rounded up. */
CESSION_API int64_t cession_deadline_left_ms(cession_deadline deadline);
/* Wall clock, Unix milliseconds. */
CESSION_API int64_t cession_now_ms(void);

/* A record as it lies in the store. Start with cession_stored_init, free with
 * cession_stored_release; may be reused for the next call. */
typedef struct cession_stored {
    cession_buf value;
    uint8_t version[CESSION_VERSION_MAX]; /* opaque to callers, handed back in cession_expected */
    size_t version_len;                   /* 0: the store compares by value only */
    int64_t expires_at_ms;                /* Unix ms, or CESSION_EXPIRES_... */
} cession_stored;

CESSION_API void cession_stored_init(cession_stored *stored);
CESSION_API void cession_stored_release(cession_stored *stored);

/* What the caller believes the store holds. A driver compares by value or by
 * version, whichever its store does in one operation; when the version differs
 * and the value is equal (a touch in between) it goes on with the new version.
 * An empty version means: compare by value. */
typedef struct cession_expected {
    cession_span value;
    cession_span version;
} cession_expected;

typedef struct cession_option {
    const char *name;
    const char *value;
} cession_option;

typedef struct cession_store cession_store;
typedef struct cession_store_ops cession_store_ops;

/* Make a store. No I/O: a connection, a file or a table is made by the first
 * operation. options[0..count) are borrowed for the call; an unknown name or a
 * bad value is E_INVALID with a text that says what is accepted. */
typedef int cession_store_open_fn(const cession_option *options, size_t count,
                                  cession_store **ret_store, cession_error *err);

/* Free everything. In a forked child network handles are dropped unclosed.
 * NULL is fine. No other operation may run. */
typedef void cession_store_close_fn(cession_store *store);

/* Read the live record of key.
 * OK: *ret_stored is set (its buffer replaced). NOT_FOUND: missing or expired.
 * Reads are strongly consistent: they see every acknowledged write. */
typedef int cession_store_load_fn(cession_store *store, cession_span key, cession_deadline deadline,
                                  cession_stored *ret_stored, cession_error *err);

/* Insert only. EXISTS while a live record has the key; it is left alone. */
typedef int cession_store_create_fn(cession_store *store, cession_span key, cession_span value,
                                    int64_t ttl_ms, cession_deadline deadline, cession_error *err);

/* Write value only where the store still holds what is expected, never
 * creating. OK; CONFLICT: *ret_current is what the store holds; GONE. */
typedef int cession_store_replace_fn(cession_store *store, cession_span key,
                                     const cession_expected *expected, cession_span value,
                                     int64_t ttl_ms, cession_deadline deadline,
                                     cession_stored *ret_current, cession_error *err);

/* Set the expiry to now + ttl_ms only while the store holds the expected
 * value: a late touch must not keep a tombstone or a foreign record alive.
 * OK; CHANGED: another value is there; GONE. */
typedef int cession_store_touch_fn(cession_store *store, cession_span key,
                                   const cession_expected *expected, int64_t ttl_ms,
                                   cession_deadline deadline, cession_error *err);

/* Delete whatever the key holds. OK also when there was nothing. */
typedef int cession_store_remove_fn(cession_store *store, cession_span key,
                                    cession_deadline deadline, cession_error *err);

/* Delete at most limit expired records; *ret_count of them went. Fewer than
 * limit means that there are no more. Only where NATIVE_TTL is not set. */
typedef int cession_store_purge_fn(cession_store *store, size_t limit, cession_deadline deadline,
                                   size_t *ret_count, cession_error *err);

/* One record of a scan; the spans live for the call. Return OK to go on,
 * anything else ends the scan with that value. */
typedef int cession_scan_fn(void *context, cession_span key, cession_span value,
                            int64_t expires_at_ms);

/* Visit live records in batches. cursor is opaque: empty at the start, filled
 * by the store, empty again when the scan is complete. A record that stays put
 * is seen at least once; one that moves may be seen twice or not at all. */
typedef int cession_store_scan_fn(cession_store *store, cession_buf *cursor, size_t batch,
                                  cession_deadline deadline, cession_scan_fn *visit, void *context,
                                  cession_error *err);

/* Checkpoints and the like, in the background, never on a request's path. */
typedef int cession_store_maintain_fn(cession_store *store, cession_deadline deadline,
                                      cession_error *err);

/* Would maintain have work now? A hint for the host to poll after an operation:
 * no I/O, no lock, any thread, may be wrong either way. */
typedef bool cession_store_maintenance_due_fn(const cession_store *store);

/* One const table per backend. abi and size come first and are checked before
 * anything else is read, so a table built against another header is refused. */
struct cession_store_ops {
    uint32_t abi;     /* CESSION_STORE_ABI */
    uint32_t size;    /* sizeof(cession_store_ops) */
    const char *name; /* the SESSION_TYPE it serves, lower case */
    size_t key_max;   /* bytes; 0: CESSION_KEY_MAX. Longer keys are refused, never cut */
    size_t value_max; /* bytes; 0: CESSION_VALUE_MAX */
    cession_store_open_fn *open;
    cession_store_close_fn *close;
    cession_store_load_fn *load;
    cession_store_create_fn *create;
    cession_store_replace_fn *replace;
    cession_store_touch_fn *touch;
    cession_store_remove_fn *remove;
    cession_store_purge_fn *purge;                     /* optional */
    cession_store_scan_fn *scan;                       /* optional */
    cession_store_maintain_fn *maintain;               /* optional */
    cession_store_maintenance_due_fn *maintenance_due; /* optional: never due */
};

/* The head of every store; drivers embed it first. */
struct cession_store {
    const cession_store_ops *ops;
    uint32_t caps;
};

/* Open a store by type name ("memory", "sqlite", ...). E_UNSUPPORTED for an
 * unknown name, with the known ones in the text. */
CESSION_API int cession_store_open(const char *type, const cession_option *options, size_t count,
                                   cession_store **ret_store, cession_error *err);
/* The same from a URL, "sqlite:///absolute/path?synchronous=full", "memory:". */
CESSION_API int cession_store_open_url(const char *url, cession_store **ret_store,
                                       cession_error *err);
CESSION_API void cession_store_close(cession_store *store);

/* The operations: validate the arguments, enforce the limits, apply the
 * fallbacks (E_UNSUPPORTED for what is missing), then call the driver. Only
 * these functions call through the table. */
CESSION_API int cession_store_load(cession_store *store, cession_span key,
                                   cession_deadline deadline, cession_stored *ret_stored,
                                   cession_error *err) CESSION_MUST_CHECK;
CESSION_API int cession_store_create(cession_store *store, cession_span key, cession_span value,
                                     int64_t ttl_ms, cession_deadline deadline,
                                     cession_error *err) CESSION_MUST_CHECK;
CESSION_API int cession_store_replace(cession_store *store, cession_span key,
                                      const cession_expected *expected, cession_span value,
                                      int64_t ttl_ms, cession_deadline deadline,
                                      cession_stored *ret_current,
                                      cession_error *err) CESSION_MUST_CHECK;
CESSION_API int cession_store_touch(cession_store *store, cession_span key,
                                    const cession_expected *expected, int64_t ttl_ms,
                                    cession_deadline deadline,
                                    cession_error *err) CESSION_MUST_CHECK;
CESSION_API int cession_store_remove(cession_store *store, cession_span key,
                                     cession_deadline deadline,
                                     cession_error *err) CESSION_MUST_CHECK;
CESSION_API int cession_store_purge(cession_store *store, size_t limit, cession_deadline deadline,
                                    size_t *ret_count, cession_error *err) CESSION_MUST_CHECK;
CESSION_API int cession_store_scan(cession_store *store, cession_buf *cursor, size_t batch,
                                   cession_deadline deadline, cession_scan_fn *visit, void *context,
                                   cession_error *err) CESSION_MUST_CHECK;
CESSION_API int cession_store_maintain(cession_store *store, cession_deadline deadline,
                                       cession_error *err) CESSION_MUST_CHECK;
CESSION_API bool cession_store_maintenance_due(const cession_store *store);

/* Decorators: stores that wrap a store. On success the wrapper owns inner and
 * closes it; on failure inner still belongs to the caller. */

/* Every key gets prefix in front (copied). Empty prefix is fine. */
CESSION_API int cession_store_prefix(cession_store *inner, cession_span prefix,
                                     cession_store **ret_store, cession_error *err);

/* Counts of operations and outcomes since the start; read with _counts. */
typedef struct cession_store_counts {
    uint64_t load, create, replace, touch, remove, purge, scan, maintain;
    uint64_t conflict, gone, changed, exists, not_found; /* answers */
    uint64_t failed;                                     /* errors of any kind but E_BUSY */
    uint64_t busy;
} cession_store_counts;
CESSION_API int cession_store_trace(cession_store *inner, cession_store **ret_store,
                                    cession_error *err);
/* store must come from cession_store_trace, else E_INVALID. Any thread. */
CESSION_API int cession_store_trace_counts(const cession_store *store,
                                           cession_store_counts *ret_counts, cession_error *err);

/* Fault injection for tests: the plan is asked before (and told after) every
 * operation and may make it fail, or fail after it took effect. */
typedef struct cession_fault {
    int before; /* non-zero: answer this error instead of calling the store */
    int after;  /* non-zero: call the store, then answer this error all the same */
} cession_fault;
typedef void cession_fault_fn(void *context, const char *operation, cession_fault *ret_fault);
CESSION_API int cession_store_fault(cession_store *inner, cession_fault_fn *plan, void *context,
                                    cession_store **ret_store, cession_error *err);

/* Circuit breaker: after `failures` errors in a row (UNAVAILABLE, TIMEOUT, IO,
 * PERMISSION, CALLBACK) every operation answers E_CIRCUIT at once, but for one
 * trial each retry_ms; a success closes the circuit. Defaults 5 and 1000. */
CESSION_API int cession_store_breaker(cession_store *inner, unsigned failures, int64_t retry_ms,
                                      cession_store **ret_store, cession_error *err);

/* Changes the store of a live site: a record that `fresh` does not have is looked
 * up once in `old` and moved, with what it has left to live. Owns both stores on
 * success. docs/design.md, "Moving", has the protocol and its races.
 *
 * - A load that finds its record in fresh asks nothing else; one that does not
 *   reads old once.
 * - remove acts on both, and leaves a mark in fresh for tombstone_ms, so that a
 *   move under way cannot bring the record back. That costs a load more.
 * - create looks into fresh only. scan, purge and maintain see fresh only.
 * - Processes that do not move yet should `follow`, so that they find what others
 *   have moved. There must not be movers in both directions at the same time.
 * - Where one of the stores is not CESSION_CAP_ATOMIC a change that another
 *   process makes in old during the move is lost. */
typedef struct cession_migrate_config {
    int64_t lifetime_ms;  /* > 0; of a record whose expiry old cannot tell */
    int64_t tombstone_ms; /* 0: 60,000 */
    /* Copied. Not empty: only keys that begin with it are looked up in old, and
     * what was removed under such a key is not created again for tombstone_ms. */
    cession_span only;
    /* Moves nothing: works in old, and in fresh on what others have moved there. */
    bool follow;
} cession_migrate_config;
CESSION_API int cession_store_migrate(cession_store *fresh, cession_store *old,
                                      const cession_migrate_config *config,
                                      cession_store **ret_store, cession_error *err);
typedef struct cession_migrate_counts {
    uint64_t moved;   /* records, by this store */
    uint64_t missed;  /* loads of what old did not have either */
    uint64_t refused; /* moves given up: the record was removed meanwhile */
    uint64_t carried; /* changes made in old during a move */
} cession_migrate_counts;
/* store must come from cession_store_migrate, else E_INVALID. Any thread. */
CESSION_API int cession_store_migrate_counts(const cession_store *store,
                                             cession_migrate_counts *ret_counts,
                                             cession_error *err);

#ifdef __cplusplus
}
#endif
#endif
