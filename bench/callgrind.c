/* Lets instructions.py count from where it wants to: callgrind's client requests, for ctypes. */
#include <valgrind/callgrind.h>

void begin(void);
void begin(void)
{
    CALLGRIND_START_INSTRUMENTATION;
    CALLGRIND_ZERO_STATS;
}

void finish(const char *name);
void finish(const char *name)
{
    CALLGRIND_DUMP_STATS_AT(name);
    CALLGRIND_STOP_INSTRUMENTATION;
}
