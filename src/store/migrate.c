/* Decorator over two stores: a record that the fresh one does not have is looked
 * up once in the old one and moved, so that a live site changes its store.
 *
 * Nothing commits to two stores at once. What makes a move safe to be broken off
 * anywhere is that one single step decides it:
 *
 *   1  fresh: create   MOVING + value          a copy that does not count yet
 *   2  old:   replace  value by MOVED          the decision, by compare-and-set
 *   3  fresh: replace  MOVING + value by value now it is a record like any other
 *   4  old:   touch    MOVED                   it need not live long any more
 *
 * Whoever finds MOVING takes the move up where it stands, whoever began it:
 * nobody waits, nobody moves twice, and between 1 and 2 the old store has the
 * say. When the old record changed before 2 the copy follows it; when it is gone
 * (somebody logged out) the copy goes. MOVED lives as long as the record until 3
 * is done, so a copy whose move was decided is told from one whose original went.
 *
 * A removed record leaves REMOVED in the fresh store for a while: whoever read
 * the old store before the removal cannot create it any more.
 *
 * A process that follows (`follow`) moves nothing. It works in the old store, and
 * in the fresh one on what others have moved there: so that all processes know of
 * both stores before the first of them moves anything. There must not be movers
 * in both directions at once: a record that has come back is the same bytes again,
 * and step 2 of somebody who slept meanwhile would take it for the one he saw.
 * One after the other is fine, and MOVED marks of the former direction are
 * written over.
 *
 * Where one of the stores is not CESSION_CAP_ATOMIC there is nothing to decide
 * with. Then it is create, remove; REMOVED still bars a late creation.
 *
 * The three marks are tombstones to whoever knows nothing of moves: they are
 * session records with nothing but metadata (see CESSION_META_KEY). */
#include "cession/store.h"

#include <stdatomic.h>

#include "base/alloc.h"
#include "base/os.h"
#include "cession/codec.h"
#include "base/banned.h"

#define TOMBSTONE_MS INT64_C(60000)
#define TTL_LONGEST_MS (INT64_C(100) * 365 * 24 * 3600 * 1000)
#define NS_PER_MS INT64_C(1000000)
#define TRIES 8u /* where nothing may wait */
/* The longest value that may be a tombstone of the session layer. */
#define RETIRED_MAX 64u

/* {CESSION_META_KEY: {"t": true, "m": 1}} and {... "m": 2}, in MessagePack. */
static const char removed_mark[] = "\x81\xab" CESSION_META_KEY "\x82\xa1t\xc3\xa1m\x01";
static const char moved_mark[] = "\x81\xab" CESSION_META_KEY "\x82\xa1t\xc3\xa1m\x02";
/* Before a copy. No format begins with 0xc1. */
static const char moving_mark[] = "\xc1"
                                  "cession-moving\xc1";
#define REMOVED cession_span_of(removed_mark, sizeof removed_mark - 1)
#define MOVED cession_span_of(moved_mark, sizeof moved_mark - 1)
#define MOVING_LEN (sizeof moving_mark - 1)

typedef _Atomic uint64_t counter;

typedef struct migrate_store {
    cession_store base;
    cession_store *fresh, *old;
    int64_t lifetime_ms, tombstone_ms;
    bool decides; /* both stores can compare and set */
    bool follow;
    counter moved, missed, refused, carried;
    size_t only_len;
    uint8_t only[];
} migrate_store;

/* What a record of one of the stores is. */
typedef enum kind { PLAIN = 0, MISSING, IS_REMOVED, IS_MOVED, IS_MOVING } kind;

/* Answers inside. */
#define AGAIN 1000  /* what was seen has changed: look again */
#define UNSURE 1001 /* see move() */

static const cession_store_ops migrate_ops;

static migrate_store *self_of(cession_store *store)
{
    return (migrate_store *)store;
}

static void count(counter *c)
{
    atomic_fetch_add_explicit(c, 1, memory_order_relaxed);
}

static kind kind_of(const cession_stored *stored)
{
    cession_span value = cession_buf_span(&stored->value);
    if (value.len > MOVING_LEN && memcmp(value.data, moving_mark, MOVING_LEN) == 0) {
        return IS_MOVING;
    }
    if (cession_span_eq(value, REMOVED)) {
        return IS_REMOVED;
    }
    return cession_span_eq(value, MOVED) ? IS_MOVED : PLAIN;
}

/* The value of a copy, or of a plain record. */
static cession_span content_of(const cession_stored *stored)
{
    cession_span value = cession_buf_span(&stored->value);
    return kind_of(stored) == IS_MOVING
               ? cession_span_of(value.data + MOVING_LEN, value.len - MOVING_LEN)
               : value;
}

static cession_expected expect(const cession_stored *stored)
{
    return (cession_expected){
        .value = cession_buf_span(&stored->value),
        .version = cession_span_of(stored->version, stored->version_len),
    };
}

static bool concerns(const migrate_store *self, cession_span key)
{
    return key.len >= self->only_len &&
           (self->only_len == 0 || memcmp(key.data, self->only, self->only_len) == 0);
}

static int no_memory(cession_error *err)
{
    return cession_fail(err, CESSION_E_NOMEM, NULL);
}

static int make_copy(cession_span value, cession_buf *out, cession_error *err)
{
    int rc = cession_buf_set(out, moving_mark, MOVING_LEN);
    if (rc == CESSION_OK) {
        rc = cession_buf_append(out, value.data, value.len);
    }
    return rc == CESSION_OK ? rc : cession_fail(err, rc, NULL);
}

/* What a record has left to live; 0: nothing. */
static int64_t left_ms(const migrate_store *self, int64_t expires_at_ms)
{
    if (expires_at_ms < 0) { /* unknown, or never */
        return self->lifetime_ms;
    }
    int64_t left = expires_at_ms - ces_now_ms();
    if (left <= 0) {
        return 0;
    }
    return left < TTL_LONGEST_MS ? left : TTL_LONGEST_MS;
}

/* May an operation that found everything changed look once more? */
static int once_more(unsigned round, cession_deadline deadline, cession_error *err)
{
    if (deadline == 0) {
        return round < TRIES ? CESSION_OK
                             : cession_fail(err, CESSION_E_BUSY, "the record keeps moving");
    }
    return round < TRIES || cession_deadline_left_ms(deadline) > 0
               ? CESSION_OK
               : cession_fail(err, CESSION_E_TIMEOUT, "the record kept moving until the deadline");
}

/* A load whose answer MISSING is no answer of its own. */
static int look(cession_store *store, cession_span key, cession_deadline deadline,
                cession_stored *ret_stored, kind *ret_kind, cession_error *err)
{
    int rc = cession_store_load(store, key, deadline, ret_stored, err);
    if (rc == CESSION_NOT_FOUND) {
        *ret_kind = MISSING;
        return CESSION_OK;
    }
    if (rc == CESSION_OK) {
        *ret_kind = kind_of(ret_stored);
    }
    return rc;
}

/* Whether there is nothing to see at the key although the store has a record. */
static int is_hidden(migrate_store *self, cession_span key, cession_deadline deadline,
                     bool *ret_hidden, cession_stored *ret_stored, cession_error *err)
{
    kind is = MISSING;
    int rc = look(self->fresh, key, deadline, ret_stored, &is, err);
    if (rc == CESSION_OK) {
        *ret_hidden = is == IS_REMOVED;
    }
    return rc;
}

/* ---- moving ------------------------------------------------------------------------ */

/* The old record has gone: so does the copy, and what it was stays removed. */
static int drop_copy(migrate_store *self, cession_span key, const cession_stored *copy,
                     cession_deadline deadline, cession_error *err)
{
    cession_expected expected = expect(copy);
    cession_stored current;
    cession_stored_init(&current);
    int rc = cession_store_replace(self->fresh, key, &expected, REMOVED, self->tombstone_ms,
                                   deadline, &current, err);
    cession_stored_release(&current);
    if (rc == CESSION_OK) {
        count(&self->refused);
        return CESSION_NOT_FOUND;
    }
    return rc < 0 ? rc : AGAIN;
}

/* The old record changed: so does the copy. */
static int update_copy(migrate_store *self, cession_span key, const cession_stored *copy,
                       const cession_stored *there, cession_deadline deadline, cession_error *err)
{
    int64_t ttl = left_ms(self, there->expires_at_ms);
    if (ttl == 0) {
        return drop_copy(self, key, copy, deadline, err);
    }
    cession_expected expected = expect(copy);
    cession_stored current;
    cession_buf changed;
    cession_stored_init(&current);
    cession_buf_init(&changed, CESSION_VALUE_MAX);
    int rc = make_copy(cession_buf_span(&there->value), &changed, err);
    if (rc == CESSION_OK) {
        rc = cession_store_replace(self->fresh, key, &expected, cession_buf_span(&changed), ttl,
                                   deadline, &current, err);
        if (rc == CESSION_OK) {
            count(&self->carried);
        }
    }
    cession_buf_release(&changed);
    cession_stored_release(&current);
    return rc < 0 ? rc : AGAIN;
}

/* Step 3 and 4: the move is decided. *copy becomes what it holds. */
static int finish(migrate_store *self, cession_span key, cession_stored *copy,
                  cession_deadline deadline, cession_error *err)
{
    int64_t ttl = left_ms(self, copy->expires_at_ms);
    if (ttl == 0) {
        return CESSION_NOT_FOUND;
    }
    cession_span content = content_of(copy);
    cession_expected expected = expect(copy);
    cession_stored current;
    cession_stored_init(&current);
    int rc = cession_store_replace(self->fresh, key, &expected, content, ttl, deadline, &current,
                                   err);
    cession_stored_release(&current);
    if (rc != CESSION_OK) {
        return rc < 0 ? rc : AGAIN;
    }
    cession_expected moved = {.value = MOVED};
    rc = cession_store_touch(self->old, key, &moved, self->tombstone_ms, deadline, err);
    if (rc < 0) {
        return rc; /* the record is in its place; MOVED lives as long as it would have */
    }
    memmove(copy->value.data, content.data, content.len);
    copy->value.len = content.len;
    copy->version_len = 0;
    return CESSION_OK;
}

/* From step 2 on, for a copy that was found or made. version: of the old record, if it is
 * known. OK: *copy is the record. NOT_FOUND, AGAIN or an error else. */
static int settle(migrate_store *self, cession_span key, cession_stored *copy, cession_span version,
                  cession_deadline deadline, cession_error *err)
{
    int64_t ttl = left_ms(self, copy->expires_at_ms);
    if (ttl == 0) {
        return CESSION_NOT_FOUND;
    }
    cession_expected expected = {.value = content_of(copy), .version = version};
    cession_stored there;
    cession_stored_init(&there);
    int rc = cession_store_replace(self->old, key, &expected, MOVED, ttl, deadline, &there, err);
    if (rc == CESSION_OK) {
        count(&self->moved);
        rc = finish(self, key, copy, deadline, err);
    } else if (rc == CESSION_GONE) {
        rc = drop_copy(self, key, copy, deadline, err);
    } else if (rc == CESSION_CONFLICT) {
        switch (kind_of(&there)) {
        case IS_MOVED: /* by somebody else */
            rc = finish(self, key, copy, deadline, err);
            break;
        case IS_REMOVED:
            rc = drop_copy(self, key, copy, deadline, err);
            break;
        case PLAIN:
            rc = update_copy(self, key, copy, &there, deadline, err);
            break;
        default: /* it has come back meanwhile and is under way once more */
            rc = AGAIN;
            break;
        }
    }
    cession_stored_release(&there);
    return rc;
}

/* The old store holds a copy, since somebody moves the other way, and the original has become
 * MOVED: so the copy counts and is made a record. */
static int free_copy(migrate_store *self, cession_span key, const cession_stored *copy,
                     cession_deadline deadline, cession_error *err)
{
    int64_t ttl = left_ms(self, copy->expires_at_ms);
    if (ttl == 0) {
        return CESSION_NOT_FOUND;
    }
    cession_expected expected = expect(copy);
    cession_stored current;
    cession_stored_init(&current);
    int rc = cession_store_replace(self->old, key, &expected, content_of(copy), ttl, deadline,
                                   &current, err);
    cession_stored_release(&current);
    return rc < 0 ? rc : AGAIN;
}

/* Without a decision: create, remove. *there becomes what a load gives. */
static int move_simply(migrate_store *self, cession_span key, cession_stored *there, int64_t ttl,
                       int64_t since_ns, cession_deadline deadline, cession_error *err)
{
    /* A removal since has left a mark, unless that has expired. */
    if (ces_mono_ns() - since_ns >= self->tombstone_ms / 2 * NS_PER_MS) {
        return cession_fail(err, CESSION_E_TIMEOUT, "the old store took too long");
    }
    int rc = cession_store_create(self->fresh, key, cession_buf_span(&there->value), ttl, deadline,
                                  err);
    if (rc != CESSION_OK) {
        return rc == CESSION_EXISTS ? AGAIN : rc;
    }
    count(&self->moved);
    rc = cession_store_remove(self->old, key, deadline, err);
    there->version_len = 0;
    return rc;
}

/* The fresh store has no record (here: MISSING, or IS_MOVED and then *seen is it). OK: *seen is
 * the record now. UNSURE: neither has the old one, but it may have come here in between. */
static int move(migrate_store *self, cession_span key, kind here, cession_stored *seen,
                cession_deadline deadline, cession_error *err)
{
    int64_t since = ces_mono_ns();
    kind is = MISSING;
    cession_stored there, current;
    cession_stored_init(&there);
    cession_stored_init(&current);
    int rc = look(self->old, key, deadline, &there, &is, err);
    int64_t ttl = rc == CESSION_OK && is != MISSING ? left_ms(self, there.expires_at_ms) : 0;
    if (rc == CESSION_OK && is == IS_MOVING && here == IS_MOVED) {
        rc = free_copy(self, key, &there, deadline, err);
    } else if (rc == CESSION_OK && (is != PLAIN || ttl == 0)) {
        /* Without MOVED a move leaves nothing behind that could be seen. */
        bool unsure = is == IS_MOVED || is == IS_MOVING || (is == MISSING && !self->decides);
        rc = unsure ? UNSURE : CESSION_NOT_FOUND;
    } else if (rc == CESSION_OK && !self->decides) {
        rc = move_simply(self, key, &there, ttl, since, deadline, err);
        cession_buf_swap(&there.value, &seen->value);
        seen->version_len = 0;
        seen->expires_at_ms = there.expires_at_ms;
    } else if (rc == CESSION_OK) {
        cession_stored copy;
        cession_stored_init(&copy);
        copy.expires_at_ms = ces_now_ms() + ttl;
        rc = make_copy(cession_buf_span(&there.value), &copy.value, err);
        if (rc == CESSION_OK && here == IS_MOVED) {
            cession_expected expected = expect(seen);
            rc = cession_store_replace(self->fresh, key, &expected, cession_buf_span(&copy.value),
                                       ttl, deadline, &current, err);
        } else if (rc == CESSION_OK) {
            rc = cession_store_create(self->fresh, key, cession_buf_span(&copy.value), ttl,
                                      deadline, err);
        }
        if (rc > 0) {
            rc = AGAIN; /* somebody else was first */
        } else if (rc == CESSION_OK) {
            cession_span version = cession_span_of(there.version, there.version_len);
            rc = settle(self, key, &copy, version, deadline, err);
            if (rc == CESSION_OK) {
                cession_buf_swap(&copy.value, &seen->value);
                seen->version_len = 0;
                seen->expires_at_ms = copy.expires_at_ms;
            }
        }
        cession_stored_release(&copy);
    }
    cession_stored_release(&current);
    cession_stored_release(&there);
    return rc;
}

/* ---- operations --------------------------------------------------------------------- */

static void migrate_close(cession_store *store)
{
    migrate_store *self = self_of(store);
    cession_store_close(self->fresh);
    cession_store_close(self->old);
    ces_free(self);
}

/* OK also when there is none: then *ret_kind is not PLAIN. */
static int look_at_old(migrate_store *self, cession_span key, cession_deadline deadline,
                       cession_stored *ret_stored, kind *ret_kind, cession_error *err)
{
    *ret_kind = MISSING;
    return self->follow ? look(self->old, key, deadline, ret_stored, ret_kind, err) : CESSION_OK;
}

static int migrate_load(cession_store *store, cession_span key, cession_deadline deadline,
                        cession_stored *ret_stored, cession_error *err)
{
    migrate_store *self = self_of(store);
    if (!concerns(self, key)) {
        return cession_store_load(self->fresh, key, deadline, ret_stored, err);
    }
    cession_stored seen;
    cession_stored_init(&seen);
    int rc = AGAIN;
    bool asked = false; /* the old store says that the record is not there any more */
    for (unsigned round = 0; rc == AGAIN; round++) {
        kind is = MISSING;
        rc = once_more(round, deadline, err);
        if (rc == CESSION_OK) {
            rc = look_at_old(self, key, deadline, &seen, &is, err);
        }
        if (rc == CESSION_OK && is != PLAIN) {
            rc = look(self->fresh, key, deadline, &seen, &is, err);
        }
        if (rc != CESSION_OK || is == PLAIN) {
            break;
        }
        if (is == IS_REMOVED || (self->follow && is != IS_MOVING)) {
            rc = CESSION_NOT_FOUND;
        } else if (is == IS_MOVING) {
            rc = settle(self, key, &seen, cession_span_of(NULL, 0), deadline, err);
        } else if (is == MISSING && asked) {
            rc = CESSION_NOT_FOUND;
            count(&self->missed);
        } else {
            rc = move(self, key, is, &seen, deadline, err);
            if (rc == CESSION_NOT_FOUND) {
                count(&self->missed);
            }
            asked = rc == UNSURE;
            rc = asked ? AGAIN : rc;
        }
    }
    if (rc == CESSION_OK) {
        cession_buf_swap(&seen.value, &ret_stored->value);
        memcpy(ret_stored->version, seen.version, seen.version_len);
        ret_stored->version_len = seen.version_len;
        ret_stored->expires_at_ms = seen.expires_at_ms;
    }
    cession_stored_release(&seen);
    return rc;
}

/* The old store is not asked: ids of new sessions are random. Over a mark of a removal a
 * record can be made again; not where the mark is to last (`only`). */
static int migrate_create(cession_store *store, cession_span key, cession_span value,
                          int64_t ttl_ms, cession_deadline deadline, cession_error *err)
{
    migrate_store *self = self_of(store);
    if (self->follow) {
        return cession_store_create(self->old, key, value, ttl_ms, deadline, err);
    }
    int rc = AGAIN;
    for (unsigned round = 0; rc == AGAIN; round++) {
        rc = once_more(round, deadline, err);
        if (rc == CESSION_OK) {
            rc = cession_store_create(self->fresh, key, value, ttl_ms, deadline, err);
        }
        if (rc != CESSION_EXISTS || !concerns(self, key) || self->only_len != 0) {
            break;
        }
        bool hidden = false;
        cession_stored mark, current;
        cession_stored_init(&mark);
        cession_stored_init(&current);
        rc = is_hidden(self, key, deadline, &hidden, &mark, err);
        if (rc == CESSION_OK && !hidden) {
            rc = CESSION_EXISTS;
        } else if (rc == CESSION_OK) {
            cession_expected expected = expect(&mark);
            rc = cession_store_replace(self->fresh, key, &expected, value, ttl_ms, deadline,
                                       &current, err);
            rc = rc > 0 ? AGAIN : rc;
        }
        cession_stored_release(&current);
        cession_stored_release(&mark);
    }
    return rc;
}

/* A tombstone of the session layer, as regenerate() leaves it. */
static bool retires(cession_span value)
{
    return value.len <= RETIRED_MAX &&
           memmem(value.data, value.len, CESSION_META_KEY, sizeof CESSION_META_KEY - 1) != NULL;
}

static int migrate_replace(cession_store *store, cession_span key, const cession_expected *expected,
                           cession_span value, int64_t ttl_ms, cession_deadline deadline,
                           cession_stored *ret_current, cession_error *err)
{
    migrate_store *self = self_of(store);
    if (!concerns(self, key)) {
        return cession_store_replace(self->fresh, key, expected, value, ttl_ms, deadline,
                                     ret_current, err);
    }
    bool last = value.len != 0 && retires(value);
    if (last && self->only_len != 0 && ttl_ms < self->tombstone_ms) {
        ttl_ms = self->tombstone_ms;
    }
    cession_stored current;
    cession_stored_init(&current);
    int rc = CESSION_GONE;
    if (self->follow) {
        rc = cession_store_replace(self->old, key, expected, value, ttl_ms, deadline, &current,
                                   err);
        if (rc == CESSION_CONFLICT && kind_of(&current) != PLAIN) {
            rc = CESSION_GONE;
        }
        last = last && rc != CESSION_OK;
    }
    if (rc == CESSION_GONE) {
        rc = cession_store_replace(self->fresh, key, expected, value, ttl_ms, deadline, &current,
                                   err);
    }
    if (rc == CESSION_OK && last) {
        /* A copy that something else left there would be found when the tombstone has expired. */
        rc = cession_store_remove(self->old, key, deadline, err);
    } else if (rc == CESSION_CONFLICT) {
        switch (kind_of(&current)) {
        case IS_REMOVED:
            rc = CESSION_GONE;
            break;
        case IS_MOVED:
        case IS_MOVING: /* it has gone to the old store, and comes back */
            rc = migrate_load(store, key, deadline, &current, err);
            rc = rc == CESSION_OK ? CESSION_CONFLICT : rc == CESSION_NOT_FOUND ? CESSION_GONE : rc;
            break;
        default:
            break;
        }
    }
    if (rc == CESSION_CONFLICT) {
        cession_buf_swap(&current.value, &ret_current->value);
        memcpy(ret_current->version, current.version, current.version_len);
        ret_current->version_len = current.version_len;
        ret_current->expires_at_ms = current.expires_at_ms;
    }
    cession_stored_release(&current);
    return rc;
}

static int migrate_touch(cession_store *store, cession_span key, const cession_expected *expected,
                         int64_t ttl_ms, cession_deadline deadline, cession_error *err)
{
    migrate_store *self = self_of(store);
    int there = CESSION_GONE;
    if (self->follow) {
        there = cession_store_touch(self->old, key, expected, ttl_ms, deadline, err);
        if (there == CESSION_OK || there < 0) {
            return there;
        }
    }
    int rc = cession_store_touch(self->fresh, key, expected, ttl_ms, deadline, err);
    if (rc == CESSION_GONE) {
        rc = there; /* CHANGED, where another value is in the old store */
    } else if (rc == CESSION_CHANGED && concerns(self, key)) {
        bool hidden = false;
        cession_stored seen;
        cession_stored_init(&seen);
        rc = is_hidden(self, key, deadline, &hidden, &seen, err);
        cession_stored_release(&seen);
        if (rc == CESSION_OK) {
            rc = hidden ? CESSION_GONE : CESSION_CHANGED;
        }
    }
    return rc;
}

/* Whatever the fresh store holds becomes REMOVED. Where that was MOVED, another process has
 * just taken the record to the old store, and it goes there as well. */
static int bury(migrate_store *self, cession_span key, cession_deadline deadline,
                cession_error *err)
{
    cession_stored seen, current;
    cession_stored_init(&seen);
    cession_stored_init(&current);
    int rc = AGAIN;
    for (unsigned round = 0; rc == AGAIN; round++) {
        kind is = MISSING;
        rc = once_more(round, deadline, err);
        if (rc == CESSION_OK) {
            rc = look(self->fresh, key, deadline, &seen, &is, err);
        }
        if (rc != CESSION_OK) {
            break;
        }
        if (is == MISSING) {
            rc = cession_store_create(self->fresh, key, REMOVED, self->tombstone_ms, deadline, err);
        } else {
            cession_expected expected = expect(&seen);
            rc = cession_store_replace(self->fresh, key, &expected, REMOVED, self->tombstone_ms,
                                       deadline, &current, err);
        }
        if (rc == CESSION_OK && is == IS_MOVED) {
            rc = cession_store_remove(self->old, key, deadline, err);
        }
        rc = rc > 0 ? AGAIN : rc;
    }
    cession_stored_release(&current);
    cession_stored_release(&seen);
    return rc;
}

/* The old store first: were this broken off after the other one, the old record would be
 * found again once the mark has expired. Both, even if one fails. */
static int migrate_remove(cession_store *store, cession_span key, cession_deadline deadline,
                          cession_error *err)
{
    migrate_store *self = self_of(store);
    if (!concerns(self, key)) {
        return cession_store_remove(self->fresh, key, deadline, err);
    }
    int first = cession_store_remove(self->old, key, deadline, err);
    cession_error *unless_told = first == CESSION_OK ? err : NULL;
    int rc = (self->fresh->caps & CESSION_CAP_ATOMIC) != 0
                 ? bury(self, key, deadline, unless_told)
                 : cession_store_remove(self->fresh, key, deadline, unless_told);
    return first != CESSION_OK ? first : rc;
}

/* Where new records go. */
static cession_store *main_of(cession_store *store)
{
    const migrate_store *self = self_of(store);
    return self->follow ? self->old : self->fresh;
}

static int migrate_purge(cession_store *store, size_t limit, cession_deadline deadline,
                         size_t *ret_count, cession_error *err)
{
    return cession_store_purge(main_of(store), limit, deadline, ret_count, err);
}

typedef struct migrate_visit {
    cession_scan_fn *visit;
    void *context;
} migrate_visit;

static int visit_shown(void *context, cession_span key, cession_span value, int64_t expires_at_ms)
{
    const migrate_visit *v = context;
    if (cession_span_eq(value, REMOVED) || cession_span_eq(value, MOVED) ||
        (value.len > MOVING_LEN && memcmp(value.data, moving_mark, MOVING_LEN) == 0)) {
        return CESSION_OK;
    }
    return v->visit(v->context, key, value, expires_at_ms);
}

/* What has not moved yet is not shown. */
static int migrate_scan(cession_store *store, cession_buf *cursor, size_t batch,
                        cession_deadline deadline, cession_scan_fn *visit, void *context,
                        cession_error *err)
{
    migrate_visit v = {.visit = visit, .context = context};
    return cession_store_scan(main_of(store), cursor, batch, deadline, visit_shown, &v, err);
}

static int migrate_maintain(cession_store *store, cession_deadline deadline, cession_error *err)
{
    return cession_store_maintain(main_of(store), deadline, err);
}

static bool migrate_maintenance_due(const cession_store *store)
{
    const migrate_store *self = (const migrate_store *)store;
    return cession_store_maintenance_due(self->follow ? self->old : self->fresh);
}

static const cession_store_ops migrate_ops = {
    .abi = CESSION_STORE_ABI,
    .size = sizeof(cession_store_ops),
    .name = "migrate",
    .close = migrate_close,
    .load = migrate_load,
    .create = migrate_create,
    .replace = migrate_replace,
    .touch = migrate_touch,
    .remove = migrate_remove,
    .purge = migrate_purge,
    .scan = migrate_scan,
    .maintain = migrate_maintain,
    .maintenance_due = migrate_maintenance_due,
};

int cession_store_migrate(cession_store *fresh, cession_store *old,
                          const cession_migrate_config *config, cession_store **ret_store,
                          cession_error *err)
{
    if (fresh == NULL || old == NULL || fresh == old || config == NULL || ret_store == NULL ||
        (config->only.data == NULL && config->only.len != 0)) {
        return cession_fail(err, CESSION_E_INVALID, NULL);
    }
    if (config->lifetime_ms <= 0 || config->lifetime_ms > TTL_LONGEST_MS ||
        config->tombstone_ms < 0 || config->tombstone_ms > TTL_LONGEST_MS) {
        return cession_fail(err, CESSION_E_INVALID,
                            "the lifetime must be above 0 and at most 100 years");
    }
    if (config->only.len > CESSION_KEY_MAX) {
        return cession_fail(err, CESSION_E_LIMIT, "no key is as long as that");
    }
    migrate_store *self = ces_alloc_zero(sizeof *self + config->only.len);
    if (self == NULL) {
        return no_memory(err);
    }
    self->base = (cession_store){.ops = &migrate_ops,
                                 .caps = config->follow ? old->caps : fresh->caps};
    self->follow = config->follow;
    self->fresh = fresh;
    self->old = old;
    self->lifetime_ms = config->lifetime_ms;
    self->tombstone_ms = config->tombstone_ms != 0 ? config->tombstone_ms : TOMBSTONE_MS;
    self->decides = (fresh->caps & old->caps & CESSION_CAP_ATOMIC) != 0;
    self->only_len = config->only.len;
    if (config->only.len != 0) {
        memcpy(self->only, config->only.data, config->only.len);
    }
    *ret_store = &self->base;
    return CESSION_OK;
}

static uint64_t value_of(const counter *c)
{
    return atomic_load_explicit(c, memory_order_relaxed);
}

int cession_store_migrate_counts(const cession_store *store, cession_migrate_counts *ret_counts,
                                 cession_error *err)
{
    if (store == NULL || store->ops != &migrate_ops || ret_counts == NULL) {
        return cession_fail(err, CESSION_E_INVALID, "the store moves no records");
    }
    const migrate_store *self = (const migrate_store *)store;
    *ret_counts = (cession_migrate_counts){
        .moved = value_of(&self->moved),
        .missed = value_of(&self->missed),
        .refused = value_of(&self->refused),
        .carried = value_of(&self->carried),
    };
    return CESSION_OK;
}
