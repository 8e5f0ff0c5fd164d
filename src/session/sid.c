#include "cession/session.h"

#include "base/alloc.h"
#include "base/os.h"
#include "session/base64url.h"
#include "session/cookie.h"
#include "base/banned.h"

enum {
    SID_OURS = 1u << 0,     /* [A-Za-z0-9_-] */
    SID_PRINTABLE = 1u << 1 /* what a cookie value may hold, RFC 6265, cookie-octet */
};

/* clang-format off */
#define O (SID_OURS | SID_PRINTABLE)
#define P SID_PRINTABLE
static const uint8_t sid_classes[256] = {
    /* 0x20 is the blank; " at 0x22, comma at 0x2c, ; at 0x3b and \ at 0x5c are out. */
    ['!'] = P, ['#'] = P, ['$'] = P, ['%'] = P, ['&'] = P, ['\''] = P, ['('] = P, [')'] = P,
    ['*'] = P, ['+'] = P, ['.'] = P, ['/'] = P, [':'] = P, ['<'] = P,  ['='] = P, ['>'] = P,
    ['?'] = P, ['@'] = P, ['['] = P, [']'] = P, ['^'] = P, ['`'] = P,  ['{'] = P, ['|'] = P,
    ['}'] = P, ['~'] = P, ['-'] = O, ['_'] = O,
    ['0'] = O, ['1'] = O, ['2'] = O, ['3'] = O, ['4'] = O, ['5'] = O,  ['6'] = O, ['7'] = O,
    ['8'] = O, ['9'] = O,
    ['A'] = O, ['B'] = O, ['C'] = O, ['D'] = O, ['E'] = O, ['F'] = O,  ['G'] = O, ['H'] = O,
    ['I'] = O, ['J'] = O, ['K'] = O, ['L'] = O, ['M'] = O, ['N'] = O,  ['O'] = O, ['P'] = O,
    ['Q'] = O, ['R'] = O, ['S'] = O, ['T'] = O, ['U'] = O, ['V'] = O,  ['W'] = O, ['X'] = O,
    ['Y'] = O, ['Z'] = O,
    ['a'] = O, ['b'] = O, ['c'] = O, ['d'] = O, ['e'] = O, ['f'] = O,  ['g'] = O, ['h'] = O,
    ['i'] = O, ['j'] = O, ['k'] = O, ['l'] = O, ['m'] = O, ['n'] = O,  ['o'] = O, ['p'] = O,
    ['q'] = O, ['r'] = O, ['s'] = O, ['t'] = O, ['u'] = O, ['v'] = O,  ['w'] = O, ['x'] = O,
    ['y'] = O, ['z'] = O,
};
#undef O
#undef P
/* clang-format on */

static bool all_of(cession_span text, unsigned wanted)
{
    unsigned all = wanted;
    for (size_t i = 0; i < text.len; i++)
        all &= sid_classes[text.data[i]];
    return all != 0;
}

bool ces_sid_printable(cession_span text)
{
    return all_of(text, SID_PRINTABLE);
}

bool cession_sid_valid(cession_span sid, bool any_printable)
{
    size_t least = any_printable ? 1 : CESSION_SID_MIN;
    if (sid.len < least || sid.len > CESSION_SID_MAX)
        return false;
    return all_of(sid, any_printable ? SID_PRINTABLE : SID_OURS);
}

int cession_sid_generate(size_t entropy_bytes, char ret_sid[CESSION_SID_MAX + 1], size_t *ret_len,
                         cession_error *err)
{
    if (entropy_bytes < CESSION_SID_BYTES_MIN || entropy_bytes > CESSION_SID_BYTES_MAX)
        return cession_fail(err, CESSION_E_INVALID, "an id takes %u to %u random bytes, not %zu",
                            CESSION_SID_BYTES_MIN, CESSION_SID_BYTES_MAX, entropy_bytes);
    uint8_t bytes[CESSION_SID_BYTES_MAX];
    int rc = ces_random(bytes, entropy_bytes, err);
    if (rc != CESSION_OK)
        return rc;
    size_t len = ces_base64url(bytes, entropy_bytes, ret_sid);
    ret_sid[len] = '\0';
    *ret_len = len;
    ces_wipe(bytes, entropy_bytes);
    return CESSION_OK;
}
