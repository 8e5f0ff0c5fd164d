/* The operating system seam: random bytes, clocks, sleep, fork hooks. Nothing
 * above this floor calls the system for these. */
#ifndef CES_BASE_OS_H
#define CES_BASE_OS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "cession/error.h"

/* Cryptographic random bytes from a small pool refilled by getrandom. The pool
 * is wiped in a forked child by the kernel (MADV_WIPEONFORK), so two processes
 * never see the same bytes; without that support every call asks the kernel.
 * OK or E_RANDOM. Any thread. */
int ces_random(void *out, size_t len, cession_error *err);

int64_t ces_now_ms(void);  /* CLOCK_REALTIME, Unix ms */
int64_t ces_mono_ns(void); /* CLOCK_MONOTONIC */
void ces_sleep_ns(int64_t ns);

/* Equality in time that depends on len only. */
bool ces_equal_ct(const void *a, const void *b, size_t len);

/* A pseudo-random number for chances and jitter, never for secrets. */
uint64_t ces_chance(void);

/* Hooks around fork(), run by pthread_atfork in every process that forks:
 * prepare in reverse order of registration, parent and child in order. The
 * hook struct must stay alive until ces_fork_unregister. Idempotent. */
typedef struct ces_fork_hook ces_fork_hook;
struct ces_fork_hook {
    void (*prepare)(void *context); /* any may be NULL */
    void (*parent)(void *context);
    void (*child)(void *context);
    void *context;
    ces_fork_hook *next, *prev; /* owned by the registry */
    bool registered;
};
int ces_fork_register(ces_fork_hook *hook, cession_error *err);
void ces_fork_unregister(ces_fork_hook *hook);
/* Run all prepare hooks, then all parent hooks, without a fork: what a host that
 * must not block inside fork() calls just before it (with its own lock
 * released). Hooks must be prepared for prepare, parent, prepare, parent/child. */
void ces_fork_quiesce(void);

#endif
