/* Inside the flow: what a session remembers, and one commit under way.
 *
 * A session keeps two byte strings. `stored` is what the store is believed to
 * hold, byte for byte: the expectation of every compare-and-set. `seen` is the
 * canonical form, without metadata, of what the application's copy is based on:
 * it tells what the application changed and is the base of the merge. They
 * differ for values that others wrote in another form, for records with
 * metadata, and after a merge (the application does not have what was mixed in).
 *
 * Nothing that a store operation has made true may depend on an allocation that
 * comes after it: buffers are filled before an operation and only swapped once
 * it has answered. So an error always leaves a session that can be committed
 * again.
 */
#ifndef CES_FLOW_FLOW_H
#define CES_FLOW_FLOW_H

#include <stdbool.h>
#include <stdint.h>

#include "cession/session.h"

#define CES_FLOW_SID_TRIES 8u       /* new ids tried when ids are taken */
#define CES_FLOW_BUSY_TRIES 8u      /* conflicts merged in a commit that may not wait */
#define CES_FLOW_TOMBSTONE_MS 30000 /* default of tombstone_ttl_ms */

struct cession_flow {
    cession_flow_config config; /* defaults filled in */
    cession_view tombstone;     /* codec->tombstone taken apart */
    cession_span dead;          /* the value of its metadata entry, inside that */
    cession_view dead_marks;    /* the entries of `dead`; none when it is no map to the codec */
};

typedef enum ces_state { CES_UNLOADED = 0, CES_LOADED, CES_FAILED } ces_state;

/* Where the seen bytes are. */
typedef enum ces_seen {
    CES_SEEN_NONE = 0, /* nowhere: the application started from nothing */
    CES_SEEN_RAW,      /* `stored` says the same, maybe not in canonical form */
    CES_SEEN_STORED,   /* `stored` is it */
    CES_SEEN_OWN       /* in `seen` */
} ces_seen;

/* A record that a failed commit may have left under the current (new) sid. */
typedef enum ces_attempt {
    CES_ATTEMPT_NONE = 0,
    CES_ATTEMPT_UNSURE, /* create failed: perhaps there, then with the bytes of `attempt` */
    CES_ATTEMPT_OURS    /* create said OK: whatever is there is ours */
} ces_attempt;

struct cession_session {
    cession_flow *flow;
    ces_state state;
    ces_seen seen_at;
    ces_attempt attempt_at;
    bool is_new, retired, rejected, sid_unknown, lost;
    bool spent;    /* the sid was used up: the next create takes another one */
    bool diverged; /* `stored` holds changes of others that `seen` does not have */
    size_t sid_len;
    size_t old_len; /* 0: no regenerate pending */
    cession_stored stored;
    cession_buf seen;
    cession_buf meta;      /* the encoded value of the metadata entry; valid unless diverged */
    cession_buf target;    /* what a commit is about to write */
    cession_buf seen_next; /* `seen` after it */
    cession_buf attempt;
    char sid[CESSION_SID_MAX + 1];
    char old_sid[CESSION_SID_MAX + 1]; /* of the record that a pending regenerate retires */
};

/* One commit that writes. */
typedef struct ces_commit {
    cession_session *session;
    const cession_commit *in;
    cession_outcome *out;
    cession_stored held, current; /* what was expected, what a conflict showed */
    cession_view base, mine, theirs, merged;
    cession_buf canon; /* theirs in canonical form */
    unsigned rounds;   /* conflicts so far */
    bool viewed;       /* base and mine are taken apart */
    bool mixed;        /* `target` came out of a merge */
} ces_commit;

/* What became of a merge. */
typedef enum ces_merged {
    CES_MERGED = 0, /* `target` is to be written */
    CES_SAME,       /* `target` is what the store holds already */
    CES_EMPTY,      /* nothing is left: remove */
    CES_DEAD        /* theirs is a tombstone, or no session at all */
} ces_merged;

/* flow.c */
static inline cession_span ces_sid_span(const cession_session *s)
{
    return cession_span_of(s->sid, s->sid_len);
}
static inline cession_span ces_old_span(const cession_session *s)
{
    return cession_span_of(s->old_sid, s->old_len);
}
int ces_flow_is_dead(const cession_flow *flow, cession_span meta, bool *ret_dead,
                     cession_error *err);
/* Give the session a new sid; on failure it keeps the one it has. */
int ces_session_new_sid(cession_session *s, cession_error *err);
/* Nothing in the store any more, nothing seen. */
void ces_session_blank(cession_session *s);

/* load.c: make sure that the seen bytes are canonical, then they are
 * ces_session_seen. */
int ces_session_canonical(cession_session *s, cession_error *err);
cession_span ces_session_seen(const cession_session *s);

/* commit.c, for regenerate.c too */
static inline bool ces_commit_must_not_wait(const ces_commit *c, int status)
{
    return status == CESSION_E_BUSY && c->in->deadline == 0;
}
/* Fill `target` with what the record should hold, going by `stored`. */
int ces_commit_prepare(ces_commit *c, ces_merged *ret_merged, cession_error *err);
/* After CONFLICT: the same, going by `current`, which becomes `held`. Refuses
 * when the time is up. */
int ces_commit_conflict(ces_commit *c, ces_merged *ret_merged, cession_error *err);
/* Insert `target` under the session's sid, under another one where that is taken. */
int ces_commit_insert(ces_commit *c, cession_error *err);
/* Clear away what an earlier attempt may have left. Never touches what is not ours. */
int ces_commit_discard(ces_commit *c, cession_error *err);
/* The store holds `target` now. */
void ces_commit_settle(ces_commit *c);
int ces_commit_remove(ces_commit *c, cession_error *err);
void ces_commit_lost(ces_commit *c);

/* regenerate.c */
int ces_commit_regenerate(ces_commit *c, cession_error *err);

#endif
