/* What others take of cookie.c besides the public functions. */
#ifndef CES_SESSION_COOKIE_H
#define CES_SESSION_COOKIE_H

#include "cession/cookie.h"

cession_span ces_cookie_name(const cession_cookie_attributes *attributes);

#define CES_HTTP_DATE_LEN 29u

/* RFC 9110's IMF-fixdate of a Unix time, terminated. False after the year 9999. */
bool ces_http_date(int64_t unix_s, char ret_text[CES_HTTP_DATE_LEN + 1]);

/* sid.c: whether a cookie's value may be this text without quotes. */
bool ces_sid_printable(cession_span text);

#endif
