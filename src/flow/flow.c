/* The flow and the session objects: making, freeing, asking. */
#include "flow/flow.h"

#include "base/alloc.h"
#include "session/merge.h"

#include "base/banned.h"

/* ---- flow ---------------------------------------------------------------- */

int cession_flow_new(const cession_flow_config *config, cession_flow **ret_flow, cession_error *err)
{
    if (!config->store)
        return cession_fail(err, CESSION_E_INVALID, "a flow needs a store");
    if (!config->generate_sid && config->sid_bytes != 0 &&
        (config->sid_bytes < CESSION_SID_BYTES_MIN || config->sid_bytes > CESSION_SID_BYTES_MAX))
        return cession_fail(err, CESSION_E_INVALID, "session ids take %u to %u bytes of entropy",
                            CESSION_SID_BYTES_MIN, CESSION_SID_BYTES_MAX);
    if (config->tombstone_ttl_ms < 0)
        return cession_fail(err, CESSION_E_INVALID, "the lifetime of a tombstone is negative");

    cession_flow *flow = ces_alloc_zero(sizeof *flow);
    if (!flow)
        return cession_fail(err, CESSION_E_NOMEM, NULL);
    flow->config = *config;
    if (!flow->config.codec)
        flow->config.codec = cession_codec_msgpack();
    if (flow->config.sid_bytes == 0)
        flow->config.sid_bytes = CESSION_SID_BYTES_DEFAULT;
    if (flow->config.tombstone_ttl_ms == 0)
        flow->config.tombstone_ttl_ms = CES_FLOW_TOMBSTONE_MS;
    if (!flow->config.now_ms)
        flow->config.now_ms = cession_now_ms;
    cession_view_init(&flow->tombstone);
    cession_view_init(&flow->dead_marks);

    const cession_codec *codec = flow->config.codec;
    int status = codec->view(codec, codec->tombstone, &flow->tombstone, err);
    if (status == CESSION_OK) {
        const cession_entry *entry = ces_view_find(&flow->tombstone, codec->meta_key);
        if (entry)
            flow->dead = entry->value;
        else
            status = cession_fail(err, CESSION_E_INVALID, "the codec's tombstone has no metadata");
    }
    if (status == CESSION_OK) {
        status = codec->view(codec, flow->dead, &flow->dead_marks, err);
        if (status == CESSION_E_FORMAT) {
            flow->dead_marks.count = 0;
            cession_error_clear(err);
            status = CESSION_OK;
        }
    }
    if (status != CESSION_OK) {
        cession_flow_free(flow);
        return status;
    }
    *ret_flow = flow;
    return CESSION_OK;
}

void cession_flow_free(cession_flow *flow)
{
    if (!flow)
        return;
    cession_view_release(&flow->tombstone);
    cession_view_release(&flow->dead_marks);
    ces_free(flow);
}

/* Is this the metadata of a tombstone? A later version may write more into it,
 * so where the codec can look inside, the marks of ours are enough: taking a
 * retired id for a live one would be the worse mistake. */
int ces_flow_is_dead(const cession_flow *flow, cession_span meta, bool *ret_dead,
                     cession_error *err)
{
    if (cession_span_eq(meta, flow->dead) || flow->dead_marks.count == 0) {
        *ret_dead = cession_span_eq(meta, flow->dead);
        return CESSION_OK;
    }
    const cession_codec *codec = flow->config.codec;
    cession_view view;
    cession_view_init(&view);
    bool dead = false;
    int status = codec->view(codec, meta, &view, err);
    if (status == CESSION_OK) {
        dead = true;
        for (size_t i = 0; i < flow->dead_marks.count && dead; i++) {
            const cession_entry *mark = &flow->dead_marks.entries[i];
            const cession_entry *found = ces_view_find(&view, mark->key);
            dead = found && cession_span_eq(found->value, mark->value);
        }
    } else if (status == CESSION_E_FORMAT) {
        cession_error_clear(err);
        status = CESSION_OK;
    }
    cession_view_release(&view);
    if (status == CESSION_OK)
        *ret_dead = dead;
    return status;
}

/* ---- session ------------------------------------------------------------- */

int ces_session_new_sid(cession_session *s, cession_error *err)
{
    const cession_flow_config *config = &s->flow->config;
    char sid[CESSION_SID_MAX + 1];
    size_t len = 0;
    for (unsigned i = 0; i < CES_FLOW_SID_TRIES; i++) {
        int status = config->generate_sid
                         ? config->generate_sid(config->generate_context, sid, &len, err)
                         : cession_sid_generate(config->sid_bytes, sid, &len, err);
        if (status < 0)
            return status;
        if (status > 0 || len > CESSION_SID_MAX ||
            !cession_sid_valid(cession_span_of(sid, len), config->any_printable_sid))
            return cession_fail(err, CESSION_E_CALLBACK,
                                "the application's generator gave an impossible session id");
        /* An old record must never be retired into itself. */
        if (cession_span_eq(cession_span_of(sid, len), ces_old_span(s)))
            continue;
        memcpy(s->sid, sid, len);
        s->sid[len] = '\0';
        s->sid_len = len;
        s->spent = false;
        return CESSION_OK;
    }
    return cession_fail(err, CESSION_E_CALLBACK,
                        "the application's generator gives the same session id every time");
}

void ces_session_blank(cession_session *s)
{
    cession_buf_clear(&s->stored.value);
    s->stored.version_len = 0;
    s->stored.expires_at_ms = CESSION_EXPIRES_UNKNOWN;
    cession_buf_clear(&s->seen);
    cession_buf_clear(&s->meta);
    s->seen_at = CES_SEEN_NONE;
    s->diverged = false;
    s->old_len = 0;
}

int cession_session_open(cession_flow *flow, cession_span sid, cession_session **ret_session,
                         cession_error *err)
{
    cession_session *s = ces_alloc(sizeof *s);
    if (!s)
        return cession_fail(err, CESSION_E_NOMEM, NULL);
    /* Everything before the sids, which are valid up to their lengths only. */
    memset(s, 0, offsetof(cession_session, sid));
    s->flow = flow;
    cession_stored_init(&s->stored);
    cession_buf_init(&s->seen, CESSION_VALUE_MAX);
    cession_buf_init(&s->meta, CESSION_VALUE_MAX);
    cession_buf_init(&s->target, CESSION_VALUE_MAX);
    cession_buf_init(&s->seen_next, CESSION_VALUE_MAX);
    cession_buf_init(&s->attempt, CESSION_VALUE_MAX);
    s->sid[0] = s->old_sid[0] = '\0';

    if (cession_sid_valid(sid, flow->config.any_printable_sid)) {
        memcpy(s->sid, sid.data, sid.len);
        s->sid[sid.len] = '\0';
        s->sid_len = sid.len;
    } else {
        int status = ces_session_new_sid(s, err);
        if (status != CESSION_OK) {
            cession_session_free(s);
            return status;
        }
        s->is_new = true;
        s->state = CES_LOADED;
    }
    *ret_session = s;
    return CESSION_OK;
}

void cession_session_free(cession_session *session)
{
    if (!session)
        return;
    cession_stored_release(&session->stored);
    cession_buf_release(&session->seen);
    cession_buf_release(&session->meta);
    cession_buf_release(&session->target);
    cession_buf_release(&session->seen_next);
    cession_buf_release(&session->attempt);
    ces_free(session);
}

const char *cession_session_sid(const cession_session *session, size_t *ret_len)
{
    if (ret_len)
        *ret_len = session->sid_len;
    return session->sid;
}

cession_span cession_session_value(const cession_session *session)
{
    if (session->state != CES_LOADED || session->is_new || session->retired)
        return cession_span_of(NULL, 0);
    return ces_session_seen(session);
}

bool cession_session_is_new(const cession_session *session)
{
    return session->is_new;
}

bool cession_session_is_loaded(const cession_session *session)
{
    return session->state == CES_LOADED;
}

bool cession_session_is_retired(const cession_session *session)
{
    return session->retired;
}

bool cession_session_was_rejected(const cession_session *session)
{
    return session->rejected;
}

bool cession_session_sid_unknown(const cession_session *session)
{
    return session->sid_unknown;
}

int cession_session_set_base(cession_session *session, cession_span canonical, cession_error *err)
{
    cession_session *s = session;
    if (s->state != CES_LOADED || s->is_new || s->retired || s->lost)
        return cession_fail(err, CESSION_E_STATE, "the session has no stored value to be based on");
    cession_span stored = cession_buf_span(&s->stored.value);
    /* The very bytes that value() gave need no comparison. */
    if ((canonical.len == stored.len && canonical.data == stored.data) ||
        cession_span_eq(canonical, stored)) {
        s->seen_at = CES_SEEN_STORED;
        return CESSION_OK;
    }
    int status = cession_buf_set(&s->seen_next, canonical.data, canonical.len);
    if (status != CESSION_OK)
        return cession_fail(err, status, NULL);
    cession_buf_swap(&s->seen, &s->seen_next);
    s->seen_at = CES_SEEN_OWN;
    return CESSION_OK;
}

int cession_session_regenerate(cession_session *session, cession_error *err)
{
    cession_session *s = session;
    if (s->state != CES_LOADED)
        return cession_fail(err, CESSION_E_STATE, "the session is not loaded");
    /* Nothing of a dead session is ever written, under whatever id. */
    if (s->retired || s->lost)
        return CESSION_OK;
    /* The sid that a failed commit tried is as unknown to everybody as another
     * new one, and the next commit has to find again what may lie there. */
    if (s->attempt_at != CES_ATTEMPT_NONE)
        return CESSION_OK;
    if (s->is_new || s->old_len > 0)
        return ces_session_new_sid(s, err);
    memcpy(s->old_sid, s->sid, s->sid_len + 1);
    s->old_len = s->sid_len;
    int status = ces_session_new_sid(s, err);
    if (status != CESSION_OK)
        s->old_len = 0;
    return status;
}
