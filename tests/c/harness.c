#include "harness.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>

static atomic_uint failures_in_test;
static jmp_buf leave_point;

static bool report(bool holds, const char *file, int line, const char *what)
{
    if (!holds) {
        atomic_fetch_add(&failures_in_test, 1);
        fprintf(stderr, "%s:%d: failed: %s\n", file, line, what);
    }
    return holds;
}

bool harness_check(bool holds, const char *file, int line, const char *what)
{
    return report(holds, file, line, what);
}

bool harness_check_msg(bool holds, const char *file, int line, const char *what, const char *fmt,
                       ...)
{
    if (!report(holds, file, line, what)) {
        va_list args;
        va_start(args, fmt);
        fputs("    ", stderr);
        vfprintf(stderr, fmt, args);
        fputc('\n', stderr);
        va_end(args);
    }
    return holds;
}

bool harness_check_int(long long got, long long expected, const char *file, int line,
                       const char *what)
{
    if (!report(got == expected, file, line, what))
        fprintf(stderr, "    got %lld, expected %lld\n", got, expected);
    return got == expected;
}

bool harness_check_status(int got, int expected, const char *file, int line, const char *what)
{
    if (!report(got == expected, file, line, what))
        fprintf(stderr, "    got %s, expected %s\n", cession_status_name(got),
                cession_status_name(expected));
    return got == expected;
}

static void print_span(const char *label, cession_span span)
{
    const size_t most = 96;
    fprintf(stderr, "    %s (%zu):", label, span.len);
    for (size_t i = 0; i < span.len && i < most; i++)
        fprintf(stderr, " %02x", span.data[i]);
    fputs(span.len > most ? " ...\n" : "\n", stderr);
}

bool harness_check_span(cession_span got, cession_span expected, const char *file, int line,
                        const char *what)
{
    bool equal = cession_span_eq(got, expected);
    if (!report(equal, file, line, what)) {
        print_span("got     ", got);
        print_span("expected", expected);
    }
    return equal;
}

bool harness_check_str(const char *got, const char *expected, const char *file, int line,
                       const char *what)
{
    bool equal = got && expected && strcmp(got, expected) == 0;
    if (!report(equal, file, line, what))
        fprintf(stderr, "    got \"%s\", expected \"%s\"\n", got ? got : "(null)",
                expected ? expected : "(null)");
    return equal;
}

_Noreturn void harness_leave(void)
{
    longjmp(leave_point, 1);
}

uint64_t harness_random(harness_rng *rng)
{
    /* splitmix64, public domain algorithm by Sebastiano Vigna. */
    uint64_t z = (rng->state += 0x9e3779b97f4a7c15u);
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
    z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
    return z ^ (z >> 31);
}

uint64_t harness_below(harness_rng *rng, uint64_t bound)
{
    return harness_random(rng) % bound;
}

static bool chosen(int argc, char **argv, const char *name)
{
    if (argc < 2)
        return true;
    for (int i = 1; i < argc; i++) {
        if (strcmp(argv[i], name) == 0)
            return true;
    }
    return false;
}

int harness_main(int argc, char **argv, const harness_test *tests, size_t count)
{
    /* volatile: both live across longjmp. */
    volatile unsigned passed = 0, failed = 0;

    for (volatile size_t i = 0; i < count; i++) {
        if (!chosen(argc, argv, tests[i].name))
            continue;
        atomic_store(&failures_in_test, 0);
        if (setjmp(leave_point) == 0)
            tests[i].run();
        if (atomic_load(&failures_in_test) == 0) {
            passed = passed + 1;
            printf("ok     %s\n", tests[i].name);
        } else {
            failed = failed + 1;
            printf("FAILED %s\n", tests[i].name);
        }
        fflush(stdout);
    }
    printf("%u passed, %u failed\n", passed, failed);
    return failed > 0 || passed == 0;
}
