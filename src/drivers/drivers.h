/* The drivers that are built into the library, and how they are found. */
#ifndef CES_DRIVERS_DRIVERS_H
#define CES_DRIVERS_DRIVERS_H

#include "cession/store.h"

extern const cession_store_ops ces_driver_memory;
extern const cession_store_ops ces_driver_sqlite;
extern const cession_store_ops ces_driver_filesystem;
/* Only where hiredis was there to build it with (CES_WITH_REDIS). */
extern const cession_store_ops ces_driver_redis;

/* The table of this name (case-insensitive), NULL when unknown. */
const cession_store_ops *ces_driver_find(const char *name);

#endif
