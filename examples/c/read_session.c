/* Print a live session of a Flask application.
 *
 *     SESSION_URL=... [SESSION_USE_SIGNER=1 SECRET_KEY=...] read_session < cookie
 *
 * The value of the session cookie is the first line of the standard input, or
 * SESSION_COOKIE in the environment. It is as good as a password, so it is never an
 * argument: those can be read by everybody on the machine. All settings: site.h.
 *
 * Nothing is written: a session that is only looked at does not live longer for it.
 *
 * Exit status: 0 the session is there, 1 it is not, 2 something went wrong.
 *
 * Build: cc -o read_session read_session.c site.c $(pkg-config --cflags --libs cession)
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "site.h"

enum { FOUND = 0, NOT_FOUND = 1, FAILED = 2 };

/* Values come from visitors: nothing that a terminal would obey. */
static void put_safe(FILE *out, unsigned char c)
{
    if (c < 0x20 || c == 0x7f || c == '\\')
        fprintf(out, "\\x%02x", c);
    else
        putc(c, out);
}

static int print_session(const cession_app *app, cession_span cookie)
{
    cession_error err = CESSION_ERROR_INIT;
    cession_request *request = NULL;
    const cession_entry *entries = NULL;
    size_t count = 0;
    int result = FOUND;

    if (cession_request_open_value(app, cookie, &request, &err) != CESSION_OK ||
        cession_request_entries(request, &entries, &count, &err) != CESSION_OK) {
        fprintf(stderr, "read_session: loading the session: %s\n", err.text);
        result = FAILED;
    } else if (cession_request_is_new(request)) {
        fprintf(stderr, "read_session: no such session\n");
        result = NOT_FOUND;
    }
    for (size_t i = 0; i < count && result == FOUND; i++) {
        show_key(stdout, entries[i].key, put_safe);
        fputs(" = ", stdout);
        show_value(stdout, entries[i].value, put_safe);
        putchar('\n');
    }
    cession_request_free(request);
    return result;
}

int main(int argc, char **argv)
{
    cession_error err = CESSION_ERROR_INIT;
    char line[CESSION_SIGNED_MAX + 2] = "";
    const char *cookie = getenv("SESSION_COOKIE");
    site s;

    (void)argv;
    if (argc != 1) {
        fprintf(stderr, "read_session takes no arguments: the cookie's value is read from the "
                        "standard input or SESSION_COOKIE\n");
        return FAILED;
    }
    if (!cookie)
        cookie = fgets(line, sizeof line, stdin) ? line : "";
    if (site_open(&s, &err) != 0) {
        fprintf(stderr, "read_session: %s\n", err.text);
        return FAILED;
    }
    int result = print_session(s.app, cession_span_of(cookie, strcspn(cookie, "\r\n")));
    site_close(&s);
    return fflush(stdout) == 0 ? result : FAILED;
}
