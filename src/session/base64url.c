#include "session/base64url.h"

#include "base/banned.h"

static const char alphabet[64] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";

size_t ces_base64url(const uint8_t *data, size_t len, char *out)
{
    char *at = out;
    size_t i = 0;
    for (; i + 3 <= len; i += 3) {
        uint32_t bits = ((uint32_t)data[i] << 16) | ((uint32_t)data[i + 1] << 8) | data[i + 2];
        *at++ = alphabet[bits >> 18];
        *at++ = alphabet[(bits >> 12) & 63];
        *at++ = alphabet[(bits >> 6) & 63];
        *at++ = alphabet[bits & 63];
    }
    if (len - i == 1) {
        *at++ = alphabet[data[i] >> 2];
        *at++ = alphabet[(data[i] & 3) << 4];
    } else if (len - i == 2) {
        uint32_t bits = ((uint32_t)data[i] << 8) | data[i + 1];
        *at++ = alphabet[bits >> 10];
        *at++ = alphabet[(bits >> 4) & 63];
        *at++ = alphabet[(bits & 15) << 2];
    }
    return (size_t)(at - out);
}
