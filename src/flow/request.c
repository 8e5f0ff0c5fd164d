/* A request: the flow's session, and the application's copy of its content.
 *
 * `content` is the copy, canonical bytes that `view` takes apart. A change composes
 * new bytes in `next` and makes them the content once all of it has worked, so that
 * a failure leaves everything as it was. Sessions are small; this costs about what
 * the commit's comparison costs. */
#include "flow/request.h"

#include "base/alloc.h"
#include "session/cookie.h"
#include "session/merge.h"

#include "base/banned.h"

struct cession_request {
    const cession_app *app;
    cession_session *session;
    cession_cookie cookie; /* of all commits so far */
    bool taken;            /* `content` is there */
    bool modified, was_permanent, old_signature, lost;
    cession_buf content, next;
    cession_view view; /* borrows `content` */
};

/* ---- opening --------------------------------------------------------------- */

int cession_request_open_value(const cession_app *app, cession_span cookie_value,
                               cession_request **ret_request, cession_error *err)
{
    cession_cookie_sid in;
    int status = cession_cookie_read(cookie_value, app->signer, app->use_signer, false, &in, err);
    if (status != CESSION_OK)
        return status;
    cession_request *r = ces_alloc_zero(sizeof *r);
    if (!r)
        return cession_fail(err, CESSION_E_NOMEM, NULL);
    r->app = app;
    r->old_signature = in.old_signature;
    cession_buf_init(&r->content, CESSION_VALUE_MAX);
    cession_buf_init(&r->next, CESSION_VALUE_MAX);
    cession_view_init(&r->view);
    status = cession_session_open(app->flow, in.sid, &r->session, err);
    if (status != CESSION_OK) {
        cession_request_free(r);
        return status;
    }
    *ret_request = r;
    return CESSION_OK;
}

int cession_request_open(const cession_app *app, cession_span cookie_header,
                         cession_request **ret_request, cession_error *err)
{
    cession_span value = cession_span_of(NULL, 0);
    cession_cookie_find(cookie_header, ces_cookie_name(&app->cookie), &value, NULL);
    return cession_request_open_value(app, value, ret_request, err);
}

void cession_request_free(cession_request *request)
{
    if (!request)
        return;
    cession_session_free(request->session);
    cession_view_release(&request->view);
    cession_buf_release(&request->content);
    cession_buf_release(&request->next);
    ces_free(request);
}

/* ---- content --------------------------------------------------------------- */

static const cession_entry *find(const cession_request *r, cession_span key)
{
    return ces_view_find(&r->view, key);
}

/* What Python would find true. */
static bool truth(cession_span value)
{
    cession_item item;
    if (cession_item_read(&value, &item) != CESSION_OK)
        return false;
    switch (item.type) {
    case CESSION_ITEM_NIL:
        return false;
    case CESSION_ITEM_BOOL:
        return item.as.boolean;
    case CESSION_ITEM_INT:
        return item.as.integer != 0;
    case CESSION_ITEM_DOUBLE:
        return item.as.number < 0 || item.as.number > 0 || item.as.number != item.as.number;
    case CESSION_ITEM_TEXT:
    case CESSION_ITEM_BYTES:
        return item.as.bytes.len > 0;
    case CESSION_ITEM_ARRAY:
    case CESSION_ITEM_MAP:
        return item.as.count > 0;
    case CESSION_ITEM_UINT:
    case CESSION_ITEM_EXT:
        break;
    }
    return true;
}

bool cession_request_is_permanent(const cession_request *request)
{
    if (!request->taken)
        return false;
    const cession_entry *entry = find(request, request->app->codec.permanent_key);
    return entry && truth(entry->value);
}

/* `next` becomes the content. The view is made of it first: it is the last thing
 * that can fail. */
static int adopt(cession_request *r, cession_error *err)
{
    const cession_codec *codec = &r->app->codec;
    cession_view view;
    cession_view_init(&view);
    int status = codec->view(codec, cession_buf_span(&r->next), &view, err);
    if (status != CESSION_OK)
        return status;
    cession_buf_swap(&r->content, &r->next);
    cession_view_release(&r->view);
    r->view = view;
    return CESSION_OK;
}

/* The whole content anew from these entries, which may lie in it. */
static int compose(cession_request *r, const cession_entry *entries, size_t count,
                   cession_error *err)
{
    const cession_codec *codec = &r->app->codec;
    int status = codec->compose(codec, entries, count, &r->next, err);
    return status == CESSION_OK ? adopt(r, err) : status;
}

static const uint8_t true_item[] = {0xc3}, false_item[] = {0xc2};

static int take_content(cession_request *r, cession_error *err)
{
    const cession_codec *codec = &r->app->codec;
    cession_span value = cession_session_value(r->session);
    int status;
    if (value.len > 0) {
        status = codec->canonical(codec, value, &r->next, err);
        if (status == CESSION_OK)
            status = adopt(r, err);
    } else {
        bool permanent = r->app->permanent && cession_session_is_new(r->session);
        const cession_entry entry = {codec->permanent_key, cession_span_of(true_item, 1)};
        status = compose(r, &entry, permanent ? 1 : 0, err);
    }
    if (status == CESSION_OK) {
        r->taken = true;
        r->was_permanent = cession_request_is_permanent(r);
    }
    return status;
}

int cession_request_load(cession_request *request, cession_error *err)
{
    cession_request *r = request;
    if (r->taken)
        return CESSION_OK;
    int status = cession_session_load(r->session, cession_deadline_in(r->app->timeout_ms), err);
    return status == CESSION_OK ? take_content(r, err) : status;
}

bool cession_request_is_new(const cession_request *request)
{
    return cession_session_is_new(request->session) || cession_session_is_retired(request->session);
}

bool cession_request_was_accessed(const cession_request *request)
{
    return request->taken;
}

/* ---- keys ------------------------------------------------------------------- */

/* The encoded item of a key; the buffer is the caller's to release. */
static int encode_key(const char *key, cession_buf *ret_key, cession_error *err)
{
    const cession_item item = cession_item_text(key);
    cession_buf_init(ret_key, CESSION_VALUE_MAX);
    int status = cession_item_write(&item, ret_key);
    if (status == CESSION_E_INVALID)
        return cession_fail(err, status, "a key is to be UTF-8");
    return status == CESSION_OK ? status : cession_fail(err, status, NULL);
}

int cession_request_get(cession_request *request, const char *key, cession_span *ret_value,
                        cession_error *err)
{
    cession_buf name;
    int status = cession_request_load(request, err);
    if (status != CESSION_OK)
        return status;
    status = encode_key(key, &name, err);
    if (status == CESSION_OK) {
        const cession_entry *entry = find(request, cession_buf_span(&name));
        if (entry)
            *ret_value = entry->value;
        else
            status = CESSION_NOT_FOUND;
    }
    cession_buf_release(&name);
    return status;
}

int cession_request_entries(cession_request *request, const cession_entry **ret_entries,
                            size_t *ret_count, cession_error *err)
{
    int status = cession_request_load(request, err);
    if (status == CESSION_OK) {
        *ret_entries = request->view.entries;
        *ret_count = request->view.count;
    }
    return status;
}

/* ---- changing --------------------------------------------------------------- */

/* The entries with that of key replaced by value, appended, or (no value) left
 * out. NOT_FOUND: it was to be left out and is not there. */
static int change(cession_request *r, cession_span key, cession_span value, cession_error *err)
{
    const cession_view *view = &r->view;
    const cession_entry *found = find(r, key);
    if (!found && value.len == 0)
        return CESSION_NOT_FOUND;
    cession_entry *entries = ces_alloc((view->count + 1) * sizeof *entries);
    if (!entries)
        return cession_fail(err, CESSION_E_NOMEM, NULL);
    size_t count = 0;
    for (size_t i = 0; i < view->count; i++) {
        if (&view->entries[i] != found)
            entries[count++] = view->entries[i];
        else if (value.len > 0)
            entries[count++] = (cession_entry){key, value};
    }
    if (!found)
        entries[count++] = (cession_entry){key, value};
    int status = compose(r, entries, count, err);
    ces_free(entries);
    if (status == CESSION_OK)
        r->modified = true;
    return status;
}

/* One complete item in canonical form; the buffer is the caller's to release. */
static int canonical_item(const cession_request *r, cession_span value, cession_buf *ret_item,
                          cession_error *err)
{
    /* As the only value of a map, so that depth counts as it will. */
    static const uint8_t nil[] = {0xc0};
    const cession_codec *codec = &r->app->codec;
    const cession_entry entry = {cession_span_of(nil, 1), value};
    cession_buf map;
    cession_span rest = value;
    cession_buf_init(&map, CESSION_VALUE_MAX);
    cession_buf_init(ret_item, CESSION_VALUE_MAX);
    int status = cession_item_skip(&rest);
    if (status == CESSION_OK && rest.len > 0)
        status = CESSION_E_FORMAT;
    if (status == CESSION_OK)
        status = codec->compose(codec, &entry, 1, &map, err);
    if (status == CESSION_OK)
        status = codec->canonical(codec, cession_buf_span(&map), ret_item, err);
    if (status == CESSION_OK) {
        /* Header and key have a byte each. */
        memmove(ret_item->data, ret_item->data + 2, ret_item->len - 2);
        ret_item->len -= 2;
    } else if (status == CESSION_E_FORMAT) {
        status = cession_fail(err, CESSION_E_INVALID, "a value is to be one MessagePack item");
    }
    cession_buf_release(&map);
    return status;
}

int cession_request_set(cession_request *request, const char *key, cession_span value,
                        cession_error *err)
{
    cession_buf name, item;
    int status = cession_request_load(request, err);
    if (status != CESSION_OK)
        return status;
    if (strcmp(key, CESSION_META_KEY) == 0)
        return cession_fail(err, CESSION_E_INVALID, "the key %s is reserved", CESSION_META_KEY);
    status = encode_key(key, &name, err);
    if (status == CESSION_OK) {
        status = canonical_item(request, value, &item, err);
        if (status == CESSION_OK)
            status = change(request, cession_buf_span(&name), cession_buf_span(&item), err);
        cession_buf_release(&item);
    }
    cession_buf_release(&name);
    return status;
}

int cession_request_set_item(cession_request *request, const char *key, const cession_item *item,
                             cession_error *err)
{
    cession_buf value;
    cession_buf_init(&value, CESSION_VALUE_MAX);
    int status = cession_item_write(item, &value);
    if (status == CESSION_E_INVALID)
        cession_fail(err, status, "a text is to be UTF-8");
    else if (status != CESSION_OK)
        cession_fail(err, status, NULL);
    else
        status = cession_request_set(request, key, cession_buf_span(&value), err);
    cession_buf_release(&value);
    return status;
}

int cession_request_unset(cession_request *request, const char *key, cession_error *err)
{
    cession_buf name;
    int status = cession_request_load(request, err);
    if (status != CESSION_OK)
        return status;
    status = encode_key(key, &name, err);
    if (status == CESSION_OK)
        status = change(request, cession_buf_span(&name), cession_span_of(NULL, 0), err);
    cession_buf_release(&name);
    return status;
}

int cession_request_clear(cession_request *request, cession_error *err)
{
    cession_request *r = request;
    int status = cession_request_load(r, err);
    if (status != CESSION_OK)
        return status;
    const cession_entry *permanent = find(r, r->app->codec.permanent_key);
    status = compose(r, permanent, permanent ? 1 : 0, err);
    if (status == CESSION_OK)
        r->modified = true;
    return status;
}

int cession_request_set_permanent(cession_request *request, bool permanent, cession_error *err)
{
    int status = cession_request_load(request, err);
    if (status != CESSION_OK)
        return status;
    return change(request, request->app->codec.permanent_key,
                  cession_span_of(permanent ? true_item : false_item, 1), err);
}

int cession_request_regenerate(cession_request *request, cession_error *err)
{
    int status = cession_request_load(request, err);
    return status == CESSION_OK ? cession_session_regenerate(request->session, err) : status;
}

/* ---- the end ---------------------------------------------------------------- */

int cession_request_commit(cession_request *request, cession_outcome *ret_outcome,
                           cession_error *err)
{
    cession_request *r = request;
    const cession_codec *codec = &r->app->codec;
    bool permanent = cession_request_is_permanent(r);
    const cession_commit commit = {
        .mine = cession_buf_span(&r->content),
        .accessed = r->taken,
        .modified = r->modified,
        .empty = ces_view_empty(codec, &r->view),
        .permanent = permanent,
        .permanence_changed = permanent != r->was_permanent,
        .old_signature = r->old_signature,
        .refresh = r->app->refresh,
        .lifetime_ms = r->app->lifetime_ms,
        .deadline = cession_deadline_in(r->app->timeout_ms),
    };
    cession_outcome outcome;
    int status = cession_session_commit(r->session, &commit, &outcome, err);
    if (status != CESSION_OK)
        return status;
    r->modified = false;
    r->was_permanent = permanent;
    if (outcome.lost || outcome.status == CESSION_GONE) {
        r->lost = true;
        r->cookie = CESSION_COOKIE_NONE;
    } else if (outcome.cookie != CESSION_COOKIE_NONE && !r->lost) {
        r->cookie = outcome.cookie;
    }
    if (outcome.cookie == CESSION_COOKIE_SET)
        r->old_signature = false;
    if (ret_outcome)
        *ret_outcome = outcome;
    return CESSION_OK;
}

int cession_request_cookie(const cession_request *request, cession_buf *out, cession_error *err)
{
    const cession_request *r = request;
    const cession_app *app = r->app;
    if (r->cookie == CESSION_COOKIE_NONE)
        return CESSION_NOT_FOUND;
    if (r->cookie == CESSION_COOKIE_DELETE)
        return cession_cookie_write(&app->cookie, cession_span_of(NULL, 0), -1, out, err);

    size_t len;
    const char *sid = cession_session_sid(r->session, &len);
    cession_span value = cession_span_of(sid, len);
    int64_t expires_s = cession_request_is_permanent(r)
                            ? (cession_now_ms() + app->lifetime_ms) / 1000
                            : -1;
    cession_buf signed_value;
    cession_buf_init(&signed_value, CESSION_SIGNED_MAX);
    int status = CESSION_OK;
    if (app->use_signer) {
        status = cession_signer_sign(app->signer, value, &signed_value, err);
        value = cession_buf_span(&signed_value);
    }
    if (status == CESSION_OK)
        status = cession_cookie_write(&app->cookie, value, expires_s, out, err);
    cession_buf_release(&signed_value);
    return status;
}
