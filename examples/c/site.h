/* What both programs share: the Flask application's settings, and showing values. */
#ifndef EXAMPLE_SITE_H
#define EXAMPLE_SITE_H

#include <stdio.h>

#include <cession/cession.h>

/* A store and the application that keeps its sessions there. */
typedef struct site {
    cession_store *store;
    cession_app *app;
} site;

/* From the environment, where each setting has the name that it has in Flask:
 *
 *     SESSION_URL                  sqlite:///srv/app/instance/flask_session.sqlite3 (required)
 *     SECRET_KEY                   needed where cookies are signed
 *     SECRET_KEY_FALLBACKS         one a line
 *     SESSION_USE_SIGNER           1: they are
 *     SESSION_KEY_PREFIX           session:
 *     SESSION_COOKIE_NAME          session
 *     SESSION_COOKIE_PATH          /
 *     SESSION_COOKIE_SECURE        1: only over HTTPS
 *     SESSION_COOKIE_SAMESITE      Strict, Lax or None
 *     PERMANENT_SESSION_LIFETIME   seconds; 2678400
 *
 * Secrets come this way because everybody can read the arguments of a process.
 * 0, or -1 with the reason in err. No I/O. */
int site_open(site *ret_site, cession_error *err);
void site_close(site *s);

/* How a character of text is put out: safe for a terminal, for a page, ... */
typedef void put_char(FILE *out, unsigned char c);

/* Print one encoded item, much as JSON would: texts in quotes, bytes and what only
 * Python knows as <12 bytes> and <extension 11>. */
void show_value(FILE *out, cession_span item, put_char *put);
/* The text of a key without quotes; a key that is no text as show_value does. */
void show_key(FILE *out, cession_span item, put_char *put);

#endif
