#include "site.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#define KEYS_MAX 16

static const char *setting(const char *name, const char *otherwise)
{
    const char *value = getenv(name);
    return value && *value ? value : otherwise;
}

/* SECRET_KEY and the lines of SECRET_KEY_FALLBACKS; how many. */
static size_t find_keys(cession_span keys[KEYS_MAX])
{
    size_t count = 0;
    const char *secret = setting("SECRET_KEY", NULL);
    const char *at = setting("SECRET_KEY_FALLBACKS", "");
    if (secret)
        keys[count++] = cession_span_str(secret);
    while (secret && *at && count < KEYS_MAX) {
        size_t len = strcspn(at, "\n");
        if (len > 0)
            keys[count++] = cession_span_of(at, len);
        at += len + (at[len] == '\n');
    }
    return count;
}

int site_open(site *ret_site, cession_error *err)
{
    site s = {NULL, NULL};
    cession_store *plain = NULL;
    cession_span keys[KEYS_MAX];
    cession_app_config config = {
        .keys = keys,
        .key_count = find_keys(keys),
        .use_signer = strcmp(setting("SESSION_USE_SIGNER", "0"), "1") == 0,
        .lifetime_ms = strtoll(setting("PERMANENT_SESSION_LIFETIME", "0"), NULL, 10) * 1000,
        .cookie = {.name = setting("SESSION_COOKIE_NAME", NULL),
                   .path = setting("SESSION_COOKIE_PATH", NULL),
                   .same_site = setting("SESSION_COOKIE_SAMESITE", NULL),
                   .secure = strcmp(setting("SESSION_COOKIE_SECURE", "0"), "1") == 0},
    };
    const char *url = setting("SESSION_URL", NULL);
    cession_span prefix = cession_span_str(setting("SESSION_KEY_PREFIX", "session:"));

    if (!url) {
        cession_fail(err, CESSION_E_INVALID, "SESSION_URL is not set");
        return -1;
    }
    if (cession_store_open_url(url, &plain, err) != CESSION_OK)
        return -1;
    if (cession_store_prefix(plain, prefix, &s.store, err) != CESSION_OK) {
        cession_store_close(plain);
        return -1;
    }
    config.store = s.store;
    if (cession_app_new(&config, &s.app, err) != CESSION_OK) {
        site_close(&s);
        return -1;
    }
    *ret_site = s;
    return 0;
}

void site_close(site *s)
{
    cession_app_free(s->app);
    cession_store_close(s->store);
}

/* ---- showing ---------------------------------------------------------------- */

static void put_text(FILE *out, cession_span text, put_char *put)
{
    for (size_t i = 0; i < text.len; i++)
        put(out, text.data[i]);
}

/* Moves *rest past what was printed. The depth is limited by cession_item_read. */
static void show_next(FILE *out, cession_span *rest, put_char *put)
{
    cession_item item;
    if (cession_item_read(rest, &item) != CESSION_OK) {
        fputs("(damaged)", out);
        *rest = cession_span_of(NULL, 0);
        return;
    }
    switch (item.type) {
    case CESSION_ITEM_NIL:
        fputs("null", out);
        break;
    case CESSION_ITEM_BOOL:
        fputs(item.as.boolean ? "true" : "false", out);
        break;
    case CESSION_ITEM_INT:
        fprintf(out, "%" PRId64, item.as.integer);
        break;
    case CESSION_ITEM_UINT:
        fprintf(out, "%" PRIu64, item.as.natural);
        break;
    case CESSION_ITEM_DOUBLE:
        fprintf(out, "%.17g", item.as.number);
        break;
    case CESSION_ITEM_TEXT:
        put(out, '"');
        put_text(out, item.as.bytes, put);
        put(out, '"');
        break;
    case CESSION_ITEM_BYTES:
        put_text(out, cession_span_str("<"), put);
        fprintf(out, "%zu bytes", item.as.bytes.len);
        put_text(out, cession_span_str(">"), put);
        break;
    case CESSION_ITEM_EXT:
        put_text(out, cession_span_str("<"), put);
        fprintf(out, "extension %d", item.extension);
        put_text(out, cession_span_str(">"), put);
        break;
    case CESSION_ITEM_ARRAY:
        fputs("[", out);
        for (size_t i = 0; i < item.as.count && rest->len > 0; i++) {
            fputs(i > 0 ? ", " : "", out);
            show_next(out, rest, put);
        }
        fputs("]", out);
        break;
    case CESSION_ITEM_MAP:
        fputs("{", out);
        for (size_t i = 0; i < item.as.count && rest->len > 0; i++) {
            fputs(i > 0 ? ", " : "", out);
            show_next(out, rest, put);
            fputs(": ", out);
            show_next(out, rest, put);
        }
        fputs("}", out);
        break;
    }
}

void show_value(FILE *out, cession_span item, put_char *put)
{
    show_next(out, &item, put);
}

void show_key(FILE *out, cession_span item, put_char *put)
{
    cession_span rest = item;
    cession_item key;
    if (cession_item_read(&rest, &key) == CESSION_OK && key.type == CESSION_ITEM_TEXT)
        put_text(out, key.as.bytes, put);
    else
        show_value(out, item, put);
}
