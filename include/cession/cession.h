/* libcession: server-side sessions. This header includes all public ones. */
#ifndef CESSION_CESSION_H
#define CESSION_CESSION_H

#define CESSION_VERSION_MAJOR 0
#define CESSION_VERSION_MINOR 1
#define CESSION_VERSION_PATCH 0
#define CESSION_VERSION "0.1.0"

/* The number in the library's soname, libcession.so.0. It changes with every change after
 * which a program must be compiled again: a function that goes or takes other arguments, a
 * struct that callers make with other members, a constant with another value. */
#define CESSION_ABI 0

#include "cession/alloc.h"
#include "cession/buf.h"
#include "cession/codec.h"
#include "cession/cookie.h"
#include "cession/error.h"
#include "cession/item.h"
#include "cession/request.h"
#include "cession/session.h"
#include "cession/store.h"

#ifdef __cplusplus
extern "C" {
#endif

/* CESSION_VERSION and CESSION_ABI of the library that runs, which may be newer than the
 * headers. The text is static. */
CESSION_API const char *cession_version(void);
CESSION_API int cession_abi(void);

#ifdef __cplusplus
}
#endif
#endif
