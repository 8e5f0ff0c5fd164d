/* See url.h. Texts of errors never repeat the URL: it may hold a password. */
#include "drivers/url.h"

#include "base/banned.h"

static int hex_value(char c)
{
    if (c >= '0' && c <= '9') {
        return c - '0';
    }
    if (c >= 'a' && c <= 'f') {
        return c - 'a' + 10;
    }
    if (c >= 'A' && c <= 'F') {
        return c - 'A' + 10;
    }
    return -1;
}

int ces_url_decode(ces_url_options *options, const char *text, size_t len, const char **ret_text,
                   cession_error *err)
{
    char *start = options->room;
    char *at = start;
    for (size_t i = 0; i < len; i++) {
        char c = text[i];
        if (c == '%') {
            int high = i + 1 < len ? hex_value(text[i + 1]) : -1;
            int low = i + 2 < len ? hex_value(text[i + 2]) : -1;
            if (high < 0 || low < 0) {
                return cession_fail(err, CESSION_E_INVALID,
                                    "a %% in the URL must be followed by two hexadecimal digits");
            }
            c = (char)(high * 16 + low);
            i += 2;
            if (c == '\0') {
                return cession_fail(err, CESSION_E_INVALID, "the URL holds a NUL (%%00)");
            }
        } else if (c == '#') {
            return cession_fail(err, CESSION_E_INVALID, "a # in the URL must be written as %%23");
        }
        *at++ = c;
    }
    *at++ = '\0';
    *ret_text = start;
    options->room = at;
    return CESSION_OK;
}

static int next_option(ces_url_options *options, cession_option **ret_option, cession_error *err)
{
    if (options->count == CES_URL_OPTIONS_MAX) {
        return cession_fail(err, CESSION_E_LIMIT, "the URL has more than %u options",
                            CES_URL_OPTIONS_MAX);
    }
    *ret_option = &options->list[options->count];
    return CESSION_OK;
}

int ces_url_add(ces_url_options *options, const char *name, const char *text, size_t len,
                cession_error *err)
{
    cession_option *option = NULL;
    int rc = next_option(options, &option, err);
    if (rc == CESSION_OK) {
        option->name = name;
        rc = ces_url_decode(options, text, len, &option->value, err);
    }
    options->count += rc == CESSION_OK;
    return rc;
}

int ces_url_query(ces_url_options *options, const char *query, cession_error *err)
{
    while (*query != '\0') {
        size_t len = strcspn(query, "&");
        const char *equals = memchr(query, '=', len);
        if (equals == NULL || equals == query) {
            return cession_fail(err, CESSION_E_INVALID,
                                "what follows the ? of the URL must be name=value&name=value");
        }
        size_t name_len = (size_t)(equals - query);
        const char *name = NULL;
        cession_option *option = NULL;
        int rc = next_option(options, &option, err);
        if (rc == CESSION_OK) {
            rc = ces_url_decode(options, query, name_len, &name, err);
        }
        if (rc == CESSION_OK) {
            rc = ces_url_add(options, name, equals + 1, len - name_len - 1, err);
        }
        if (rc != CESSION_OK) {
            return rc;
        }
        query += len;
        if (*query == '&') {
            query++;
        }
    }
    return CESSION_OK;
}
