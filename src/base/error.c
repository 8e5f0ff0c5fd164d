#include "cession/error.h"

#include <stdio.h>
#include <string.h>

#include "base/banned.h"

const char *cession_status_name(int code)
{
    switch (code) {
#define STATUS_NAME(name, value, message) \
    case value:                           \
        return "CESSION_" #name;
        CESSION_STATUS_MAP(STATUS_NAME)
#undef STATUS_NAME
    default:
        return "CESSION_UNKNOWN";
    }
}

const char *cession_status_message(int code)
{
    switch (code) {
#define STATUS_MESSAGE(name, value, message) \
    case value:                              \
        return message;
        CESSION_STATUS_MAP(STATUS_MESSAGE)
#undef STATUS_MESSAGE
    default:
        return "unknown status";
    }
}

int cession_fail(cession_error *err, int code, const char *fmt, ...)
{
    if (!err)
        return code;
    /* Formatted apart from the destination: an argument may be err->text, when
     * a caller puts its own words in front of an inner text. */
    char text[CESSION_ERROR_TEXT_MAX];
    int written = 0;
    if (fmt) {
        va_list args;
        va_start(args, fmt);
        written = vsnprintf(text, sizeof text, fmt, args);
        va_end(args);
    }
    if (!fmt || written < 0)
        snprintf(text, sizeof text, "%s", cession_status_message(code));
    memcpy(err->text, text, strlen(text) + 1);
    err->code = code;
    return code;
}

void cession_error_clear(cession_error *err)
{
    if (!err)
        return;
    err->code = CESSION_OK;
    err->text[0] = '\0';
}
