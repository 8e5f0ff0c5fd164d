/* What a request's end asks of the store and of the browser.
 *
 * The first row that fits decides ("wrote": not empty, and changed or modified):
 *
 *   state at the end                        action      cookie, once the store said OK
 *   --------------------------------------  ----------  ------------------------------
 *   not accessed, not changed, same sid     NONE        NONE
 *   retired or lost, wrote or sid changed   DROP        NONE
 *   retired or lost                         NONE        NONE
 *   new, empty                              NONE        DELETE if the request brought an
 *                                                       unknown sid and modified, else NONE
 *   new                                     CREATE      SET
 *   sid changed, empty                      REMOVE      DELETE
 *   sid changed                             REGENERATE  SET
 *   empty, changed or modified              REMOVE      DELETE
 *   changed                                 REPLACE     SET if permanent, permanence changed
 *                                                       or signed with an old key
 *   modified                                TOUCH       SET if permanent or old key
 *   refresh and touch due                   TOUCH       SET if permanent or old key
 *   anything else                           NONE        SET if old key
 *
 * Any other answer of the store than OK: no Set-Cookie at all. After GONE the
 * browser may hold a newer cookie; after CHANGED somebody else wrote, and set
 * what there was to set; after an error nothing is known.
 *
 * A session that lies empty in the store and was only read is not removed:
 * emptying wins over other writers, so it takes somebody who emptied. */
#include "cession/session.h"

#include "base/banned.h"

/* A write that went past the session object counts as access. */
static bool idle(const cession_facts *facts)
{
    return !facts->accessed && !facts->changed && !facts->sid_changed;
}

static bool dead(const cession_facts *facts)
{
    return facts->retired || facts->lost;
}

cession_action cession_decide_action(const cession_facts *facts)
{
    if (idle(facts))
        return CESSION_ACT_NONE;
    bool touched = facts->changed || facts->modified;
    if (dead(facts)) {
        bool wrote = !facts->empty && (touched || facts->sid_changed);
        return wrote ? CESSION_ACT_DROP : CESSION_ACT_NONE;
    }
    if (facts->is_new)
        return facts->empty ? CESSION_ACT_NONE : CESSION_ACT_CREATE;
    if (facts->sid_changed)
        return facts->empty ? CESSION_ACT_REMOVE : CESSION_ACT_REGENERATE;
    if (facts->empty && touched)
        return CESSION_ACT_REMOVE;
    if (facts->changed)
        return CESSION_ACT_REPLACE;
    if (facts->modified || (facts->refresh && facts->touch_due))
        return CESSION_ACT_TOUCH;
    return CESSION_ACT_NONE;
}

cession_cookie cession_decide_cookie(const cession_facts *facts, cession_action action, int status)
{
    if (dead(facts) || status != CESSION_OK)
        return CESSION_COOKIE_NONE;
    bool renew = false;
    switch (action) {
    case CESSION_ACT_NONE:
        if (idle(facts))
            return CESSION_COOKIE_NONE;
        if (facts->is_new) {
            bool cleared = facts->empty && facts->unknown_sid && facts->modified;
            return cleared ? CESSION_COOKIE_DELETE : CESSION_COOKIE_NONE;
        }
        renew = facts->old_signature;
        break;
    case CESSION_ACT_TOUCH:
        renew = facts->permanent || facts->old_signature;
        break;
    case CESSION_ACT_REPLACE:
        renew = facts->permanent || facts->permanence_changed || facts->sid_changed ||
                facts->old_signature;
        break;
    case CESSION_ACT_CREATE:
    case CESSION_ACT_REGENERATE:
        renew = true;
        break;
    case CESSION_ACT_REMOVE:
        return CESSION_COOKIE_DELETE;
    case CESSION_ACT_DROP:
        break;
    }
    return renew ? CESSION_COOKIE_SET : CESSION_COOKIE_NONE;
}

/* The special expiries are negative, and so is a clock before 1970: all due. */
bool cession_touch_due(int64_t now_ms, int64_t expires_at_ms, int64_t lifetime_ms,
                       int64_t interval_ms)
{
    if (expires_at_ms < 0 || now_ms < 0 || lifetime_ms <= 0)
        return true;
    if (interval_ms < 0) {
        interval_ms = lifetime_ms / 20;
        if (interval_ms > 60000)
            interval_ms = 60000;
    }
    /* Of numbers that are not negative differences cannot overflow; the sum can,
     * hence lifetime on the other side. */
    int64_t left = expires_at_ms - now_ms;
    return left < lifetime_ms - interval_ms || left - lifetime_ms > interval_ms;
}
