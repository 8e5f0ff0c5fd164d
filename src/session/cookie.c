/* The rules are werkzeug's, which is what Flask reads and writes cookies with:
 * sansio/http.py parse_cookie and http.py dump_cookie, as of 3.1; the tests
 * compare both ways. */
#include "session/cookie.h"

#include <stdio.h>
#include <strings.h>
#include <time.h>

#include "base/msgpack.h"
#include "base/banned.h"

#define NAME_DEFAULT "session"
#define ATTRIBUTE_MAX 1024u /* bytes of a name, a domain, a path */

/* ---- Cookie --------------------------------------------------------------- */

typedef struct scanner {
    const uint8_t *at, *end;
} scanner;

static bool blank(uint8_t c)
{
    return c == ' ' || c == '\t';
}

static void skip_blanks(scanner *s)
{
    while (s->at < s->end && blank(*s->at))
        s->at++;
}

static bool at_char(const scanner *s, uint8_t c)
{
    return s->at < s->end && *s->at == c;
}

/* What may stand in a key (with the equals sign) or in a value without quotes. */
static cession_span take_token(scanner *s, bool key)
{
    const uint8_t *from = s->at;
    while (s->at < s->end && !blank(*s->at) && *s->at != '"' && *s->at != ';' &&
           !(key && *s->at == '='))
        s->at++;
    return cession_span_of(from, (size_t)(s->at - from));
}

/* "...", a backslash taking the next character along. Moves only when it is one. */
static bool take_quoted(scanner *s, cession_span *ret_inside)
{
    if (!at_char(s, '"'))
        return false;
    for (const uint8_t *p = s->at + 1; p < s->end; p++) {
        if (*p == '"') {
            *ret_inside = cession_span_of(s->at + 1, (size_t)(p - s->at - 1));
            s->at = p + 1;
            return true;
        }
        if (*p == '\\')
            p++;
    }
    return false;
}

/* One pair up to and with its semicolon. False: there is none that anybody would
 * read; what follows the next semicolon may be one. */
static bool take_pair(scanner *s, cession_span *ret_key, cession_span *ret_value)
{
    scanner t = *s;
    cession_span value = cession_span_of("", 0);
    skip_blanks(&t);
    cession_span key = take_token(&t, true);
    skip_blanks(&t);
    if (at_char(&t, '=')) {
        t.at++;
        skip_blanks(&t);
        if (!take_quoted(&t, &value))
            value = take_token(&t, false);
        skip_blanks(&t);
    }
    if (key.len == 0 || (t.at < t.end && *t.at != ';'))
        return false;
    s->at = t.at < t.end ? t.at + 1 : t.end;
    *ret_key = key;
    *ret_value = value;
    return true;
}

/* A pair that is none, but one for the name that others may read. */
static bool claims(scanner s, cession_span name)
{
    skip_blanks(&s);
    cession_span key = take_token(&s, true);
    skip_blanks(&s);
    return cession_span_eq(key, name) && at_char(&s, '=');
}

int cession_cookie_find(cession_span header, cession_span name, cession_span *ret_value,
                        bool *ret_plain)
{
    int status = CESSION_NOT_FOUND;
    bool plain = true;
    for (size_t i = 0; i < header.len; i++) {
        uint8_t c = header.data[i];
        if (c == '"' || c == 0x7f || (c < ' ' && c != '\t'))
            plain = false;
    }
    scanner s = {header.data, header.data + header.len};
    while (header.len > 0 && s.at < s.end && status == CESSION_NOT_FOUND) {
        cession_span key, value;
        if (take_pair(&s, &key, &value)) {
            if (cession_span_eq(key, name)) {
                *ret_value = value;
                status = CESSION_OK;
            }
        } else {
            if (claims(s, name))
                plain = false;
            const uint8_t *next = memchr(s.at, ';', (size_t)(s.end - s.at));
            s.at = next ? next + 1 : s.end;
        }
    }
    if (ret_plain)
        *ret_plain = plain;
    return status;
}

int cession_cookie_read(cession_span value, const cession_signer *signer, bool use_signer,
                        bool any_printable, cession_cookie_sid *ret_in, cession_error *err)
{
    cession_cookie_sid in = {.sid = {NULL, 0}};
    if (use_signer && !signer)
        return cession_fail(err, CESSION_E_INVALID, "signed cookies need a key");
    if (value.len > 0) {
        cession_span sid = value;
        size_t key = 0;
        int status = signer ? cession_signer_verify(signer, value, &sid, &key, err)
                            : CESSION_NOT_FOUND;
        if (status < 0)
            return status;
        if ((use_signer && status != CESSION_OK) || !cession_sid_valid(sid, any_printable)) {
            in.refused = true;
        } else {
            in.sid = sid;
            in.old_signature = status == CESSION_OK && (key != 0 || !use_signer);
        }
    }
    *ret_in = in;
    return CESSION_OK;
}

cession_span ces_cookie_name(const cession_cookie_attributes *attributes)
{
    return cession_span_str(attributes->name ? attributes->name : NAME_DEFAULT);
}

/* ---- Set-Cookie ----------------------------------------------------------- */

static void put_digits(char *to, int number, int count)
{
    while (count-- > 0) {
        to[count] = (char)('0' + number % 10);
        number /= 10;
    }
}

bool ces_http_date(int64_t unix_s, char ret_text[CES_HTTP_DATE_LEN + 1])
{
    static const char days[][4] = {"Sun", "Mon", "Tue", "Wed", "Thu", "Fri", "Sat"};
    static const char months[][4] = {"Jan", "Feb", "Mar", "Apr", "May", "Jun",
                                     "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"};
    struct tm tm;
    time_t at = (time_t)unix_s;
    if (!gmtime_r(&at, &tm) || tm.tm_year > 9999 - 1900 || tm.tm_year < 0)
        return false;
    /* printf would be a third of what a whole Set-Cookie costs. */
    memcpy(ret_text, "Day, 00 Mon 0000 00:00:00 GMT", CES_HTTP_DATE_LEN + 1);
    memcpy(ret_text, days[tm.tm_wday], 3);
    put_digits(ret_text + 5, tm.tm_mday, 2);
    memcpy(ret_text + 8, months[tm.tm_mon], 3);
    put_digits(ret_text + 12, tm.tm_year + 1900, 4);
    put_digits(ret_text + 17, tm.tm_hour, 2);
    put_digits(ret_text + 20, tm.tm_min, 2);
    put_digits(ret_text + 23, tm.tm_sec, 2);
    return true;
}

static int wrong(cession_error *err, const char *what)
{
    return cession_fail(err, CESSION_E_INVALID, "the cookie's %s", what);
}

static int add(cession_buf *out, const char *text, cession_span more)
{
    int status = cession_buf_append(out, text, strlen(text));
    return status == CESSION_OK ? cession_buf_append(out, more.data, more.len) : status;
}

/* RFC 6265: a name is a token of HTTP. */
static int check_name(cession_span name, cession_error *err)
{
    bool good = name.len > 0 && name.len <= ATTRIBUTE_MAX;
    for (size_t i = 0; i < name.len && good; i++)
        good = name.data[i] > ' ' && name.data[i] < 0x7f &&
               !strchr("()<>@,;:\\\"/[]?={}", name.data[i]);
    return good ? CESSION_OK : wrong(err, "name is to be ASCII without blanks and separators");
}

/* A port and dots in front go, as in werkzeug. */
static int find_domain(const char *domain, cession_span *ret_domain, cession_error *err)
{
    cession_span span = cession_span_str(domain);
    const uint8_t *colon = span.len > 0 ? memchr(span.data, ':', span.len) : NULL;
    if (colon)
        span.len = (size_t)(colon - span.data);
    while (span.len > 0 && span.data[0] == '.')
        span = cession_span_of(span.data + 1, span.len - 1);
    bool good = span.len <= ATTRIBUTE_MAX;
    for (size_t i = 0; i < span.len && good; i++)
        good = span.data[i] > ' ' && span.data[i] < 0x7f && span.data[i] != ';' &&
               span.data[i] != ',';
    if (!good)
        return wrong(err, "domain is to be a host's name in ASCII (of other names the IDNA form)");
    *ret_domain = span;
    return CESSION_OK;
}

static int find_same_site(const char *same_site, const char **ret_text, cession_error *err)
{
    static const char *const known[] = {"Strict", "Lax", "None"};
    *ret_text = NULL;
    if (!same_site)
        return CESSION_OK;
    for (size_t i = 0; i < sizeof known / sizeof known[0]; i++) {
        if (strcasecmp(same_site, known[i]) == 0) {
            *ret_text = known[i];
            return CESSION_OK;
        }
    }
    return wrong(err, "SameSite is \"Strict\", \"Lax\" or \"None\"");
}

/* Percent-encoded but for what a path segment may hold, the semicolon excepted. */
static int add_path(cession_buf *out, cession_span path)
{
    static const char hex[] = "0123456789ABCDEF";
    int status = cession_buf_append(out, "; Path=", 7);
    for (size_t i = 0; i < path.len && status == CESSION_OK; i++) {
        uint8_t c = path.data[i];
        bool plain = (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') ||
                     strchr("_.-~%!$&'()*+,/:=@", c);
        char coded[] = {'%', hex[c >> 4], hex[c & 15]};
        status = plain ? cession_buf_byte(out, c) : cession_buf_append(out, coded, sizeof coded);
    }
    return status;
}

int cession_cookie_write(const cession_cookie_attributes *attributes, cession_span value,
                         int64_t expires_s, cession_buf *out, cession_error *err)
{
    const cession_cookie_attributes *a = attributes;
    cession_span name = ces_cookie_name(a);
    cession_span path = cession_span_str(a->path ? a->path : "/");
    cession_span domain = cession_span_of(NULL, 0);
    const char *same_site;
    char date[CES_HTTP_DATE_LEN + 1];
    bool deletes = value.len == 0;

    int status = check_name(name, err);
    if (status == CESSION_OK && a->domain)
        status = find_domain(a->domain, &domain, err);
    if (status == CESSION_OK)
        status = find_same_site(a->same_site, &same_site, err);
    if (status != CESSION_OK)
        return status;
    if (path.len > ATTRIBUTE_MAX || !ces_utf8_valid(path.data, path.len))
        return wrong(err, "path is to be UTF-8");
    if (value.len > CESSION_SIGNED_MAX || !ces_sid_printable(value))
        return wrong(err, "value is too long or would need quotes");
    if (deletes)
        expires_s = 0;
    if (expires_s >= 0 && !ces_http_date(expires_s, date))
        return wrong(err, "expiry lies after the year 9999");

    size_t before = out->len;
    status = cession_buf_append(out, name.data, name.len);
    if (status == CESSION_OK)
        status = add(out, "=", value);
    if (status == CESSION_OK && domain.len > 0)
        status = add(out, "; Domain=", domain);
    if (status == CESSION_OK && expires_s >= 0)
        status = add(out, "; Expires=", cession_span_str(date));
    if (status == CESSION_OK && deletes)
        status = add(out, "; Max-Age=0", cession_span_of(NULL, 0));
    if (status == CESSION_OK && (a->secure || a->partitioned))
        status = add(out, "; Secure", cession_span_of(NULL, 0));
    if (status == CESSION_OK && !a->script_access)
        status = add(out, "; HttpOnly", cession_span_of(NULL, 0));
    if (status == CESSION_OK)
        status = add_path(out, path);
    if (status == CESSION_OK && same_site)
        status = add(out, "; SameSite=", cession_span_str(same_site));
    if (status == CESSION_OK && a->partitioned)
        status = add(out, "; Partitioned", cession_span_of(NULL, 0));
    if (status != CESSION_OK) {
        out->len = before;
        return cession_fail(err, status, NULL);
    }
    return CESSION_OK;
}
