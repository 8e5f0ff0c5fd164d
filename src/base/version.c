#include "cession/cession.h"

#include "base/banned.h"

const char *cession_version(void)
{
    return CESSION_VERSION;
}

int cession_abi(void)
{
    return CESSION_ABI;
}
