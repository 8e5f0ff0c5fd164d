/* The base floor: allocator seam, buffers, errors, the OS seam. */
#include "harness.h"

#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "base/alloc.h"
#include "base/os.h"
#include "failing_alloc.h"
#include "scratch.h"

/* ---- errors ---------------------------------------------------------------- */

static void test_status_names(void)
{
    CHECK_STR(cession_status_name(CESSION_OK), "CESSION_OK");
    CHECK_STR(cession_status_name(CESSION_E_BUSY), "CESSION_E_BUSY");
    CHECK_STR(cession_status_message(CESSION_GONE), "the record is gone");
    CHECK_STR(cession_status_name(4711), "CESSION_UNKNOWN");
    CHECK_STR(cession_status_message(-4711), "unknown status");
}

static void test_fail_texts(void)
{
    cession_error err = CESSION_ERROR_INIT;
    CHECK_INT(cession_fail(&err, CESSION_E_IO, "row %d of %s", 7, "t"), CESSION_E_IO);
    CHECK_INT(err.code, CESSION_E_IO);
    CHECK_STR(err.text, "row 7 of t");

    CHECK_INT(cession_fail(&err, CESSION_E_BUSY, "outer: %s", err.text), CESSION_E_BUSY);
    CHECK_STR(err.text, "outer: row 7 of t");

    CHECK_INT(cession_fail(&err, CESSION_E_NOMEM, NULL), CESSION_E_NOMEM);
    CHECK_STR(err.text, "out of memory");
    CHECK_INT(cession_fail(NULL, CESSION_E_FORMAT, "%d", 1), CESSION_E_FORMAT);

    char longer[2 * CESSION_ERROR_TEXT_MAX];
    memset(longer, 'x', sizeof longer - 1);
    longer[sizeof longer - 1] = '\0';
    cession_fail(&err, CESSION_E_IO, "%s", longer);
    CHECK_INT(strlen(err.text), CESSION_ERROR_TEXT_MAX - 1);

    cession_error_clear(&err);
    CHECK_INT(err.code, CESSION_OK);
    CHECK_STR(err.text, "");
    cession_error_clear(NULL);
}

/* ---- buffers --------------------------------------------------------------- */

static void test_buf_grows_to_its_max(void)
{
    cession_buf buf;
    cession_buf_init(&buf, 1000);
    CHECK(buf.data == NULL && buf.len == 0);
    for (unsigned i = 0; i < 1000; i++)
        REQUIRE_OK(cession_buf_byte(&buf, (uint8_t)i));
    CHECK_INT(buf.len, 1000);
    CHECK(buf.cap <= 1000);
    bool intact = true;
    for (unsigned i = 0; i < 1000; i++)
        intact = intact && buf.data[i] == (uint8_t)i;
    CHECK(intact);

    CHECK_STATUS(cession_buf_byte(&buf, 0), CESSION_E_LIMIT);
    CHECK_STATUS(cession_buf_append(&buf, "x", 1), CESSION_E_LIMIT);
    CHECK_STATUS(cession_buf_reserve(&buf, SIZE_MAX), CESSION_E_LIMIT);
    CHECK_STATUS(cession_buf_reserve(&buf, 1), CESSION_E_LIMIT);
    CHECK_OK(cession_buf_reserve(&buf, 0));
    CHECK_INT(buf.len, 1000);

    cession_buf_clear(&buf);
    CHECK_INT(buf.len, 0);
    CHECK(buf.cap > 0);
    CHECK_OK(cession_buf_append(&buf, "again", 5));
    CHECK_SPAN(cession_buf_span(&buf), SPAN("again"));
    cession_buf_release(&buf);
    CHECK(buf.data == NULL && buf.len == 0 && buf.cap == 0);
    CHECK_INT(buf.max, 1000);
    cession_buf_release(NULL);
}

/* Doubling: a linear number of bytes is copied, so few allocations are made. */
static void test_buf_growth_is_geometric(void)
{
    cession_buf buf;
    cession_buf_init(&buf, 1u << 24);
    unsigned grown = 0;
    size_t cap = 0;
    for (size_t i = 0; i < (1u << 20); i++) {
        REQUIRE_OK(cession_buf_byte(&buf, 1));
        if (buf.cap != cap) {
            grown++;
            cap = buf.cap;
        }
    }
    CHECK(grown < 25);
    cession_buf_release(&buf);
}

static void test_buf_set_and_swap(void)
{
    cession_buf a, b;
    cession_buf_init(&a, 8);
    cession_buf_init(&b, 100);
    CHECK_OK(cession_buf_set(&a, NULL, 0));
    CHECK_OK(cession_buf_set(&a, "12345678", 8));
    CHECK_OK(cession_buf_set(&a, "short", 5));
    CHECK_STATUS(cession_buf_set(&a, "123456789", 9), CESSION_E_LIMIT);
    CHECK_SPAN(cession_buf_span(&a), SPAN("short"));
    CHECK_OK(cession_buf_append(&b, "other", 5));
    CHECK_OK(cession_buf_append(&b, NULL, 0));
    cession_buf_swap(&a, &b);
    CHECK_SPAN(cession_buf_span(&a), SPAN("other"));
    CHECK_SPAN(cession_buf_span(&b), SPAN("short"));
    CHECK_INT(a.max, 100);
    CHECK_INT(b.max, 8);
    cession_buf_release(&a);
    cession_buf_release(&b);
}

static void test_buf_without_memory(void)
{
    FAILING_ALLOC_LOOP(n)
    {
        cession_buf buf;
        cession_buf_init(&buf, 10000);
        int rc = cession_buf_append(&buf, "kept", 4);
        size_t len = buf.len;
        for (int i = 0; rc == CESSION_OK && i < 3000; i++) {
            len = buf.len;
            rc = i % 2 ? cession_buf_byte(&buf, 'b') : cession_buf_append(&buf, "ab", 2);
        }
        if (rc == CESSION_OK) {
            len = buf.len;
            rc = cession_buf_reserve(&buf, 10000 - buf.len);
        }
        if (failing_alloc_fired()) {
            CHECK_STATUS(rc, CESSION_E_NOMEM);
            CHECK_INT(buf.len, len);
            CHECK(len == 0 || memcmp(buf.data, "kept", 4) == 0);
            CHECK_OK(cession_buf_set(&buf, "after", 5));
            CHECK_SPAN(cession_buf_span(&buf), SPAN("after"));
        } else {
            CHECK_OK(rc);
        }
        cession_buf_release(&buf);
    }
}

/* ---- allocator ------------------------------------------------------------- */

static void test_allocator_seam(void)
{
    failing_alloc_install();
    char *text = ces_strndup("abcdef", 3);
    CHECK_STR(text, "abc");
    uint8_t *zeros = ces_alloc_zero(100);
    uint8_t seen = 0;
    for (int i = 0; zeros && i < 100; i++)
        seen |= zeros[i];
    CHECK_INT(seen, 0);
    CHECK_INT(failing_alloc_live(), 2);
    ces_free(text);
    ces_free(zeros);
    ces_free(NULL);
    CHECK_INT(failing_alloc_live(), 0);
    failing_alloc_arm(0);
    CHECK(ces_strndup("x", 1) == NULL);
    failing_alloc_arm(0);
    CHECK(ces_alloc_zero(1) == NULL);
    CHECK(ces_strndup("x", SIZE_MAX) == NULL);
    failing_alloc_uninstall();

    char secret[8] = "secret";
    ces_wipe(secret, sizeof secret);
    CHECK(memcmp(secret, "\0\0\0\0\0\0\0\0", 8) == 0);
    ces_wipe(NULL, 0);
}

/* ---- random bytes ---------------------------------------------------------- */

static void test_random_bytes_differ(void)
{
    static uint8_t drawn[2000][16];
    for (size_t i = 0; i < 2000; i++)
        REQUIRE_OK(ces_random(drawn[i], 16, NULL));
    unsigned equal = 0;
    for (size_t i = 0; i < 2000; i++) {
        for (size_t j = 0; j < i; j++)
            equal += memcmp(drawn[i], drawn[j], 16) == 0;
    }
    CHECK_INT(equal, 0);
}

/* Sizes around the pool's own limits; every byte position is written. */
static void test_random_sizes(void)
{
    static const size_t sizes[] = {0, 1, 7, 255, 256, 257, 1023, 1024, 1025, 5000};
    static uint8_t got[5001], any[5001];
    for (size_t s = 0; s < sizeof sizes / sizeof sizes[0]; s++) {
        size_t len = sizes[s];
        memset(any, 0, sizeof any);
        for (int round = 0; round < 12; round++) {
            memset(got, 0, sizeof got);
            REQUIRE_OK(ces_random(got, len, NULL));
            CHECK_INT(got[len], 0);
            for (size_t i = 0; i < len; i++)
                any[i] |= got[i];
        }
        size_t unset = 0;
        for (size_t i = 0; i < len; i++)
            unset += any[i] == 0; /* 2^-96 per byte when all is well */
        CHECK_INT(unset, 0);
    }
}

/* Runs child_main in a forked process and reads up to len bytes from it. */
static bool in_child(pid_t (*fork_it)(void), void (*child_main)(int fd), void *ret_bytes,
                     size_t len)
{
    int ends[2];
    if (pipe(ends) != 0)
        return false;
    pid_t pid = fork_it();
    if (pid == 0) {
        close(ends[0]);
        child_main(ends[1]);
        child_end(0);
    }
    close(ends[1]);
    uint8_t *at = ret_bytes;
    size_t have = 0;
    for (ssize_t got = 1; got > 0 && have < len; have += (size_t)got) {
        got = read(ends[0], at + have, len - have);
        if (got < 0)
            got = 0;
    }
    close(ends[0]);
    int status = -1;
    return pid > 0 && waitpid(pid, &status, 0) == pid && status == 0 && have == len;
}

static void send_bytes(int fd, const void *data, size_t len)
{
    if (write(fd, data, len) != (ssize_t)len)
        child_end(9);
}

static pid_t plain_fork(void)
{
    return fork();
}

/* A fork that no handler of pthread_atfork sees. */
static pid_t bare_fork(void)
{
    return (pid_t)syscall(SYS_clone, SIGCHLD, NULL, NULL, NULL, NULL);
}

static void child_draws(int fd)
{
    uint8_t bytes[64];
    if (ces_random(bytes, sizeof bytes, NULL) != CESSION_OK)
        child_end(8);
    send_bytes(fd, bytes, sizeof bytes);
}

static void check_fork_separates(pid_t (*fork_it)(void))
{
    for (int round = 0; round < 20; round++) {
        uint8_t mine[64], first[64], second[64];
        REQUIRE_OK(ces_random(mine, 8, NULL)); /* the pool is filled */
        REQUIRE(in_child(fork_it, child_draws, first, sizeof first));
        REQUIRE(in_child(fork_it, child_draws, second, sizeof second));
        REQUIRE_OK(ces_random(mine, sizeof mine, NULL));
        CHECK(memcmp(mine, first, sizeof mine) != 0);
        CHECK(memcmp(mine, second, sizeof mine) != 0);
        CHECK(memcmp(first, second, sizeof first) != 0);
    }
}

static void test_random_after_fork(void)
{
    check_fork_separates(plain_fork);
}

static void test_random_after_bare_clone(void)
{
    check_fork_separates(bare_fork);
}

static atomic_bool busy_stop;

static void *draws_all_the_time(void *unused)
{
    (void)unused;
    uint8_t bytes[32];
    while (!atomic_load(&busy_stop)) {
        if (ces_random(bytes, sizeof bytes, NULL) != CESSION_OK)
            return (void *)1;
    }
    return NULL;
}

/* The pool's mutex is held by another thread at the moment of the fork, sooner
 * or later: the child must neither hang nor repeat bytes. */
static void test_random_forks_beside_busy_threads(void)
{
    atomic_store(&busy_stop, false);
    pthread_t threads[2];
    REQUIRE(pthread_create(&threads[0], NULL, draws_all_the_time, NULL) == 0);
    REQUIRE(pthread_create(&threads[1], NULL, draws_all_the_time, NULL) == 0);
    static uint8_t drawn[60][64];
    bool all = true;
    for (size_t i = 0; i < 60; i++)
        all = all && in_child(i % 2 ? bare_fork : plain_fork, child_draws, drawn[i], 64);
    CHECK(all);
    atomic_store(&busy_stop, true);
    void *failed[2] = {NULL, NULL};
    pthread_join(threads[0], &failed[0]);
    pthread_join(threads[1], &failed[1]);
    CHECK(!failed[0] && !failed[1]);
    unsigned equal = 0;
    for (size_t i = 0; i < 60; i++) {
        for (size_t j = 0; j < i; j++)
            equal += memcmp(drawn[i], drawn[j], 64) == 0;
    }
    CHECK_INT(equal, 0);
}

/* ---- chance ---------------------------------------------------------------- */

static void child_chances(int fd)
{
    uint64_t number = ces_chance();
    send_bytes(fd, &number, sizeof number);
}

static void *thread_chance(void *ret_number)
{
    *(uint64_t *)ret_number = ces_chance();
    return NULL;
}

static void test_chance(void)
{
    unsigned high = 0;
    uint64_t last = ces_chance(), repeated = 0;
    for (int i = 0; i < 10000; i++) {
        uint64_t now = ces_chance();
        repeated += now == last;
        high += (unsigned)(now >> 63);
        last = now;
    }
    CHECK_INT(repeated, 0);
    CHECK(high > 4500 && high < 5500); /* ten standard deviations */

    uint64_t in_thread = 0, in_fork = 0, in_other_fork = 0;
    pthread_t thread;
    REQUIRE(pthread_create(&thread, NULL, thread_chance, &in_thread) == 0);
    pthread_join(thread, NULL);
    REQUIRE(in_child(plain_fork, child_chances, &in_fork, sizeof in_fork));
    REQUIRE(in_child(plain_fork, child_chances, &in_other_fork, sizeof in_other_fork));
    uint64_t here = ces_chance();
    CHECK(in_thread != here && in_fork != here && in_other_fork != here);
    CHECK(in_fork != in_other_fork); /* two workers must not act in step */
}

/* ---- clocks ---------------------------------------------------------------- */

static void test_clocks(void)
{
    int64_t before = (int64_t)time(NULL) * 1000;
    int64_t now = ces_now_ms();
    int64_t after = ((int64_t)time(NULL) + 1) * 1000;
    /* time() may use a coarser clock that lags by a tick. */
    CHECK(now >= before && now <= after + 20);

    int64_t start = ces_mono_ns();
    ces_sleep_ns(3000000);
    CHECK(ces_mono_ns() - start >= 3000000);
    ces_sleep_ns(0);
    ces_sleep_ns(-1);
}

static void on_alarm(int signal_number)
{
    (void)signal_number;
}

static void test_sleep_outlasts_signals(void)
{
    struct sigaction action = {.sa_handler = on_alarm}, before;
    sigaction(SIGALRM, &action, &before);
    int64_t start = ces_mono_ns();
    ualarm(2000, 2000);
    ces_sleep_ns(15000000);
    ualarm(0, 0);
    sigaction(SIGALRM, &before, NULL);
    CHECK(ces_mono_ns() - start >= 15000000);
}

static void test_equal_ct(void)
{
    CHECK(ces_equal_ct("abc", "abc", 3));
    CHECK(!ces_equal_ct("abc", "abd", 3));
    CHECK(!ces_equal_ct("xbc", "abc", 3));
    CHECK(ces_equal_ct("abx", "aby", 2));
    CHECK(ces_equal_ct(NULL, NULL, 0));
}

/* ---- fork hooks ------------------------------------------------------------ */

static char hook_log[64];
static size_t hook_logged;

static void log_event(char event)
{
    if (hook_logged < sizeof hook_log - 1)
        hook_log[hook_logged++] = event;
    hook_log[hook_logged] = '\0';
}

static void clear_log(void)
{
    hook_logged = 0;
    hook_log[0] = '\0';
}

/* context is the hook's name, "a": logged as a in prepare, as A after it. */
static void hook_prepare(void *context)
{
    log_event(*(const char *)context);
}

static void hook_parent(void *context)
{
    log_event((char)(*(const char *)context - 'a' + 'A'));
}

static void hook_child(void *context)
{
    log_event((char)(*(const char *)context - 'a' + '1'));
}

static void child_sends_log(int fd)
{
    send_bytes(fd, hook_log, sizeof hook_log);
}

static void test_fork_hooks(void)
{
    char names[3][2] = {"a", "b", "c"};
    ces_fork_hook hooks[3] = {
        {hook_prepare, hook_parent, hook_child, names[0], NULL, NULL, false},
        {hook_prepare, hook_parent, hook_child, names[1], NULL, NULL, false},
        {hook_prepare, NULL, NULL, names[2], NULL, NULL, false},
    };
    for (int i = 0; i < 3; i++) {
        REQUIRE_OK(ces_fork_register(&hooks[i], NULL));
        REQUIRE_OK(ces_fork_register(&hooks[i], NULL)); /* idempotent */
    }

    clear_log();
    char childs[sizeof hook_log];
    REQUIRE(in_child(plain_fork, child_sends_log, childs, sizeof childs));
    CHECK_STR(childs, "cba12");
    CHECK_STR(hook_log, "cbaAB");

    clear_log();
    ces_fork_quiesce();
    CHECK_STR(hook_log, "cbaAB");
    REQUIRE(in_child(plain_fork, child_sends_log, childs, sizeof childs));
    CHECK_STR(hook_log, "cbaABcbaAB");

    ces_fork_unregister(&hooks[1]);
    ces_fork_unregister(&hooks[1]);
    clear_log();
    ces_fork_quiesce();
    CHECK_STR(hook_log, "caA");
    REQUIRE_OK(ces_fork_register(&hooks[1], NULL)); /* now the last one */
    clear_log();
    ces_fork_quiesce();
    CHECK_STR(hook_log, "bcaAB");

    ces_fork_unregister(&hooks[0]);
    ces_fork_unregister(&hooks[2]);
    ces_fork_unregister(&hooks[1]);
    clear_log();
    ces_fork_quiesce();
    CHECK_STR(hook_log, "");
}

static atomic_uint hooks_inside, hooks_overlaps;

static void enters(void *unused)
{
    (void)unused;
    if (atomic_fetch_add(&hooks_inside, 1) != 0)
        atomic_fetch_add(&hooks_overlaps, 1);
}

static void leaves(void *unused)
{
    (void)unused;
    atomic_fetch_sub(&hooks_inside, 1);
}

static void *quiesces(void *unused)
{
    (void)unused;
    for (int i = 0; i < 200; i++)
        ces_fork_quiesce();
    return NULL;
}

/* Forks and quiescing of several threads never interleave between a hook's
 * prepare and its end. */
static void test_fork_hooks_do_not_overlap(void)
{
    ces_fork_hook hook = {enters, leaves, leaves, NULL, NULL, NULL, false};
    atomic_store(&hooks_overlaps, 0);
    REQUIRE_OK(ces_fork_register(&hook, NULL));
    pthread_t threads[2];
    REQUIRE(pthread_create(&threads[0], NULL, quiesces, NULL) == 0);
    REQUIRE(pthread_create(&threads[1], NULL, quiesces, NULL) == 0);
    char text[sizeof hook_log];
    bool all = true;
    for (int i = 0; i < 20; i++)
        all = all && in_child(plain_fork, child_sends_log, text, sizeof text);
    CHECK(all);
    pthread_join(threads[0], NULL);
    pthread_join(threads[1], NULL);
    ces_fork_unregister(&hook);
    CHECK_INT(atomic_load(&hooks_overlaps), 0);
    CHECK_INT(atomic_load(&hooks_inside), 0);
}

static const harness_test tests[] = {
    HARNESS_TEST(status_names),
    HARNESS_TEST(fail_texts),
    HARNESS_TEST(buf_grows_to_its_max),
    HARNESS_TEST(buf_growth_is_geometric),
    HARNESS_TEST(buf_set_and_swap),
    HARNESS_TEST(buf_without_memory),
    HARNESS_TEST(allocator_seam),
    HARNESS_TEST(random_bytes_differ),
    HARNESS_TEST(random_sizes),
    HARNESS_TEST(random_after_fork),
    HARNESS_TEST(random_after_bare_clone),
    HARNESS_TEST(random_forks_beside_busy_threads),
    HARNESS_TEST(chance),
    HARNESS_TEST(clocks),
    HARNESS_TEST(sleep_outlasts_signals),
    HARNESS_TEST(equal_ct),
    HARNESS_TEST(fork_hooks),
    HARNESS_TEST(fork_hooks_do_not_overlap),
};
HARNESS_MAIN(tests)
