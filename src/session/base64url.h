/* Base64 with the URL-safe alphabet and no padding (RFC 4648, section 5). */
#ifndef CES_SESSION_BASE64URL_H
#define CES_SESSION_BASE64URL_H

#include <stddef.h>
#include <stdint.h>

/* Characters that len bytes become. */
#define CES_BASE64URL_LEN(len) (((len) / 3) * 4 + ((len) % 3 ? (len) % 3 + 1 : 0))

/* Writes CES_BASE64URL_LEN(len) characters, no terminator; returns their number. */
size_t ces_base64url(const uint8_t *data, size_t len, char *out);

#endif
