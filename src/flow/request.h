/* An application and a request of it, as app.c and request.c see them. */
#ifndef CES_FLOW_REQUEST_H
#define CES_FLOW_REQUEST_H

#include "cession/request.h"

struct cession_app {
    cession_codec codec; /* MessagePack, but that it says so of tagged JSON */
    cession_flow *flow;
    cession_signer *signer; /* NULL: without keys */
    bool use_signer, permanent, refresh;
    int64_t lifetime_ms, timeout_ms;
    cession_cookie_attributes cookie; /* its texts are ours */
};

#endif
