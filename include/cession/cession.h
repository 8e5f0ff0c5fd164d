/* libcession: server-side sessions. This header includes all public ones. */
#ifndef CESSION_CESSION_H
#define CESSION_CESSION_H

#define CESSION_VERSION_MAJOR 0
#define CESSION_VERSION_MINOR 1
#define CESSION_VERSION_PATCH 0
#define CESSION_VERSION "0.1.0"

#include "cession/alloc.h"
#include "cession/buf.h"
#include "cession/codec.h"
#include "cession/error.h"
#include "cession/session.h"
#include "cession/store.h"

#endif
