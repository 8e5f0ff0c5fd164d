/* The session cookie: found in a Cookie header, judged, written as Set-Cookie.
 *
 * Programs that use cession/request.h need none of this but
 * cession_cookie_attributes.
 *
 * Ownership: spans that come out lie in the bytes that went in.
 * Threads: everything here is pure.
 * Errors never contain the cookie.
 */
#ifndef CESSION_COOKIE_H
#define CESSION_COOKIE_H

#include <stdbool.h>
#include <stdint.h>

#include "cession/buf.h"
#include "cession/error.h"
#include "cession/session.h"

#ifdef __cplusplus
extern "C" {
#endif

/* How Flask sets the cookie; all zero is Flask's default. Texts are
 * NUL-terminated ASCII, but for the path, which may be UTF-8. */
typedef struct cession_cookie_attributes {
    const char *name;      /* SESSION_COOKIE_NAME; NULL: "session" */
    const char *domain;    /* SESSION_COOKIE_DOMAIN; NULL: this host only */
    const char *path;      /* SESSION_COOKIE_PATH, else APPLICATION_ROOT; NULL: "/" */
    const char *same_site; /* SESSION_COOKIE_SAMESITE: "Strict", "Lax" or "None" in any
                              case; NULL: not said */
    bool secure;           /* SESSION_COOKIE_SECURE */
    bool partitioned;      /* SESSION_COOKIE_PARTITIONED; means secure, too */
    bool script_access;    /* SESSION_COOKIE_HTTPONLY is False */
} cession_cookie_attributes;

/* Find a cookie by name in the value of a Cookie header. Of several the first
 * counts; quotes around its value are taken off. OK: *ret_value is set.
 * NOT_FOUND: it is not there. *ret_plain (may be NULL; set in both cases) says
 * that every server reads this header alike: no quotes, no control characters,
 * no blanks inside the value. */
CESSION_API int cession_cookie_find(cession_span header, cession_span name, cession_span *ret_value,
                                    bool *ret_plain);

/* What the value of the cookie says. */
typedef struct cession_cookie_sid {
    cession_span sid;   /* lies in the value; empty: none that counts */
    bool old_signature; /* valid, and to be sent again: signed with a fallback key, or
                           signed where that is no longer asked for */
    bool refused;       /* there is a value, and it does not count */
} cession_cookie_sid;

/* Signature first, then syntax. With use_signer a value without a good signature
 * is refused. Without it a signature is still taken off where `signer` (which may
 * then be NULL) knows it, so that switching signing off logs nobody out.
 * any_printable: see cession_sid_valid. OK, whatever the value is; E_INVALID:
 * use_signer without signer; E_CRYPTO. */
CESSION_API int cession_cookie_read(cession_span value, const cession_signer *signer,
                                    bool use_signer, bool any_printable, cession_cookie_sid *ret_in,
                                    cession_error *err) CESSION_MUST_CHECK;

/* Append the value of a Set-Cookie header to out, byte for byte as Flask writes
 * it. expires_s: Unix seconds, below 0: until the browser is closed. An empty
 * value deletes the cookie, whatever expires_s is. OK, E_NOMEM, E_LIMIT;
 * E_INVALID: attributes that no cookie can have, or a value that would need
 * quotes; nothing is appended then. */
CESSION_API int cession_cookie_write(const cession_cookie_attributes *attributes,
                                     cession_span value, int64_t expires_s, cession_buf *out,
                                     cession_error *err) CESSION_MUST_CHECK;

#ifdef __cplusplus
}
#endif
#endif
