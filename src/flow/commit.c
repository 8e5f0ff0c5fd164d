/* Commit: decide from facts, then compare-and-set and merge until it is done.
 *
 * What a commit does where the table of the design leaves room:
 * - A touch that finds the record gone loses nothing, unless the application
 *   called the session modified; later changes to it are dropped either way.
 * - A conflict with bytes that are no session (nothing the codec reads, as a
 *   load would say) counts as GONE: they may be a later version's tombstone, and
 *   what cannot be read must not be overwritten.
 * - What a merge leaves empty is removed, as emptying wins.
 * - After a remove the session is new again; what is written later goes under
 *   another sid.
 *
 * Errors leave the session as it was, so the same commit may be tried again. A
 * write of which only the answer was lost shows up as a conflict with our own
 * bytes, and merging with those changes nothing. For a create see
 * ces_commit_discard.
 */
#include "flow/flow.h"

#include "session/merge.h"

#include "base/banned.h"

static void commit_init(ces_commit *c, cession_session *s, const cession_commit *in,
                        cession_outcome *out)
{
    c->session = s;
    c->in = in;
    c->out = out;
    cession_stored_init(&c->held);
    cession_stored_init(&c->current);
    cession_view_init(&c->base);
    cession_view_init(&c->mine);
    cession_view_init(&c->theirs);
    cession_view_init(&c->merged);
    cession_buf_init(&c->canon, CESSION_VALUE_MAX);
    c->rounds = 0;
    c->viewed = c->mixed = false;
}

static void commit_release(ces_commit *c)
{
    cession_stored_release(&c->held);
    cession_stored_release(&c->current);
    cession_view_release(&c->base);
    cession_view_release(&c->mine);
    cession_view_release(&c->theirs);
    cession_view_release(&c->merged);
    cession_buf_release(&c->canon);
}

static cession_expected expect(const cession_stored *stored)
{
    cession_expected expected = {
        .value = cession_buf_span(&stored->value),
        .version = cession_span_of(stored->version, stored->version_len),
    };
    return expected;
}

/* ---- what to write ---------------------------------------------------------- */

/* `mine` comes from outside: take it apart, and refuse metadata in it. */
static int view_mine(ces_commit *c, cession_error *err)
{
    const cession_codec *codec = c->session->flow->config.codec;
    int status = codec->view(codec, c->in->mine, &c->mine, err);
    if (status != CESSION_OK)
        return status;
    if (ces_view_find(&c->mine, codec->meta_key))
        return cession_fail(err, CESSION_E_INVALID, "the key %s is reserved", CESSION_META_KEY);
    return CESSION_OK;
}

static int check_mine(ces_commit *c, cession_error *err)
{
    cession_span mine = c->in->mine;
    if (c->session->flow->config.caller_validates &&
        !(mine.len > 0 &&
          memmem(mine.data, mine.len, CESSION_META_KEY, sizeof CESSION_META_KEY - 1)))
        return CESSION_OK;
    return view_mine(c, err);
}

/* `target` is composed: get ready what will be seen once it is written. */
static int prepare_seen(ces_commit *c, cession_error *err)
{
    cession_session *s = c->session;
    if (cession_span_eq(cession_buf_span(&s->target), c->in->mine))
        return CESSION_OK;
    int status = cession_buf_set(&s->seen_next, c->in->mine.data, c->in->mine.len);
    return status == CESSION_OK ? status : cession_fail(err, status, NULL);
}

/* Merge with `raw`, bytes of the store, into `target`. */
static int merge_with(ces_commit *c, cession_span raw, ces_merged *ret_merged, cession_error *err)
{
    cession_session *s = c->session;
    const cession_flow *flow = s->flow;
    const cession_codec *codec = flow->config.codec;
    int status;

    if (!c->viewed) {
        status = ces_session_canonical(s, err);
        if (status == CESSION_OK)
            status = codec->view(codec, ces_session_seen(s), &c->base, err);
        if (status == CESSION_OK)
            status = view_mine(c, err);
        if (status != CESSION_OK)
            return status;
        c->viewed = true;
    }
    status = codec->canonical(codec, raw, &c->canon, err);
    if (status == CESSION_OK)
        status = codec->view(codec, cession_buf_span(&c->canon), &c->theirs, err);
    if (status == CESSION_E_FORMAT) {
        cession_error_clear(err);
        *ret_merged = CES_DEAD;
        return CESSION_OK;
    }
    if (status != CESSION_OK)
        return status;

    const cession_entry *meta = ces_view_find(&c->theirs, codec->meta_key);
    if (meta) {
        bool dead = false;
        status = ces_flow_is_dead(flow, meta->value, &dead, err);
        if (status != CESSION_OK)
            return status;
        if (dead) {
            *ret_merged = CES_DEAD;
            return CESSION_OK;
        }
    }

    ces_merge_result result;
    status = ces_merge(codec, &c->base, &c->mine, &c->theirs, &c->merged, &result);
    if (status != CESSION_OK)
        return cession_fail(err, status, NULL);
    if (result.conflicts > 0 && flow->config.raise_on_conflict)
        return cession_fail(err, CESSION_E_CONFLICT, NULL);
    c->out->conflicts = result.conflicts;

    if (ces_view_empty(codec, &c->merged)) {
        *ret_merged = CES_EMPTY;
        return CESSION_OK;
    }
    if (result.changed) {
        status = codec->compose(codec, c->merged.entries, c->merged.count, &s->target, err);
    } else {
        status = cession_buf_set(&s->target, raw.data, raw.len);
        if (status != CESSION_OK)
            cession_fail(err, status, NULL);
    }
    if (status == CESSION_OK)
        status = prepare_seen(c, err);
    if (status != CESSION_OK)
        return status;
    c->mixed = true;
    *ret_merged = result.changed ? CES_MERGED : CES_SAME;
    return CESSION_OK;
}

int ces_commit_prepare(ces_commit *c, ces_merged *ret_merged, cession_error *err)
{
    cession_session *s = c->session;
    const cession_codec *codec = s->flow->config.codec;
    int status;

    if (s->diverged)
        return merge_with(c, cession_buf_span(&s->stored.value), ret_merged, err);
    if (s->meta.len == 0) {
        status = check_mine(c, err);
        if (status != CESSION_OK)
            return status;
        status = cession_buf_set(&s->target, c->in->mine.data, c->in->mine.len);
        if (status != CESSION_OK)
            return cession_fail(err, status, NULL);
    } else {
        status = view_mine(c, err);
        if (status != CESSION_OK)
            return status;
        status = cession_view_add(&c->mine, codec->meta_key, cession_buf_span(&s->meta));
        if (status != CESSION_OK)
            return cession_fail(err, status, NULL);
        status = codec->compose(codec, c->mine.entries, c->mine.count, &s->target, err);
        if (status == CESSION_OK)
            status = prepare_seen(c, err);
        if (status != CESSION_OK)
            return status;
    }
    *ret_merged = CES_MERGED;
    return CESSION_OK;
}

int ces_commit_conflict(ces_commit *c, ces_merged *ret_merged, cession_error *err)
{
    c->rounds++;
    if (c->in->deadline == 0) {
        if (c->rounds >= CES_FLOW_BUSY_TRIES)
            return cession_fail(err, CESSION_E_BUSY, "other requests keep changing the session");
    } else if (cession_deadline_left_ms(c->in->deadline) == 0) {
        return cession_fail(err, CESSION_E_TIMEOUT,
                            "other requests kept changing the session until the deadline");
    }
    /* The driver writes to `current` while it still reads what is expected. */
    cession_stored shown = c->current;
    c->current = c->held;
    c->held = shown;
    int status = merge_with(c, cession_buf_span(&c->held.value), ret_merged, err);
    if (status == CESSION_OK && *ret_merged != CES_DEAD)
        c->out->merged = true;
    return status;
}

/* ---- steps ------------------------------------------------------------------ */

void ces_commit_settle(ces_commit *c)
{
    cession_session *s = c->session;
    bool same = cession_span_eq(cession_buf_span(&s->target), c->in->mine);
    cession_buf_swap(&s->stored.value, &s->target);
    s->stored.version_len = 0;
    s->stored.expires_at_ms = s->flow->config.now_ms() + c->in->lifetime_ms;
    if (same) {
        s->seen_at = CES_SEEN_STORED;
        s->diverged = false;
        cession_buf_clear(&s->meta);
        c->out->merged = false; /* with our own bytes, of a commit whose answer was lost */
    } else {
        cession_buf_swap(&s->seen, &s->seen_next);
        s->seen_at = CES_SEEN_OWN;
        s->diverged = c->mixed;
    }
    s->is_new = false;
    s->old_len = 0;
    s->attempt_at = CES_ATTEMPT_NONE;
}

/* What the application has now counts as seen, so that a second commit of the
 * same does not report the same loss again. Short of memory it may. */
static void forget(cession_session *s, cession_span mine)
{
    if (cession_buf_set(&s->seen_next, mine.data, mine.len) == CESSION_OK) {
        cession_buf_swap(&s->seen, &s->seen_next);
        s->seen_at = CES_SEEN_OWN;
    }
}

void ces_commit_lost(ces_commit *c)
{
    c->session->lost = true;
    c->session->old_len = 0;
    forget(c->session, c->in->mine);
    c->out->status = CESSION_GONE;
    c->out->lost = true;
    c->out->merged = false;
    c->out->conflicts = 0;
}

/* A create whose answer was lost may have left a record with our data under a sid
 * that nobody was told. It is never taken over: the same bytes could be another
 * visitor's, where an application's own generator repeats itself. It is turned into
 * a tombstone, and only while it holds exactly our bytes; the create that follows
 * finds the sid taken and goes on to another one. What was certainly ours is
 * removed. */
int ces_commit_discard(ces_commit *c, cession_error *err)
{
    cession_session *s = c->session;
    const cession_flow_config *config = &s->flow->config;
    int status = CESSION_OK;
    if (s->attempt_at == CES_ATTEMPT_OURS) {
        status = cession_store_remove(config->store, ces_sid_span(s), c->in->deadline, err);
    } else if (s->attempt_at == CES_ATTEMPT_UNSURE) {
        cession_expected expected = {.value = cession_buf_span(&s->attempt)};
        status = cession_store_replace(config->store, ces_sid_span(s), &expected,
                                       config->codec->tombstone, config->tombstone_ttl_ms,
                                       c->in->deadline, &c->current, err);
        if (status == CESSION_CONFLICT || status == CESSION_GONE)
            status = CESSION_OK;
    }
    if (status == CESSION_OK)
        s->attempt_at = CES_ATTEMPT_NONE;
    return status;
}

int ces_commit_insert(ces_commit *c, cession_error *err)
{
    cession_session *s = c->session;
    const cession_flow_config *config = &s->flow->config;
    for (unsigned i = 0; i < CES_FLOW_SID_TRIES; i++) {
        if (s->spent) {
            int status = ces_session_new_sid(s, err);
            if (status != CESSION_OK)
                return status;
        }
        int status = cession_store_create(config->store, ces_sid_span(s),
                                          cession_buf_span(&s->target), c->in->lifetime_ms,
                                          c->in->deadline, err);
        if (status == CESSION_OK)
            return status;
        if (status == CESSION_EXISTS) {
            s->spent = true;
            continue;
        }
        if (!ces_commit_must_not_wait(c, status)) {
            cession_buf_swap(&s->attempt, &s->target);
            s->attempt_at = CES_ATTEMPT_UNSURE;
        }
        return status;
    }
    return cession_fail(err, config->generate_sid ? CESSION_E_CALLBACK : CESSION_E_INTERNAL,
                        "%u new session ids in a row were taken", CES_FLOW_SID_TRIES);
}

/* ---- actions ---------------------------------------------------------------- */

int ces_commit_remove(ces_commit *c, cession_error *err)
{
    cession_session *s = c->session;
    c->out->action = CESSION_ACT_REMOVE;
    int status = ces_commit_discard(c, err);
    if (status != CESSION_OK)
        return status;
    status = cession_store_remove(s->flow->config.store,
                                  s->old_len > 0 ? ces_old_span(s) : ces_sid_span(s),
                                  c->in->deadline, err);
    if (status != CESSION_OK)
        return status;
    ces_session_blank(s);
    s->is_new = true;
    s->spent = true;
    /* What the browser still sends leads nowhere from here on. */
    s->sid_unknown = true;
    return CESSION_OK;
}

static int commit_create(ces_commit *c, cession_error *err)
{
    ces_merged merged;
    int status = ces_commit_discard(c, err);
    if (status == CESSION_OK)
        status = ces_commit_prepare(c, &merged, err);
    if (status == CESSION_OK)
        status = ces_commit_insert(c, err);
    if (status == CESSION_OK)
        ces_commit_settle(c);
    return status;
}

static int commit_replace(ces_commit *c, cession_error *err)
{
    cession_session *s = c->session;
    ces_merged merged;
    int status = ces_commit_prepare(c, &merged, err);
    if (status != CESSION_OK)
        return status;
    /* Without a conflict yet, also the same bytes are written: that is what the
     * application asked for when it forced the write. */
    if (merged == CES_SAME)
        merged = CES_MERGED;
    cession_expected expected = expect(&s->stored);
    while (merged == CES_MERGED) {
        status = cession_store_replace(s->flow->config.store, ces_sid_span(s), &expected,
                                       cession_buf_span(&s->target), c->in->lifetime_ms,
                                       c->in->deadline, &c->current, err);
        if (status == CESSION_OK) {
            ces_commit_settle(c);
            return CESSION_OK;
        }
        if (status == CESSION_GONE) {
            ces_commit_lost(c);
            return CESSION_OK;
        }
        if (status != CESSION_CONFLICT)
            return status;
        status = ces_commit_conflict(c, &merged, err);
        if (status != CESSION_OK)
            return status;
        expected = expect(&c->held);
    }
    if (merged == CES_EMPTY)
        return ces_commit_remove(c, err);
    if (merged == CES_DEAD) {
        ces_commit_lost(c);
        return CESSION_OK;
    }
    /* All that I changed stands there already. */
    ces_commit_settle(c);
    memcpy(s->stored.version, c->held.version, c->held.version_len);
    s->stored.version_len = c->held.version_len;
    s->stored.expires_at_ms = c->held.expires_at_ms;
    return CESSION_OK;
}

static int commit_touch(cession_session *s, const cession_commit *in, cession_outcome *out,
                        cession_error *err)
{
    cession_expected expected = expect(&s->stored);
    int status = cession_store_touch(s->flow->config.store, ces_sid_span(s), &expected,
                                     in->lifetime_ms, in->deadline, err);
    out->status = status;
    if (status == CESSION_OK) {
        s->stored.expires_at_ms = s->flow->config.now_ms() + in->lifetime_ms;
    } else if (status == CESSION_GONE) {
        s->lost = true;
        forget(s, in->mine);
        out->lost = in->modified;
    } else if (status != CESSION_CHANGED) {
        return status;
    }
    return CESSION_OK;
}

static int commit_write(cession_session *s, const cession_commit *in, cession_outcome *out,
                        cession_error *err)
{
    ces_commit c;
    commit_init(&c, s, in, out);
    int status;
    switch (out->action) {
    case CESSION_ACT_CREATE:
        status = commit_create(&c, err);
        break;
    case CESSION_ACT_REPLACE:
        status = commit_replace(&c, err);
        break;
    case CESSION_ACT_REMOVE:
        status = ces_commit_remove(&c, err);
        break;
    case CESSION_ACT_REGENERATE:
        status = ces_commit_regenerate(&c, err);
        break;
    default:
        status = cession_fail(err, CESSION_E_INTERNAL, "no such action");
        break;
    }
    commit_release(&c);
    return status;
}

static int differs(cession_session *s, const cession_commit *in, bool *ret_changed,
                   cession_error *err)
{
    if (s->seen_at == CES_SEEN_NONE) {
        *ret_changed = !in->empty;
        return CESSION_OK;
    }
    if (cession_span_eq(ces_session_seen(s), in->mine)) {
        /* Equal to canonical bytes: canonical itself. */
        if (s->seen_at == CES_SEEN_RAW)
            s->seen_at = CES_SEEN_STORED;
        *ret_changed = false;
        return CESSION_OK;
    }
    if (s->seen_at != CES_SEEN_RAW) {
        *ret_changed = true;
        return CESSION_OK;
    }
    int status = ces_session_canonical(s, err);
    if (status == CESSION_OK)
        *ret_changed = !cession_span_eq(ces_session_seen(s), in->mine);
    return status;
}

int cession_session_commit(cession_session *session, const cession_commit *commit,
                           cession_outcome *ret_outcome, cession_error *err)
{
    cession_session *s = session;
    const cession_commit *in = commit;
    cession_outcome out = {.action = CESSION_ACT_NONE, .cookie = CESSION_COOKIE_NONE};
    bool accessed = in->accessed || in->force_store || s->old_len > 0;

    if (s->state == CES_FAILED)
        return cession_fail(err, CESSION_E_STATE, "loading the session failed");
    if (in->lifetime_ms <= 0)
        return cession_fail(err, CESSION_E_INVALID, "the lifetime of a session is not positive");
    /* Nobody looked, and there is nothing to compare: no need to decide. */
    bool idle = !accessed && (s->state != CES_LOADED || in->mine.len == 0);
    if (in->never_store || idle) {
        *ret_outcome = out;
        return CESSION_OK;
    }
    if (s->state != CES_LOADED)
        return cession_fail(err, CESSION_E_STATE, "the session was accessed and not loaded");

    bool changed;
    int status = differs(s, in, &changed, err);
    if (status != CESSION_OK)
        return status;
    bool live = !s->is_new && !s->retired && !s->lost;
    cession_facts facts = {
        .accessed = accessed,
        .is_new = s->is_new,
        .empty = in->empty,
        .changed = changed || (in->force_store && live),
        .modified = in->modified,
        .permanent = in->permanent,
        .permanence_changed = in->permanence_changed,
        .sid_changed = s->old_len > 0,
        .old_signature = in->old_signature,
        .unknown_sid = s->sid_unknown || s->rejected,
        .retired = s->retired,
        .lost = s->lost,
        .touch_due = live && cession_touch_due(s->flow->config.now_ms(), s->stored.expires_at_ms,
                                               in->lifetime_ms, s->flow->config.touch_interval_ms),
        .refresh = in->refresh,
    };
    out.action = cession_decide_action(&facts);
    switch (out.action) {
    case CESSION_ACT_NONE:
        break;
    case CESSION_ACT_TOUCH:
        status = commit_touch(s, in, &out, err);
        break;
    case CESSION_ACT_DROP:
        out.lost = true;
        forget(s, in->mine);
        break;
    default:
        status = commit_write(s, in, &out, err);
        break;
    }
    if (status != CESSION_OK)
        return status;
    out.cookie = cession_decide_cookie(&facts, out.action, out.status);
    *ret_outcome = out;
    return CESSION_OK;
}
