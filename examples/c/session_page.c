/* A CGI page in a site whose other pages are a Flask application: it shows the
 * session of the visitor's cookie, keeps notes in it, and logs out.
 *
 *     GET                                   the page
 *     POST action=note name=... text=...    session["note_NAME"] = TEXT; an empty text deletes it
 *     POST action=logout                    the session is gone, for Flask, too
 *
 * Settings come from the environment of the web server: site.h. A POST must carry
 * the token that the page put into the session, so that no other site can send it.
 * Visitors choose the name of a note and not a key: whoever may set any key of his
 * session may make himself administrator.
 *
 * Build: cc -o session_page session_page.c site.c $(pkg-config --cflags --libs cession)
 */
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "site.h"

#define FORM_MAX 65536 /* bytes of a request's body */
#define NAME_MAX_LEN 64
#define TOKEN_KEY "page_token"

/* ---- the request --------------------------------------------------------------- */

typedef struct form {
    char body[FORM_MAX + 1];
    char *action, *name, *text, *token; /* in body; NULL: not sent */
} form;

static int hex_digit(char c)
{
    const char *digits = "0123456789abcdef";
    const char *found = c ? strchr(digits, c | 0x20) : NULL;
    return found ? (int)(found - digits) : -1;
}

/* Of application/x-www-form-urlencoded, in place. A NUL would end the text early. */
static int decode(char *text)
{
    char *to = text;
    for (const char *at = text; *at; at++) {
        char c = *at == '+' ? ' ' : *at;
        if (c == '%') {
            int high = hex_digit(at[1]), low = high < 0 ? -1 : hex_digit(at[2]);
            if (low < 0 || high * 16 + low == 0)
                return -1;
            c = (char)(high * 16 + low);
            at += 2;
        }
        *to++ = c;
    }
    *to = '\0';
    return 0;
}

/* 0, or -1: there is no form that this page could have sent. */
static int read_form(form *f)
{
    const char *length = getenv("CONTENT_LENGTH");
    long len = length ? strtol(length, NULL, 10) : 0;
    if (len <= 0 || len > FORM_MAX || fread(f->body, 1, (size_t)len, stdin) != (size_t)len)
        return -1;
    f->body[len] = '\0';
    f->action = f->name = f->text = f->token = NULL;
    for (char *field = f->body; field;) {
        char *next = strchr(field, '&');
        if (next)
            *next++ = '\0';
        char *value = strchr(field, '=');
        if (!value)
            return -1;
        *value++ = '\0';
        if (decode(value) != 0)
            return -1;
        if (strcmp(field, "action") == 0)
            f->action = value;
        else if (strcmp(field, "name") == 0)
            f->name = value;
        else if (strcmp(field, "text") == 0)
            f->text = value;
        else if (strcmp(field, "token") == 0)
            f->token = value;
        field = next;
    }
    return f->action && f->token ? 0 : -1;
}

/* ---- the session --------------------------------------------------------------- */

/* The token of this session: OK, NOT_FOUND, or the store's error. */
static int get_token(cession_request *request, cession_span *ret_token, cession_error *err)
{
    cession_item item;
    cession_span value;
    int status = cession_request_get(request, TOKEN_KEY, &value, err);
    if (status != CESSION_OK)
        return status;
    if (cession_item_read(&value, &item) != CESSION_OK || item.type != CESSION_ITEM_TEXT)
        return CESSION_NOT_FOUND;
    *ret_token = item.as.bytes;
    return CESSION_OK;
}

/* A live session gets one when it has none. */
static int ensure_token(cession_request *request, cession_error *err)
{
    cession_span token;
    char fresh[CESSION_SID_MAX + 1];
    size_t len;
    int status = get_token(request, &token, err);
    if (status != CESSION_NOT_FOUND || cession_request_is_new(request))
        return status < 0 ? status : CESSION_OK;
    status = cession_sid_generate(CESSION_SID_BYTES_MIN, fresh, &len, err);
    if (status != CESSION_OK)
        return status;
    const cession_item item = cession_item_text(fresh);
    return cession_request_set_item(request, TOKEN_KEY, &item, err);
}

/* In time that does not tell how much of it was right. */
static int same_token(cession_span token, const char *sent)
{
    unsigned char differs = 0;
    if (strlen(sent) != token.len)
        return 0;
    for (size_t i = 0; i < token.len; i++)
        differs |= (unsigned char)(token.data[i] ^ (unsigned char)sent[i]);
    return differs == 0;
}

/* Text is UTF-8 in a session; a browser sends nothing else. */
static bool is_text(const char *text)
{
    cession_buf out;
    const cession_item item = cession_item_text(text);
    cession_buf_init(&out, FORM_MAX + 8);
    int status = cession_item_write(&item, &out);
    cession_buf_release(&out);
    return status == CESSION_OK;
}

static bool is_note(const form *f)
{
    return f->name && f->text && *f->name && strlen(f->name) <= NAME_MAX_LEN && is_text(f->name) &&
           is_text(f->text);
}

static int keep_note(cession_request *request, const form *f, cession_error *err)
{
    char key[sizeof "note_" + NAME_MAX_LEN];
    snprintf(key, sizeof key, "note_%s", f->name);
    if (!*f->text) {
        int status = cession_request_unset(request, key, err);
        return status == CESSION_NOT_FOUND ? CESSION_OK : status;
    }
    const cession_item item = cession_item_text(f->text);
    return cession_request_set_item(request, key, &item, err);
}

/* What a POST asks for. *ret_refused: why it is not done, if it is the visitor's fault. */
static int act(cession_request *request, const form *f, const char **ret_refused,
               cession_error *err)
{
    cession_span token;
    int status = get_token(request, &token, err);
    if (status < 0)
        return status;
    if (status != CESSION_OK || !same_token(token, f->token)) {
        *ret_refused = "Load the page again and try once more.";
        return CESSION_OK;
    }
    if (strcmp(f->action, "logout") == 0)
        return cession_request_clear(request, err);
    if (strcmp(f->action, "note") == 0 && is_note(f))
        return keep_note(request, f, err);
    *ret_refused = "A note has a short name and a text.";
    return CESSION_OK;
}

/* ---- the page -------------------------------------------------------------------- */

static void put_html(FILE *out, unsigned char c)
{
    const char *coded = c == '&' ? "&amp;" : c == '<' ? "&lt;" : c == '>' ? "&gt;" : NULL;
    if (c == '"')
        coded = "&quot;";
    if (coded)
        fputs(coded, out);
    else if (c >= 0x20 && c != 0x7f)
        putc(c, out);
    else
        fputs("&#xfffd;", out);
}

static void print_headers(const char *status)
{
    printf("Status: %s\r\n"
           "Content-Type: text/html; charset=utf-8\r\n"
           "Cache-Control: no-store\r\n"
           "Content-Security-Policy: default-src 'none'; form-action 'self'\r\n"
           "X-Content-Type-Options: nosniff\r\n",
           status);
}

static void print_error(const char *status, const char *text)
{
    print_headers(status);
    printf("\r\n<!doctype html>\n<title>Session</title>\n<p>%s\n", text);
}

static void print_form(cession_span token, const char *action, const char *fields,
                       const char *button)
{
    printf("<form method=\"post\"><input type=\"hidden\" name=\"action\" value=\"%s\">"
           "<input type=\"hidden\" name=\"token\" value=\"",
           action);
    for (size_t i = 0; i < token.len; i++)
        put_html(stdout, token.data[i]);
    printf("\">%s<button>%s</button></form>\n", fields, button);
}

/* Everything is read before the first header goes out. */
static int print_page(cession_request *request, cession_error *err)
{
    cession_buf cookie;
    const cession_entry *entries = NULL;
    cession_span token = {NULL, 0};
    size_t count = 0;

    cession_buf_init(&cookie, 8192);
    int has_cookie = cession_request_cookie(request, &cookie, err);
    int status = has_cookie < 0 ? has_cookie
                                : cession_request_entries(request, &entries, &count, err);
    if (status == CESSION_OK) {
        bool live = !cession_request_is_new(request) && get_token(request, &token, err) == 0;
        print_headers("200 OK");
        printf("Vary: Cookie\r\n");
        if (has_cookie == CESSION_OK)
            printf("Set-Cookie: %.*s\r\n", (int)cookie.len, (const char *)cookie.data);
        printf("\r\n<!doctype html>\n<title>Session</title>\n");
        if (live) {
            printf("<dl>\n");
            for (size_t i = 0; i < count; i++) {
                printf("<dt>");
                show_key(stdout, entries[i].key, put_html);
                printf("<dd>");
                show_value(stdout, entries[i].value, put_html);
                printf("\n");
            }
            printf("</dl>\n");
            print_form(token, "note", "<input name=\"name\"><input name=\"text\">", "Keep");
            print_form(token, "logout", "", "Log out");
        } else {
            printf("<p>You have no session.\n");
        }
    }
    cession_buf_release(&cookie);
    return status;
}

static int answer(cession_request *request, const form *f, cession_error *err)
{
    cession_outcome outcome;
    const char *refused = NULL;
    int status = f ? act(request, f, &refused, err) : ensure_token(request, err);
    if (status == CESSION_OK && refused) {
        print_error("403 Forbidden", refused);
        return CESSION_OK;
    }
    if (status == CESSION_OK)
        status = cession_request_commit(request, &outcome, err);
    if (status != CESSION_OK)
        return status;
    if (outcome.lost) {
        /* Logged out by another page while this one was at work. */
        print_error("409 Conflict", "Your session has ended.");
        return CESSION_OK;
    }
    return print_page(request, err);
}

int main(void)
{
    static form f;
    cession_error err = CESSION_ERROR_INIT;
    cession_request *request = NULL;
    const char *method = getenv("REQUEST_METHOD");
    bool post = method && strcmp(method, "POST") == 0;
    site s;

    if (!method || (!post && strcmp(method, "GET") != 0)) {
        print_error("405 Method Not Allowed", "GET or POST.");
        return 0;
    }
    if (post && read_form(&f) != 0) {
        print_error("400 Bad Request", "That is not the form of this page.");
        return 0;
    }
    if (site_open(&s, &err) != 0) {
        fprintf(stderr, "session_page: %s\n", err.text); /* the server's error log */
        print_error("500 Internal Server Error", "This page is not set up.");
        return 0;
    }
    int status = cession_request_open(s.app, cession_span_str(getenv("HTTP_COOKIE")), &request,
                                      &err);
    if (status == CESSION_OK)
        status = answer(request, post ? &f : NULL, &err);
    if (status != CESSION_OK) {
        fprintf(stderr, "session_page: %s\n", err.text);
        print_error("503 Service Unavailable", "The session cannot be had at the moment.");
    }
    cession_request_free(request);
    site_close(&s);
    return 0;
}
