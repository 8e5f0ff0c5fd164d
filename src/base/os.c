#include "base/os.h"

#include <errno.h>
#include <pthread.h>
#include <stdatomic.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/random.h>
#include <time.h>

#include <openssl/crypto.h>

#include "base/alloc.h"
#include "base/banned.h"

/* ---- fork ------------------------------------------------------------------ */

/* Held from prepare to parent/child, so that the list cannot change in between
 * and both sides run the hooks whose prepare ran. */
static pthread_mutex_t hooks_lock = PTHREAD_MUTEX_INITIALIZER;
static ces_fork_hook *hooks_first, *hooks_last;

static pthread_once_t atfork_once = PTHREAD_ONCE_INIT;
static bool atfork_installed; /* written once, under atfork_once */

/* Counts the forks that lead to this process: tells thread-local state that it
 * was inherited. */
static atomic_uint fork_generation;

static void pool_before_fork(void);
static void pool_after_fork(bool in_child);

static void run_prepare(void)
{
    for (ces_fork_hook *hook = hooks_last; hook; hook = hook->prev) {
        if (hook->prepare)
            hook->prepare(hook->context);
    }
}

static void run_parent(void)
{
    for (ces_fork_hook *hook = hooks_first; hook; hook = hook->next) {
        if (hook->parent)
            hook->parent(hook->context);
    }
}

/* The random pool is locked last and freed first: hooks may want random bytes. */
static void atfork_prepare(void)
{
    pthread_mutex_lock(&hooks_lock);
    run_prepare();
    pool_before_fork();
}

static void atfork_parent(void)
{
    pool_after_fork(false);
    run_parent();
    pthread_mutex_unlock(&hooks_lock);
}

static void atfork_child(void)
{
    atomic_fetch_add_explicit(&fork_generation, 1, memory_order_relaxed);
    pool_after_fork(true);
    for (ces_fork_hook *hook = hooks_first; hook; hook = hook->next) {
        if (hook->child)
            hook->child(hook->context);
    }
    pthread_mutex_unlock(&hooks_lock);
}

static void install_atfork(void)
{
    atfork_installed = pthread_atfork(atfork_prepare, atfork_parent, atfork_child) == 0;
}

int ces_fork_register(ces_fork_hook *hook, cession_error *err)
{
    pthread_once(&atfork_once, install_atfork);
    if (!atfork_installed)
        return cession_fail(err, CESSION_E_NOMEM, "pthread_atfork failed");

    pthread_mutex_lock(&hooks_lock);
    if (!hook->registered) {
        hook->next = NULL;
        hook->prev = hooks_last;
        if (hooks_last)
            hooks_last->next = hook;
        else
            hooks_first = hook;
        hooks_last = hook;
        hook->registered = true;
    }
    pthread_mutex_unlock(&hooks_lock);
    return CESSION_OK;
}

void ces_fork_unregister(ces_fork_hook *hook)
{
    pthread_mutex_lock(&hooks_lock);
    if (hook->registered) {
        if (hook->prev)
            hook->prev->next = hook->next;
        else
            hooks_first = hook->next;
        if (hook->next)
            hook->next->prev = hook->prev;
        else
            hooks_last = hook->prev;
        hook->next = hook->prev = NULL;
        hook->registered = false;
    }
    pthread_mutex_unlock(&hooks_lock);
}

void ces_fork_quiesce(void)
{
    pthread_mutex_lock(&hooks_lock);
    run_prepare();
    run_parent();
    pthread_mutex_unlock(&hooks_lock);
}

/* ---- random bytes ---------------------------------------------------------- */

#define POOL_BYTES 1024u
/* Larger requests go to the kernel directly: they are rare, and would drain the
 * pool for everyone else. */
#define POOL_LARGEST 256u
#define POOL_VALID 0x636573706f6f6c21u

/* Lies in a page of its own that the kernel fills with zeros in a forked child.
 * The marker is in that very page: where the bytes are gone, so is the marker,
 * however the process was forked, and the pool is filled anew. */
struct random_pool {
    uint64_t marker; /* POOL_VALID, or the bytes are not to be used */
    size_t at;       /* bytes[at..POOL_BYTES) are unused */
    uint8_t bytes[POOL_BYTES];
};

static pthread_mutex_t pool_lock = PTHREAD_MUTEX_INITIALIZER;
static struct random_pool *pool; /* NULL: not made yet, or not supported */
static bool pool_tried;

static bool kernel_random(void *out, size_t len)
{
    uint8_t *at = out;
    while (len > 0) {
        ssize_t got = getrandom(at, len, 0);
        if (got < 0) {
            if (errno == EINTR)
                continue;
            return false;
        }
        at += got;
        len -= (size_t)got;
    }
    return true;
}

/* Under pool_lock. */
static void make_pool(void)
{
    pool_tried = true;
    pthread_once(&atfork_once, install_atfork);
#ifdef MADV_WIPEONFORK
    /* mmap rounds up to whole pages. */
    void *page = mmap(NULL, sizeof *pool, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1,
                      0);
    if (page == MAP_FAILED)
        return;
    if (madvise(page, sizeof *pool, MADV_WIPEONFORK) != 0) {
        munmap(page, sizeof *pool);
        return;
    }
    /* Unused random bytes do not belong into core files; best effort. */
    (void)madvise(page, sizeof *pool, MADV_DONTDUMP);
    pool = page;
#endif
}

/* Under pool_lock. False: not from the pool, ask the kernel. */
static bool take_from_pool(void *out, size_t len)
{
    if (!pool) {
        if (!pool_tried)
            make_pool();
        if (!pool)
            return false;
    }
    if (pool->marker != POOL_VALID || pool->at > POOL_BYTES || POOL_BYTES - pool->at < len) {
        pool->marker = 0;
        if (!kernel_random(pool->bytes, POOL_BYTES))
            return false;
        pool->at = 0;
        pool->marker = POOL_VALID;
    }
    memcpy(out, pool->bytes + pool->at, len);
    /* Memory read later gives no id that was handed out earlier. */
    ces_wipe(pool->bytes + pool->at, len);
    pool->at += len;
    return true;
}

static void pool_before_fork(void)
{
    pthread_mutex_lock(&pool_lock);
}

static void pool_after_fork(bool in_child)
{
    /* The kernel has wiped it already; this holds even where it only claimed to. */
    if (in_child && pool)
        pool->marker = 0;
    pthread_mutex_unlock(&pool_lock);
}

int ces_random(void *out, size_t len, cession_error *err)
{
    /* Try, never wait: the kernel is as good a source as the pool, and in a
     * child of a bare clone() another thread may hold the mutex for ever. */
    if (len <= POOL_LARGEST && pthread_mutex_trylock(&pool_lock) == 0) {
        bool taken = take_from_pool(out, len);
        pthread_mutex_unlock(&pool_lock);
        if (taken)
            return CESSION_OK;
    }
    if (!kernel_random(out, len)) {
        int code = errno;
        return cession_fail(err, CESSION_E_RANDOM, "getrandom failed (errno %d)", code);
    }
    return CESSION_OK;
}

/* ---- clocks ---------------------------------------------------------------- */

int64_t ces_now_ms(void)
{
    struct timespec now;
    clock_gettime(CLOCK_REALTIME, &now);
    return (int64_t)now.tv_sec * 1000 + now.tv_nsec / 1000000;
}

int64_t ces_mono_ns(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (int64_t)now.tv_sec * 1000000000 + now.tv_nsec;
}

void ces_sleep_ns(int64_t ns)
{
    if (ns <= 0)
        return;
    struct timespec left = {.tv_sec = (time_t)(ns / 1000000000),
                            .tv_nsec = (long)(ns % 1000000000)};
    while (clock_nanosleep(CLOCK_MONOTONIC, 0, &left, &left) == EINTR) {
    }
}

/* ---- small things ---------------------------------------------------------- */

bool ces_equal_ct(const void *a, const void *b, size_t len)
{
    return len == 0 || CRYPTO_memcmp(a, b, len) == 0;
}

uint64_t ces_chance(void)
{
    static _Thread_local uint64_t state; /* 0: not seeded */
    static _Thread_local unsigned seeded_in;

    unsigned generation = atomic_load_explicit(&fork_generation, memory_order_relaxed);
    /* Forked workers that kept one state would purge and retry in step. */
    if (state == 0 || seeded_in != generation) {
        uint64_t seed = 0;
        if (ces_random(&seed, sizeof seed, NULL) != CESSION_OK)
            seed = (uint64_t)ces_mono_ns() ^ (uint64_t)(uintptr_t)&state;
        state = seed | 1; /* xorshift must not start at zero */
        seeded_in = generation;
    }
    /* xorshift64*, G. Marsaglia 2003, S. Vigna 2016. */
    state ^= state >> 12;
    state ^= state << 25;
    state ^= state >> 27;
    return state * 0x2545f4914f6cdd1du;
}
