/* The configuration of a Flask application, checked and kept. */
#include "flow/request.h"

#include "base/alloc.h"

#include "base/banned.h"

#define LIFETIME_DEFAULT_MS (INT64_C(31) * 24 * 60 * 60 * 1000)
#define TIMEOUT_DEFAULT_MS 2000

/* Bytes that no reader here understands are no session, and a new one replaces it.
 * But a record of an application that keeps JSON is somebody's session: nobody is
 * logged out because a C program cannot read it. */
static int canonical_or_json(const cession_codec *self, cession_span value, cession_buf *out,
                             cession_error *err)
{
    if (value.len > 0 && value.data[0] == '{')
        return cession_fail(err, CESSION_E_UNSUPPORTED,
                            "the session is kept as JSON; C programs read MessagePack only "
                            "(SESSION_SERIALIZATION_FORMAT)");
    return cession_codec_msgpack()->canonical(self, value, out, err);
}

static int copy_text(const char *text, const char **ret_copy)
{
    *ret_copy = text ? ces_strndup(text, strlen(text)) : NULL;
    return !text || *ret_copy ? CESSION_OK : CESSION_E_NOMEM;
}

static int copy_cookie(const cession_cookie_attributes *from, cession_cookie_attributes *to)
{
    *to = *from;
    to->name = to->domain = to->path = to->same_site = NULL;
    int status = copy_text(from->name, &to->name);
    if (status == CESSION_OK)
        status = copy_text(from->domain, &to->domain);
    if (status == CESSION_OK)
        status = copy_text(from->path, &to->path);
    if (status == CESSION_OK)
        status = copy_text(from->same_site, &to->same_site);
    return status;
}

/* Now, and not when the first visitor comes. */
static int check_cookie(const cession_cookie_attributes *attributes, cession_error *err)
{
    cession_buf out;
    cession_buf_init(&out, 16384);
    int status = cession_cookie_write(attributes, cession_span_of(NULL, 0), -1, &out, err);
    cession_buf_release(&out);
    return status;
}

static int make(cession_app *app, const cession_app_config *config, cession_error *err)
{
    const cession_flow_config flow = {
        .store = config->store,
        .codec = &app->codec,
        .sid_bytes = config->sid_bytes,
        .touch_interval_ms = config->touch_ms > 0 ? config->touch_ms : -1,
        .raise_on_conflict = config->raise_on_conflict,
    };
    int status = cession_flow_new(&flow, &app->flow, err);
    if (status == CESSION_OK && config->key_count > 0)
        status = cession_signer_new(config->keys, config->key_count, &app->signer, err);
    if (status == CESSION_OK)
        status = check_cookie(&config->cookie, err);
    if (status == CESSION_OK) {
        status = copy_cookie(&config->cookie, &app->cookie);
        if (status != CESSION_OK)
            cession_fail(err, status, NULL);
    }
    return status;
}

int cession_app_new(const cession_app_config *config, cession_app **ret_app, cession_error *err)
{
    if (config->use_signer && config->key_count == 0)
        return cession_fail(err, CESSION_E_INVALID, "signed cookies need a key");
    if (config->lifetime_ms < 0 || config->timeout_ms < 0 || config->touch_ms < 0)
        return cession_fail(err, CESSION_E_INVALID, "a lifetime or timeout is negative");
    cession_app *app = ces_alloc_zero(sizeof *app);
    if (!app)
        return cession_fail(err, CESSION_E_NOMEM, NULL);
    app->codec = *cession_codec_msgpack();
    app->codec.canonical = canonical_or_json;
    app->use_signer = config->use_signer;
    app->permanent = !config->not_permanent;
    app->refresh = !config->no_refresh;
    app->lifetime_ms = config->lifetime_ms > 0 ? config->lifetime_ms : LIFETIME_DEFAULT_MS;
    app->timeout_ms = config->timeout_ms > 0 ? config->timeout_ms : TIMEOUT_DEFAULT_MS;
    int status = make(app, config, err);
    if (status != CESSION_OK) {
        cession_app_free(app);
        return status;
    }
    *ret_app = app;
    return CESSION_OK;
}

void cession_app_free(cession_app *app)
{
    if (!app)
        return;
    cession_flow_free(app->flow);
    cession_signer_free(app->signer);
    ces_free((char *)app->cookie.name);
    ces_free((char *)app->cookie.domain);
    ces_free((char *)app->cookie.path);
    ces_free((char *)app->cookie.same_site);
    ces_free(app);
}
