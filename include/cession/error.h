/* Status codes and the caller-owned error text.
 *
 * Every fallible function returns `int`: a cession_status. Zero is success, a
 * positive value is an answer of the store contract that is not an error
 * (NOT_FOUND, CONFLICT, ...), a negative value is an error. Text goes into a
 * cession_error that the caller owns; passing NULL means "no text wanted".
 * Error text never contains keys, session ids, session data or secrets.
 *
 * Threads: everything here is pure or writes to caller-owned memory only.
 */
#ifndef CESSION_ERROR_H
#define CESSION_ERROR_H

#include <stdarg.h>
#include <stddef.h>

#ifdef __cplusplus
extern "C" {
#endif

#if defined(_WIN32)
#error "libcession supports POSIX systems only"
#elif defined(__GNUC__)
#define CESSION_API __attribute__((visibility("default")))
#define CESSION_PRINTF(fmt_at, args_at) __attribute__((format(printf, fmt_at, args_at)))
#define CESSION_MUST_CHECK __attribute__((warn_unused_result))
#else
#define CESSION_API
#define CESSION_PRINTF(fmt_at, args_at)
#define CESSION_MUST_CHECK
#endif

/* X(name, value, message): the one list of codes. Values are part of the ABI:
 * append, never renumber. */
#define CESSION_STATUS_MAP(X)                                               \
    X(OK, 0, "success")                                                     \
    X(NOT_FOUND, 1, "no such session, or it has expired")                   \
    X(EXISTS, 2, "the key is taken by a live record")                       \
    X(CONFLICT, 3, "the record holds another value than expected")          \
    X(GONE, 4, "the record is gone")                                        \
    X(CHANGED, 5, "the record changed, nothing was touched")                \
    X(E_NOMEM, -1, "out of memory")                                         \
    X(E_INVALID, -2, "invalid argument")                                    \
    X(E_LIMIT, -3, "a size limit was exceeded")                             \
    X(E_FORMAT, -4, "malformed data")                                       \
    X(E_BUSY, -5, "the store is busy")                                      \
    X(E_TIMEOUT, -6, "the deadline passed")                                 \
    X(E_UNAVAILABLE, -7, "the store cannot be reached")                     \
    X(E_IO, -8, "input/output error")                                       \
    X(E_PERMISSION, -9, "permission denied")                                \
    X(E_UNSUPPORTED, -10, "not supported by this store")                    \
    X(E_RANDOM, -11, "the system gave no random bytes")                     \
    X(E_FOREIGN, -12, "the file or table belongs to another program")       \
    X(E_NEWER, -13, "the data was written by a newer version")              \
    X(E_ABI, -14, "the module was built for another version of libcession") \
    X(E_CALLBACK, -15, "a callback failed")                                 \
    X(E_FORK, -16, "the store was in use while the process forked")         \
    X(E_CONFLICT, -17, "two requests changed the same key")                 \
    X(E_STATE, -18, "the session is not in a state that allows this")       \
    X(E_CRYPTO, -19, "a cryptographic operation failed")                    \
    X(E_CIRCUIT, -20, "the store failed repeatedly and is given a rest")    \
    X(E_INTERNAL, -21, "internal error")

typedef enum cession_status {
#define CESSION_STATUS_ENUM(name, value, message) CESSION_##name = value,
    CESSION_STATUS_MAP(CESSION_STATUS_ENUM)
#undef CESSION_STATUS_ENUM
} cession_status;

/* Bytes of error text, terminator included; longer text is cut at the end. */
#define CESSION_ERROR_TEXT_MAX 256

typedef struct cession_error {
    int code; /* a cession_status, CESSION_OK when nothing was set */
    char text[CESSION_ERROR_TEXT_MAX];
} cession_error;

/* clang-format off */
#define CESSION_ERROR_INIT {CESSION_OK, {0}}
/* clang-format on */

/* The symbolic name ("CESSION_E_BUSY") and the general message of a code.
 * Static strings; unknown codes give "CESSION_UNKNOWN" / "unknown status". */
CESSION_API const char *cession_status_name(int code);
CESSION_API const char *cession_status_message(int code);

/* Set code and text; returns code, so that `return cession_fail(err, ...)`
 * reads well. err may be NULL. fmt NULL means the general message. */
CESSION_API int cession_fail(cession_error *err, int code, const char *fmt, ...)
    CESSION_PRINTF(3, 4);
CESSION_API void cession_error_clear(cession_error *err);

#ifdef __cplusplus
}
#endif
#endif
