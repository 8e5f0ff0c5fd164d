/* From the store's bytes to what the application may see. */
#include "flow/flow.h"

#include "session/merge.h"

#include "base/banned.h"

cession_span ces_session_seen(const cession_session *s)
{
    return s->seen_at == CES_SEEN_OWN ? cession_buf_span(&s->seen)
                                      : cession_buf_span(&s->stored.value);
}

int ces_session_canonical(cession_session *s, cession_error *err)
{
    if (s->seen_at != CES_SEEN_RAW)
        return CESSION_OK;
    const cession_codec *codec = s->flow->config.codec;
    cession_span raw = cession_buf_span(&s->stored.value);
    int status = codec->canonical(codec, raw, &s->seen, err);
    if (status != CESSION_OK)
        return status;
    s->seen_at = cession_span_eq(cession_buf_span(&s->seen), raw) ? CES_SEEN_STORED : CES_SEEN_OWN;
    return CESSION_OK;
}

/* No usable record: a new session under an id of ours, whatever the client sent. */
static int start_new(cession_session *s, cession_error *err)
{
    ces_session_blank(s);
    int status = ces_session_new_sid(s, err);
    if (status != CESSION_OK)
        return status;
    s->is_new = true;
    return CESSION_OK;
}

/* A record whose bytes contain the name of the metadata key: is it one, and what
 * does it say? */
static int read_metadata(cession_session *s, cession_error *err)
{
    const cession_codec *codec = s->flow->config.codec;
    cession_span raw = cession_buf_span(&s->stored.value);
    int status = codec->canonical(codec, raw, &s->target, err);
    if (status != CESSION_OK)
        return status;

    cession_view view;
    cession_view_init(&view);
    status = codec->view(codec, cession_buf_span(&s->target), &view, err);
    const cession_entry *meta = NULL;
    if (status == CESSION_OK)
        meta = ces_view_find(&view, codec->meta_key);
    if (meta) {
        bool dead = false;
        status = ces_flow_is_dead(s->flow, meta->value, &dead, err);
        if (status == CESSION_OK && dead) {
            ces_session_blank(s);
            s->retired = true;
        } else if (status == CESSION_OK) {
            status = cession_buf_set(&s->meta, meta->value.data, meta->value.len);
            if (status != CESSION_OK) {
                cession_fail(err, status, NULL);
            } else {
                size_t at = (size_t)(meta - view.entries);
                memmove(&view.entries[at], &view.entries[at + 1],
                        (view.count - at - 1) * sizeof view.entries[0]);
                view.count--;
                status = codec->compose(codec, view.entries, view.count, &s->seen, err);
                s->seen_at = CES_SEEN_OWN;
            }
        }
    } else if (status == CESSION_OK) {
        /* The name stood somewhere else; the canonical form is a gift. */
        if (cession_span_eq(cession_buf_span(&s->target), raw)) {
            s->seen_at = CES_SEEN_STORED;
        } else {
            cession_buf_swap(&s->seen, &s->target);
            s->seen_at = CES_SEEN_OWN;
        }
    }
    cession_view_release(&view);
    return status;
}

/* E_FORMAT: no session. */
static int read_record(cession_session *s, cession_error *err)
{
    const cession_codec *codec = s->flow->config.codec;
    cession_span raw = cession_buf_span(&s->stored.value);
    if (raw.len == 0)
        return CESSION_E_FORMAT;
    /* Every format that we write has the key literally in its bytes. */
    if (memmem(raw.data, raw.len, CESSION_META_KEY, sizeof CESSION_META_KEY - 1))
        return read_metadata(s, err);

    s->seen_at = CES_SEEN_RAW;
    if (s->flow->config.caller_validates)
        return CESSION_OK;
    cession_view view;
    cession_view_init(&view);
    int status = codec->view(codec, raw, &view, err);
    cession_view_release(&view);
    if (status == CESSION_E_FORMAT) {
        cession_error_clear(err);
        status = ces_session_canonical(s, err);
    }
    return status;
}

int cession_session_load(cession_session *session, cession_deadline deadline, cession_error *err)
{
    cession_session *s = session;
    if (s->state == CES_LOADED)
        return CESSION_OK;
    if (s->state == CES_FAILED)
        return cession_fail(err, CESSION_E_STATE, "loading the session failed before");

    int status = cession_store_load(s->flow->config.store, ces_sid_span(s), deadline, &s->stored,
                                    err);
    if (status == CESSION_E_BUSY && deadline == 0)
        return status; /* asked not to wait: as if nothing had happened */
    if (status == CESSION_OK) {
        status = read_record(s, err);
        if (status == CESSION_E_FORMAT) {
            cession_error_clear(err);
            s->rejected = true;
            status = start_new(s, err);
        }
    } else if (status == CESSION_NOT_FOUND) {
        s->sid_unknown = true;
        status = start_new(s, err);
    }
    s->state = status == CESSION_OK ? CES_LOADED : CES_FAILED;
    return status;
}

int cession_session_reject(cession_session *session, cession_error *err)
{
    cession_session *s = session;
    if (s->state != CES_LOADED || s->is_new || s->retired)
        return cession_fail(err, CESSION_E_STATE, "the session has no value to reject");
    s->rejected = true;
    int status = start_new(s, err);
    if (status != CESSION_OK)
        s->state = CES_FAILED;
    return status;
}
