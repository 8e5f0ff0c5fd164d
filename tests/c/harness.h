/* The test harness: named tests, checks that print file and line, one summary.
 *
 *     static void test_adds(void)
 *     {
 *         CHECK(1 + 1 == 2);
 *     }
 *     static const harness_test tests[] = {HARNESS_TEST(adds)};
 *     HARNESS_MAIN(tests)
 *
 * A test is a static function, so one that is missing in the table is a compiler
 * warning. Names on the command line choose tests; every chosen test runs, the
 * last line is "N passed, M failed", the exit status is 1 when any failed or
 * none ran. CHECK... may be used by any thread, REQUIRE... (which leaves the
 * test) only by the one that runs it.
 */
#ifndef TESTS_HARNESS_H
#define TESTS_HARNESS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "cession/cession.h"

typedef struct harness_test {
    const char *name;
    void (*run)(void);
} harness_test;

#define HARNESS_TEST(name) \
    {                      \
#name, test_##name \
    }
#define HARNESS_MAIN(table)                                                     \
    int main(int argc, char **argv)                                             \
    {                                                                           \
        return harness_main(argc, argv, table, sizeof table / sizeof table[0]); \
    }
int harness_main(int argc, char **argv, const harness_test *tests, size_t count);

/* The condition holds, else the test has failed; goes on. */
#define CHECK(condition) harness_check((condition), __FILE__, __LINE__, #condition)
/* The same, with a printf format that says which case it was. */
#define CHECK_MSG(condition, ...) \
    harness_check_msg((condition), __FILE__, __LINE__, #condition, __VA_ARGS__)
#define CHECK_INT(expression, expected)                                                   \
    harness_check_int((long long)(expression), (long long)(expected), __FILE__, __LINE__, \
                      #expression)
/* A cession_status, printed by name. */
#define CHECK_STATUS(expression, expected) \
    harness_check_status((expression), (expected), __FILE__, __LINE__, #expression)
#define CHECK_OK(expression) CHECK_STATUS(expression, CESSION_OK)
/* Two cession_spans hold the same bytes. */
#define CHECK_SPAN(span, expected) harness_check_span((span), (expected), __FILE__, __LINE__, #span)
#define CHECK_STR(text, expected) harness_check_str((text), (expected), __FILE__, __LINE__, #text)

/* As CHECK, but leaves the test at once. */
#define REQUIRE(condition)     \
    do {                       \
        if (!CHECK(condition)) \
            harness_leave();   \
    } while (0)
#define REQUIRE_OK(expression)     \
    do {                           \
        if (!CHECK_OK(expression)) \
            harness_leave();       \
    } while (0)

bool harness_check(bool holds, const char *file, int line, const char *what);
bool harness_check_msg(bool holds, const char *file, int line, const char *what, const char *fmt,
                       ...) CESSION_PRINTF(5, 6);
bool harness_check_int(long long got, long long expected, const char *file, int line,
                       const char *what);
bool harness_check_status(int got, int expected, const char *file, int line, const char *what);
bool harness_check_span(cession_span got, cession_span expected, const char *file, int line,
                        const char *what);
bool harness_check_str(const char *got, const char *expected, const char *file, int line,
                       const char *what);
_Noreturn void harness_leave(void);

/* A deterministic generator for tests: the same seed gives the same numbers. */
typedef struct harness_rng {
    uint64_t state;
} harness_rng;
uint64_t harness_random(harness_rng *rng);
/* 0 <= result < bound; bound > 0. */
uint64_t harness_below(harness_rng *rng, uint64_t bound);

/* A string literal with its embedded NULs as a span. */
#define SPAN(literal) cession_span_of(literal, sizeof(literal) - 1)

#endif
