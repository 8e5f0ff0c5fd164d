/* Replacing the sid: the new record first, then the old one into a tombstone.
 *
 * In this order a failure in between leaves the old session alive and nobody
 * with the new sid; in the other order it would log the visitor out. Between the
 * two steps both records exist, but the new sid has not been told to anyone. The
 * compare-and-set on the old record decides between two requests that regenerate
 * at once, and brings in what others wrote meanwhile.
 *
 * From the insert on `attempt` holds the bytes of the new record. Every way out
 * but success removes that record; if that fails too, the session remembers it
 * (CES_ATTEMPT_OURS) and the next commit starts by removing it. A session that is freed instead
 * leaves it to expire, under a sid that nobody knows.
 */
#include "flow/flow.h"

#include "base/banned.h"

/* Leave with `status`; the new record goes, within what is left of the time. When
 * that must not wait for it, the caller is asked to come again whatever the status,
 * since it would not after a conflict. */
static int undo(ces_commit *c, int status, cession_error *err)
{
    int undone = ces_commit_discard(c, NULL);
    if (ces_commit_must_not_wait(c, undone))
        return cession_fail(err, undone, NULL);
    return status;
}

static int lose(ces_commit *c, cession_error *err)
{
    int status = ces_commit_discard(c, err);
    if (status == CESSION_OK)
        ces_commit_lost(c);
    return status;
}

/* Write `target` over the new record. Only this commit knows its sid: when it is
 * gone, the store has thrown it out. */
static int rewrite(ces_commit *c, bool *ret_gone, cession_error *err)
{
    cession_session *s = c->session;
    *ret_gone = false;
    if (cession_span_eq(cession_buf_span(&s->attempt), cession_buf_span(&s->target)))
        return CESSION_OK;
    cession_expected expected = {.value = cession_buf_span(&s->attempt)};
    int status = cession_store_replace(s->flow->config.store, ces_sid_span(s), &expected,
                                       cession_buf_span(&s->target), c->in->lifetime_ms,
                                       c->in->deadline, &c->current, err);
    if (status == CESSION_GONE) {
        *ret_gone = true;
        return CESSION_OK;
    }
    if (status == CESSION_CONFLICT)
        return cession_fail(err, CESSION_E_INTERNAL, "a record just created holds another value");
    if (status == CESSION_OK)
        cession_buf_swap(&s->attempt, &s->target);
    return status;
}

int ces_commit_regenerate(ces_commit *c, cession_error *err)
{
    cession_session *s = c->session;
    const cession_flow_config *config = &s->flow->config;
    ces_merged merged;

    int status = ces_commit_discard(c, err);
    if (status == CESSION_OK)
        status = ces_commit_prepare(c, &merged, err);
    if (status != CESSION_OK)
        return status;
    if (merged == CES_EMPTY)
        return ces_commit_remove(c, err);
    if (merged == CES_DEAD) {
        ces_commit_lost(c);
        return CESSION_OK;
    }
    status = ces_commit_insert(c, err);
    if (status != CESSION_OK)
        return undo(c, status, err);
    cession_buf_swap(&s->attempt, &s->target);
    s->attempt_at = CES_ATTEMPT_OURS;

    cession_expected expected = {
        .value = cession_buf_span(&s->stored.value),
        .version = cession_span_of(s->stored.version, s->stored.version_len),
    };
    for (;;) {
        status = cession_store_replace(config->store, ces_old_span(s), &expected,
                                       config->codec->tombstone, config->tombstone_ttl_ms,
                                       c->in->deadline, &c->current, err);
        if (status == CESSION_OK)
            break;
        if (status == CESSION_GONE)
            return lose(c, err);
        if (status != CESSION_CONFLICT)
            return undo(c, status, err);

        status = ces_commit_conflict(c, &merged, err);
        if (status != CESSION_OK)
            return undo(c, status, err);
        if (merged == CES_DEAD)
            return lose(c, err);
        if (merged == CES_EMPTY)
            return ces_commit_remove(c, err);
        bool gone;
        status = rewrite(c, &gone, err);
        if (status != CESSION_OK)
            return undo(c, status, err);
        if (gone)
            return lose(c, err);
        expected.value = cession_buf_span(&c->held.value);
        expected.version = cession_span_of(c->held.version, c->held.version_len);
    }
    cession_buf_swap(&s->attempt, &s->target);
    ces_commit_settle(c);
    return CESSION_OK;
}
