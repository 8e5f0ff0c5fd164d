/* The file store under many processes and threads, across fork, and under kill -9.
 * CESSION_KILLS sets how many writers are killed (10). */
#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "drivers/filesystem.h"
#include "files_world.h"
#include "harness.h"
#include "scratch.h"

enum { PROCESSES = 8, THREADS = 4 };

static cession_deadline soon(void)
{
    return cession_deadline_in(60000);
}

/* ---- many processes, many threads ------------------------------------------------- */

#define COUNTERS 4u
#define ROUNDS 60u

static const char *shared_dir;

/* Add one to a counter: load, compare-and-set, again on a conflict. */
static int count_up(cession_store *store, unsigned number)
{
    char key[32], text[16];
    cession_stored held, current;
    cession_stored_init(&held);
    cession_stored_init(&current);
    snprintf(key, sizeof key, "counter %u", number);
    int rc = cession_store_load(store, cession_span_str(key), soon(), &held, NULL);
    while (rc == CESSION_OK) {
        char old[16] = "";
        memcpy(old, held.value.data, held.value.len < 15 ? held.value.len : 15);
        snprintf(text, sizeof text, "%lu", strtoul(old, NULL, 10) + 1);
        cession_expected e = {.value = cession_buf_span(&held.value)};
        rc = cession_store_replace(store, cession_span_str(key), &e, cession_span_str(text), HOUR,
                                   soon(), &current, NULL);
        if (rc == CESSION_OK) {
            break;
        }
        if (rc == CESSION_CONFLICT) {
            cession_stored swap = held;
            held = current;
            current = swap;
            rc = CESSION_OK;
        }
    }
    cession_stored_release(&held);
    cession_stored_release(&current);
    return rc;
}

static void *count_thread(void *store)
{
    for (unsigned i = 0; i < ROUNDS; i++) {
        if (count_up(store, i % COUNTERS) != CESSION_OK) {
            return store;
        }
    }
    return NULL;
}

/* Purges and touches go on all the while. */
static void *disturb_thread(void *store)
{
    for (unsigned i = 0; i < 10; i++) {
        char key[32];
        size_t count;
        snprintf(key, sizeof key, "counter %u", i % COUNTERS);
        int rc = files_touch(store, key, "1", HOUR);
        if ((rc != CESSION_OK && rc != CESSION_CHANGED) ||
            cession_store_purge(store, 100, soon(), &count, NULL) != CESSION_OK) {
            return store;
        }
    }
    return NULL;
}

static int count_process(void *inherited)
{
    cession_store *store = inherited != NULL ? inherited : files_open(shared_dir, NULL);
    pthread_t threads[THREADS];
    int failed = 0;
    for (int i = 0; i < THREADS; i++) {
        if (pthread_create(&threads[i], NULL, i == 0 ? disturb_thread : count_thread, store) != 0) {
            return 2;
        }
    }
    for (int i = 0; i < THREADS; i++) {
        void *result;
        pthread_join(threads[i], &result);
        failed += result != NULL;
    }
    cession_store_close(store);
    return failed != 0;
}

static void run_processes(cession_store *store, bool inherit)
{
    pid_t children[PROCESSES];
    for (unsigned i = 0; i < COUNTERS; i++) {
        char key[32];
        snprintf(key, sizeof key, "counter %u", i);
        CHECK_OK(files_create(store, key, "0"));
    }
    for (int i = 0; i < PROCESSES; i++) {
        children[i] = child_start(count_process, inherit ? store : NULL);
    }
    for (int i = 0; i < PROCESSES; i++) {
        CHECK_INT(child_wait(children[i]), 0);
    }
    unsigned long total = 0;
    for (unsigned i = 0; i < COUNTERS; i++) {
        char key[32];
        snprintf(key, sizeof key, "counter %u", i);
        total += strtoul(files_load(store, key), NULL, 10);
    }
    CHECK_INT(total, PROCESSES * (THREADS - 1) * ROUNDS);
    CHECK_INT(files_count(shared_dir, "tmp-"), 0);
}

static void test_processes_and_threads(void)
{
    shared_dir = files_dir("processes");
    cession_store *store = files_open(shared_dir, NULL);
    run_processes(store, false);
    cession_store_close(store);
}

/* A store opened before the fork, used by both sides. */
static void test_inherited_store(void)
{
    shared_dir = files_dir("inherited");
    cession_store *store = files_open(shared_dir, NULL);
    run_processes(store, true);
    cession_store_close(store);
}

/* Whoever removes last has the last word: nothing comes back. */
static int writer_process(void *context)
{
    cession_store *store = files_open(shared_dir, NULL);
    (void)context;
    for (int i = 0; i < 1000000; i++) {
        int rc = i % 2 ? files_replace(store, "k", "x", "x") : files_touch(store, "k", "x", HOUR);
        if (rc == CESSION_GONE) {
            cession_store_close(store);
            return 0;
        }
        if (rc != CESSION_OK) {
            return 1;
        }
    }
    return 2;
}

static void test_removed_stays_removed(void)
{
    shared_dir = files_dir("removed");
    cession_store *store = files_open(shared_dir, NULL);
    for (int round = 0; round < 15; round++) {
        pid_t children[4];
        CHECK_OK(files_create(store, "k", "x"));
        for (int i = 0; i < 4; i++) {
            children[i] = child_start(writer_process, NULL);
        }
        ces_sleep_ns(2000000);
        CHECK_OK(files_remove(store, "k"));
        CHECK_STR(files_load(store, "k"), "-");
        for (int i = 0; i < 4; i++) {
            CHECK_INT(child_wait(children[i]), 0);
        }
        CHECK_STR(files_load(store, "k"), "-");
    }
    cession_store_close(store);
}

/* ---- readers see whole records ------------------------------------------------------ */

static atomic_bool stop;

static void *rewrite(void *context)
{
    cession_store *store = context;
    char value[2][3000];
    cession_stored current;
    cession_stored_init(&current);
    memset(value, 'a', sizeof value);
    size_t lens[2] = {3000, 17};
    unsigned now = 0;
    for (unsigned i = 0; !atomic_load(&stop); i++) {
        cession_expected e = {.value = cession_span_of(value[now], lens[now])};
        int64_t ttl = HOUR * (1 + i % 5);
        if (i % 3 != 0) {
            CHECK_OK(cession_store_touch(store, SPAN("k"), &e, ttl, soon(), NULL));
        } else {
            now ^= 1;
            memset(value[now], 'a' + (int)(i % 26), lens[now]);
            CHECK_OK(cession_store_replace(store, SPAN("k"), &e,
                                           cession_span_of(value[now], lens[now]), ttl, soon(),
                                           &current, NULL));
        }
    }
    cession_stored_release(&current);
    return NULL;
}

static void *reread(void *context)
{
    cession_store *store = context;
    cession_stored stored;
    cession_stored_init(&stored);
    for (int i = 0; i < 4000; i++) {
        if (!CHECK_OK(cession_store_load(store, SPAN("k"), soon(), &stored, NULL))) {
            break;
        }
        int64_t now = cession_now_ms();
        CHECK(stored.expires_at_ms > now && stored.expires_at_ms <= now + 6 * HOUR);
        CHECK(stored.value.len == 17 || stored.value.len == 3000);
        for (size_t at = 1; at < stored.value.len; at++) {
            if (!CHECK(stored.value.data[at] == stored.value.data[0])) {
                break;
            }
        }
    }
    cession_stored_release(&stored);
    return NULL;
}

static void test_readers_see_whole_records(void)
{
    cession_store *store = files_open(files_dir("readers"), NULL);
    cession_store *other = files_open(files_dir("readers"), NULL);
    char first[3000];
    memset(first, 'a', sizeof first);
    CHECK_OK(cession_store_create(store, SPAN("k"), cession_span_of(first, sizeof first), HOUR,
                                  soon(), NULL));
    pthread_t writer, readers[3];
    atomic_store(&stop, false);
    REQUIRE(pthread_create(&writer, NULL, rewrite, store) == 0);
    for (int i = 0; i < 3; i++) {
        REQUIRE(pthread_create(&readers[i], NULL, reread, i ? store : other) == 0);
    }
    for (int i = 0; i < 3; i++) {
        pthread_join(readers[i], NULL);
    }
    atomic_store(&stop, true);
    pthread_join(writer, NULL);
    cession_store_close(store);
    cession_store_close(other);
}

/* A sweep must not delete what was made anew since it looked. */
static void *sweep_on(void *store)
{
    while (!atomic_load(&stop)) {
        size_t count;
        CHECK_OK(cession_store_purge(store, 1000, soon(), &count, NULL));
        CHECK_OK(cession_store_maintain(store, soon(), NULL));
    }
    return NULL;
}

static void test_sweep_against_renewal(void)
{
    cession_store *store = files_open(files_dir("renewal"), NULL);
    pthread_t sweepers[2];
    atomic_store(&stop, false);
    for (int i = 0; i < 2; i++) {
        REQUIRE(pthread_create(&sweepers[i], NULL, sweep_on, store) == 0);
    }
    for (int i = 0; i < 1500; i++) {
        /* Expired at once, then made anew for long, again and again. */
        CHECK_OK(cession_store_create(store, SPAN("k"), SPAN("short"), 1, soon(), NULL));
        int rc;
        while ((rc = cession_store_create(store, SPAN("k"), SPAN("long"), HOUR, soon(), NULL)) ==
               CESSION_EXISTS) {
        }
        CHECK_OK(rc);
        CHECK_STR(files_load(store, "k"), "long");
        CHECK_OK(files_remove(store, "k"));
    }
    atomic_store(&stop, true);
    for (int i = 0; i < 2; i++) {
        pthread_join(sweepers[i], NULL);
    }
    cession_store_close(store);
}

/* ---- locks ------------------------------------------------------------------------------ */

typedef struct holder {
    cession_store *store;
    int ready[2]; /* a pipe: one byte when the lock is held */
    int64_t hold_ms;
} holder;

/* Take the lock of "k" and keep it. */
static void hold_lock(const holder *h)
{
    ces_files *self = ces_files_of(h->store);
    ces_files_root *root;
    ces_files_lock lock;
    ces_files_name name;
    if (ces_files_name_of(self, SPAN("k"), &name, NULL) != CESSION_OK ||
        ces_files_root_take(self, false, &root, NULL) != CESSION_OK ||
        ces_files_lock_open(self, root, &lock, NULL) != CESSION_OK ||
        ces_files_lock_take(&lock, name.hash, 0, NULL) != CESSION_OK ||
        write(h->ready[1], "x", 1) != 1) {
        child_end(9);
    }
    ces_sleep_ns(h->hold_ms * 1000000);
    ces_files_lock_close(self, &lock);
    ces_files_root_drop(self, root);
}

static int hold_process(void *context)
{
    hold_lock(context);
    return 0;
}

static void *hold_thread(void *context)
{
    hold_lock(context);
    return NULL;
}

static void await(const holder *h)
{
    char byte;
    CHECK(read(h->ready[0], &byte, 1) == 1);
}

static int touch_k(cession_store *store, cession_deadline deadline)
{
    cession_expected e = {.value = SPAN("v")};
    return cession_store_touch(store, SPAN("k"), &e, HOUR, deadline, NULL);
}

static void check_held(const holder *h)
{
    CHECK_STATUS(touch_k(h->store, 0), CESSION_E_BUSY);
    CHECK_STATUS(cession_store_remove(h->store, SPAN("k"), 0, NULL), CESSION_E_BUSY);
    CHECK_STATUS(cession_store_create(h->store, SPAN("k"), SPAN("x"), HOUR, 0, NULL),
                 CESSION_E_BUSY);
    CHECK_STATUS(touch_k(h->store, cession_deadline_in(30)), CESSION_E_TIMEOUT);
    /* Reads and other keys do not wait. */
    CHECK_STR(files_load(h->store, "k"), "v");
    CHECK_OK(cession_store_create(h->store, SPAN("other"), SPAN("x"), HOUR, 0, NULL));
    CHECK_OK(cession_store_remove(h->store, SPAN("other"), 0, NULL));
}

static void start_holder(holder *h, const char *name, int64_t hold_ms)
{
    h->store = files_open(files_dir(name), NULL);
    h->hold_ms = hold_ms;
    REQUIRE(pipe(h->ready) == 0);
    CHECK_OK(files_create(h->store, "k", "v"));
}

static void end_holder(holder *h)
{
    close(h->ready[0]);
    close(h->ready[1]);
    cession_store_close(h->store);
}

static void test_lock_of_a_thread(void)
{
    holder h;
    pthread_t thread;
    start_holder(&h, "thread-lock", 300);
    REQUIRE(pthread_create(&thread, NULL, hold_thread, &h) == 0);
    await(&h);
    check_held(&h);
    CHECK_OK(touch_k(h.store, soon())); /* waits its turn */
    pthread_join(thread, NULL);
    CHECK_OK(touch_k(h.store, 0));
    end_holder(&h);
}

static void test_lock_of_a_killed_process(void)
{
    holder h;
    start_holder(&h, "process-lock", 60000);
    pid_t pid = child_start(hold_process, &h);
    await(&h);
    check_held(&h);
    kill(pid, SIGKILL);
    CHECK_INT(child_wait(pid), 256 + SIGKILL);
    CHECK_OK(touch_k(h.store, 0));
    end_holder(&h);
}

/* A child forked while a thread holds a lock inherits the open file: the lock must
 * not last as long as the child, also not when its parent is killed. */
static int hold_and_fork(void *context)
{
    holder *h = context;
    pthread_t thread;
    int first[2];
    if (pipe(first) != 0) {
        return 2;
    }
    holder mine = {.store = h->store, .ready = {first[0], first[1]}, .hold_ms = h->hold_ms};
    pthread_create(&thread, NULL, hold_thread, &mine);
    await(&mine);
    pid_t grandchild = fork();
    if (grandchild == 0) {
        char text[32];
        int len = snprintf(text, sizeof text, "%d ", (int)getpid());
        (void)!write(h->ready[1], text, (size_t)len);
        for (;;) {
            pause();
        }
    }
    pthread_join(thread, NULL);
    for (;;) {
        pause();
    }
}

static void check_forked(const char *name, int64_t hold_ms, bool kill_parent)
{
    holder h;
    start_holder(&h, name, hold_ms);
    pid_t parent = child_start(hold_and_fork, &h);
    char text[32] = "";
    CHECK(read(h.ready[0], text, sizeof text - 1) > 0);
    pid_t grandchild = (pid_t)atoi(text);
    REQUIRE(grandchild > 1);
    if (kill_parent) {
        CHECK_STATUS(touch_k(h.store, 0), CESSION_E_BUSY);
        kill(parent, SIGKILL);
        child_wait(parent);
        CHECK_OK(touch_k(h.store, 0));
    } else {
        CHECK_OK(touch_k(h.store, soon()));
        kill(parent, SIGKILL);
        child_wait(parent);
    }
    CHECK(kill(grandchild, 0) == 0); /* it lived all the time */
    kill(grandchild, SIGKILL);
    end_holder(&h);
}

static void test_lock_does_not_live_in_a_forked_child(void)
{
    check_forked("forked-killed", 60000, true);
    check_forked("forked-released", 100, false);
}

/* Forks while threads are in the middle of everything. */
static int use_after_fork(void *context)
{
    cession_store *store = context;
    bool ok = files_create(store, "child", "v") >= 0 && files_remove(store, "child") == CESSION_OK;
    return ok ? 0 : 1;
}

static void test_fork_in_the_middle(void)
{
    cession_store *store = files_open(files_dir("fork-middle"), NULL);
    char first[3000];
    memset(first, 'a', sizeof first);
    CHECK_OK(cession_store_create(store, SPAN("k"), cession_span_of(first, sizeof first), HOUR,
                                  soon(), NULL));
    pthread_t writer;
    atomic_store(&stop, false);
    REQUIRE(pthread_create(&writer, NULL, rewrite, store) == 0);
    for (int i = 0; i < 50; i++) {
        CHECK_INT(child_run(use_after_fork, store), 0);
    }
    atomic_store(&stop, true);
    pthread_join(writer, NULL);
    cession_store_close(store);
}

/* ---- kill -9 -------------------------------------------------------------------------------- */

#define KEYS 8u

/* Number of the last acknowledged write of each key, in shared memory. */
static atomic_uint *acknowledged;

static int write_for_ever(void *context)
{
    cession_store *store = files_open(context, NULL);
    for (unsigned i = 0;; i++) {
        unsigned number = i % KEYS;
        unsigned last = atomic_load(&acknowledged[number]);
        char key[32], text[600];
        cession_stored stored, current;
        cession_stored_init(&stored);
        cession_stored_init(&current);
        snprintf(key, sizeof key, "k %u", number);
        if (cession_store_load(store, cession_span_str(key), soon(), &stored, NULL) != CESSION_OK) {
            return 1;
        }
        snprintf(text, sizeof text, "%u", last + 1);
        memset(text + strlen(text), 0, sizeof text - strlen(text));
        cession_expected e = {.value = cession_buf_span(&stored.value)};
        int rc = i % 5 == 4
                     ? cession_store_touch(store, cession_span_str(key), &e, HOUR, soon(), NULL)
                     : cession_store_replace(store, cession_span_str(key), &e,
                                             cession_span_of(text, 1 + (last * 37) % 590), HOUR,
                                             soon(), &current, NULL);
        if (rc != CESSION_OK) {
            return 2;
        }
        if (i % 5 != 4) {
            atomic_store(&acknowledged[number], last + 1);
        }
        cession_stored_release(&stored);
        cession_stored_release(&current);
    }
}

/* Values start with their number, as far as their length goes; a length of its own
 * tells the numbers apart. */
static bool is_number(const cession_stored *stored, unsigned number)
{
    char text[600] = "";
    snprintf(text, sizeof text, "%u", number);
    return stored->value.len == 1 + ((number - 1) * 37) % 590 &&
           memcmp(stored->value.data, text, stored->value.len) == 0;
}

static void test_killed_writers(void)
{
    const char *setting = getenv("CESSION_KILLS");
    unsigned kills = setting != NULL ? (unsigned)strtoul(setting, NULL, 10) : 10;
    REQUIRE(kills > 0);
    char dir[4096];
    snprintf(dir, sizeof dir, "%s", files_dir("killed"));
    acknowledged = mmap(NULL, KEYS * sizeof *acknowledged, PROT_READ | PROT_WRITE,
                        MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    REQUIRE(acknowledged != MAP_FAILED);
    cession_store *store = files_open(dir, NULL);
    cession_stored stored;
    cession_stored_init(&stored);
    for (unsigned i = 0; i < KEYS; i++) {
        char key[32];
        snprintf(key, sizeof key, "k %u", i);
        CHECK_OK(files_create(store, key, "0"));
    }
    harness_rng rng = {.state = (uint64_t)getpid()};
    unsigned written = 0;
    for (unsigned round = 0; round < kills; round++) {
        pid_t pid = child_start(write_for_ever, dir);
        ces_sleep_ns((int64_t)(10000000 + harness_below(&rng, 20000000)));
        kill(pid, SIGKILL);
        CHECK_INT(child_wait(pid), 256 + SIGKILL);
        for (unsigned i = 0; i < KEYS; i++) {
            char key[32];
            snprintf(key, sizeof key, "k %u", i);
            unsigned last = atomic_load(&acknowledged[i]);
            if (!CHECK_OK(cession_store_load(store, cession_span_str(key), 0, &stored, NULL))) {
                continue;
            }
            if (last == 0 && stored.value.len == 1 && stored.value.data[0] == '0') {
                continue;
            }
            /* The last acknowledged one, or the one under way when it died. */
            if (is_number(&stored, last + 1)) {
                atomic_store(&acknowledged[i], last + 1);
            } else {
                CHECK_MSG(is_number(&stored, last), "key %u, number %u, length %zu", i, last,
                          stored.value.len);
            }
        }
        /* No lock is left behind. */
        CHECK_OK(cession_store_remove(store, SPAN("nothing"), 0, NULL));
    }
    for (unsigned i = 0; i < KEYS; i++) {
        written += atomic_load(&acknowledged[i]);
    }
    CHECK_MSG(written > kills, "%u writes", written);
    /* One temporary file a kill at most; they go after a while. */
    CHECK(files_count(dir, "tmp-") <= kills);
    cession_stored_release(&stored);
    cession_store_close(store);
    munmap(acknowledged, KEYS * sizeof *acknowledged);
}

static const harness_test tests[] = {
    HARNESS_TEST(processes_and_threads),    HARNESS_TEST(inherited_store),
    HARNESS_TEST(removed_stays_removed),    HARNESS_TEST(readers_see_whole_records),
    HARNESS_TEST(sweep_against_renewal),    HARNESS_TEST(lock_of_a_thread),
    HARNESS_TEST(lock_of_a_killed_process), HARNESS_TEST(lock_does_not_live_in_a_forked_child),
    HARNESS_TEST(fork_in_the_middle),       HARNESS_TEST(killed_writers),
};
HARNESS_MAIN(tests)
