/* The decision at a request's end: named rows, then rules over all combinations
 * of facts, then the touch rule. */
#include "harness.h"

#include <string.h>

enum {
    F_ACCESSED = 1u << 0,
    F_NEW = 1u << 1,
    F_EMPTY = 1u << 2,
    F_CHANGED = 1u << 3,
    F_MODIFIED = 1u << 4,
    F_PERMANENT = 1u << 5,
    F_PERMANENCE = 1u << 6,
    F_SID = 1u << 7,
    F_OLD_KEY = 1u << 8,
    F_UNKNOWN = 1u << 9,
    F_RETIRED = 1u << 10,
    F_LOST = 1u << 11,
    F_DUE = 1u << 12,
    F_REFRESH = 1u << 13,
    F_ALL = 1u << 14
};

static cession_facts facts_of(unsigned bits)
{
    return (cession_facts){
        .accessed = bits & F_ACCESSED,
        .is_new = bits & F_NEW,
        .empty = bits & F_EMPTY,
        .changed = bits & F_CHANGED,
        .modified = bits & F_MODIFIED,
        .permanent = bits & F_PERMANENT,
        .permanence_changed = bits & F_PERMANENCE,
        .sid_changed = bits & F_SID,
        .old_signature = bits & F_OLD_KEY,
        .unknown_sid = bits & F_UNKNOWN,
        .retired = bits & F_RETIRED,
        .lost = bits & F_LOST,
        .touch_due = bits & F_DUE,
        .refresh = bits & F_REFRESH,
    };
}

#define NONE CESSION_ACT_NONE
#define TOUCH CESSION_ACT_TOUCH
#define CREATE CESSION_ACT_CREATE
#define REPLACE CESSION_ACT_REPLACE
#define REMOVE CESSION_ACT_REMOVE
#define REGENERATE CESSION_ACT_REGENERATE
#define DROP CESSION_ACT_DROP
#define NO_COOKIE CESSION_COOKIE_NONE
#define SET CESSION_COOKIE_SET
#define DELETE CESSION_COOKIE_DELETE

static void test_named_rows(void)
{
    const unsigned a = F_ACCESSED, r = F_REFRESH, p = F_PERMANENT;
    const struct {
        const char *what;
        unsigned facts;
        cession_action action;
        int status;
        cession_cookie cookie;
    } rows[] = {
        {"never accessed", r | p | F_DUE, NONE, 0, NO_COOKIE},
        {"never accessed, old key", r | p | F_DUE | F_OLD_KEY, NONE, 0, NO_COOKIE},
        {"never accessed, new and empty", r | F_NEW | F_EMPTY | F_UNKNOWN, NONE, 0, NO_COOKIE},
        {"changed behind the session's back", F_CHANGED, REPLACE, 0, NO_COOKIE},
        {"created behind the session's back", F_CHANGED | F_NEW, CREATE, 0, SET},

        {"read, not due", a | r | p, NONE, 0, NO_COOKIE},
        {"read, due", a | r | F_DUE, TOUCH, 0, NO_COOKIE},
        {"read, due, permanent", a | r | p | F_DUE, TOUCH, 0, SET},
        {"read, due, permanent, somebody wrote", a | r | p | F_DUE, TOUCH, CESSION_CHANGED,
         NO_COOKIE},
        {"read, due, permanent, gone", a | r | p | F_DUE, TOUCH, CESSION_GONE, NO_COOKIE},
        {"read, due, the store fails", a | r | p | F_DUE, TOUCH, CESSION_E_BUSY, NO_COOKIE},
        {"read, old key", a | r | F_OLD_KEY, NONE, 0, SET},
        {"read, old key, due", a | r | F_OLD_KEY | F_DUE, TOUCH, 0, SET},
        {"read, old key, gone", a | r | F_OLD_KEY | F_DUE, TOUCH, CESSION_GONE, NO_COOKIE},
        {"read, no refresh", a | p | F_DUE, NONE, 0, NO_COOKIE},
        {"read, no refresh, old key", a | p | F_DUE | F_OLD_KEY, NONE, 0, SET},
        {"read of a record that lies empty", a | r | F_EMPTY, NONE, 0, NO_COOKIE},
        {"the same, due", a | r | p | F_EMPTY | F_DUE, TOUCH, 0, SET},

        {"new, filled", a | r | F_NEW | F_CHANGED | F_MODIFIED, CREATE, 0, SET},
        {"new, filled, the store fails", a | r | F_NEW | F_CHANGED, CREATE, CESSION_E_IO,
         NO_COOKIE},
        {"new, filled, the id is taken", a | r | F_NEW | F_CHANGED, CREATE, CESSION_EXISTS,
         NO_COOKIE},
        {"new, filled, unknown sid", a | r | F_NEW | F_CHANGED | F_UNKNOWN, CREATE, 0, SET},
        {"new, empty", a | r | F_NEW | F_EMPTY, NONE, 0, NO_COOKIE},
        {"new, empty, unknown sid", a | r | F_NEW | F_EMPTY | F_UNKNOWN, NONE, 0, NO_COOKIE},
        {"new, cleared, unknown sid", a | r | F_NEW | F_EMPTY | F_UNKNOWN | F_MODIFIED, NONE, 0,
         DELETE},
        {"new, cleared, no sid", a | r | F_NEW | F_EMPTY | F_MODIFIED, NONE, 0, NO_COOKIE},
        {"new, empty, old key", a | r | F_NEW | F_EMPTY | F_OLD_KEY, NONE, 0, NO_COOKIE},
        {"new, filled, regenerated", a | r | F_NEW | F_CHANGED | F_SID, CREATE, 0, SET},
        {"new, empty, regenerated", a | r | F_NEW | F_EMPTY | F_SID, NONE, 0, NO_COOKIE},

        {"changed", a | r | F_CHANGED | F_MODIFIED, REPLACE, 0, NO_COOKIE},
        {"changed in depth", a | r | F_CHANGED, REPLACE, 0, NO_COOKIE},
        {"changed, permanent", a | r | p | F_CHANGED, REPLACE, 0, SET},
        {"changed, permanent, no refresh", a | p | F_CHANGED, REPLACE, 0, SET},
        {"changed, permanence", a | r | F_CHANGED | F_PERMANENCE, REPLACE, 0, SET},
        {"changed, old key", a | r | F_CHANGED | F_OLD_KEY, REPLACE, 0, SET},
        {"changed, gone", a | r | p | F_CHANGED | F_OLD_KEY | F_PERMANENCE, REPLACE, CESSION_GONE,
         NO_COOKIE},
        {"changed, the store fails", a | r | p | F_CHANGED, REPLACE, CESSION_E_TIMEOUT, NO_COOKIE},

        {"modified, equal bytes", a | r | F_MODIFIED, TOUCH, 0, NO_COOKIE},
        {"modified, equal bytes, permanent", a | r | p | F_MODIFIED, TOUCH, 0, SET},
        {"modified, equal bytes, no refresh", a | p | F_MODIFIED, TOUCH, 0, SET},
        {"modified, equal bytes, gone", a | p | F_MODIFIED, TOUCH, CESSION_GONE, NO_COOKIE},

        {"emptied", a | r | F_EMPTY | F_CHANGED | F_MODIFIED, REMOVE, 0, DELETE},
        {"emptied, the store fails", a | r | F_EMPTY | F_CHANGED, REMOVE, CESSION_E_IO, NO_COOKIE},
        {"cleared what lay empty", a | r | F_EMPTY | F_MODIFIED, REMOVE, 0, DELETE},

        {"regenerated", a | r | F_SID, REGENERATE, 0, SET},
        {"regenerated, changed", a | r | F_SID | F_CHANGED | F_MODIFIED, REGENERATE, 0, SET},
        {"regenerated by two at once", a | r | F_SID, REGENERATE, CESSION_GONE, NO_COOKIE},
        {"regenerated, emptied", a | r | F_SID | F_EMPTY | F_CHANGED, REMOVE, 0, DELETE},
        {"regenerated without access", F_SID, REGENERATE, 0, SET},

        {"retired, read", a | r | F_RETIRED | F_EMPTY | F_DUE, NONE, 0, NO_COOKIE},
        {"retired, read, old key", a | r | p | F_RETIRED | F_EMPTY | F_OLD_KEY, NONE, 0, NO_COOKIE},
        {"retired, written", a | r | F_RETIRED | F_CHANGED | F_MODIFIED, DROP, 0, NO_COOKIE},
        {"retired, cleared", a | r | F_RETIRED | F_EMPTY | F_MODIFIED | F_UNKNOWN, NONE, 0,
         NO_COOKIE},
        {"retired, regenerated", a | r | F_RETIRED | F_SID | F_EMPTY, NONE, 0, NO_COOKIE},
        {"retired, nothing but permanence", a | p | F_RETIRED | F_EMPTY | F_CHANGED | F_PERMANENCE,
         NONE, 0, NO_COOKIE},
        {"lost, saved again", a | r | p | F_LOST | F_CHANGED, DROP, 0, NO_COOKIE},
        {"lost, modified", a | r | p | F_LOST | F_MODIFIED, DROP, 0, NO_COOKIE},
        {"lost, regenerated", a | r | p | F_LOST | F_SID, DROP, 0, NO_COOKIE},
        {"lost, emptied", a | r | p | F_LOST | F_CHANGED | F_EMPTY, NONE, 0, NO_COOKIE},
        {"lost, read", a | r | p | F_LOST | F_DUE | F_OLD_KEY, NONE, 0, NO_COOKIE},
    };
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        cession_facts facts = facts_of(rows[i].facts);
        cession_action action = cession_decide_action(&facts);
        CHECK_MSG(action == rows[i].action, "%s: action %d", rows[i].what, (int)action);
        cession_cookie cookie = cession_decide_cookie(&facts, action, rows[i].status);
        CHECK_MSG(cookie == rows[i].cookie, "%s: cookie %d", rows[i].what, (int)cookie);
    }
}

/* A rule over every combination: where it does not hold, count. */
#define RULE(holds) (broken += !(holds))

static void test_rules_of_actions(void)
{
    unsigned broken = 0, seen[CESSION_ACT_DROP + 1] = {0};
    for (unsigned bits = 0; bits < F_ALL; bits++) {
        cession_facts f = facts_of(bits);
        cession_action act = cession_decide_action(&f);
        bool dead = f.retired || f.lost;
        bool writes = act == CREATE || act == REPLACE || act == REGENERATE || act == REMOVE;
        RULE((unsigned)act <= CESSION_ACT_DROP);
        seen[act]++;
        /* The dead stay dead, and only they drop; what is dropped was something. */
        RULE(!dead || act == NONE || act == DROP);
        RULE(act != DROP || (dead && !f.empty && (f.changed || f.modified || f.sid_changed)));
        RULE(!(dead && !f.empty && f.changed) || act == DROP);
        /* A record is created where there was none, and only there. */
        RULE(act != CREATE || (f.is_new && !f.empty));
        RULE(!f.is_new || act == NONE || act == CREATE || act == DROP);
        RULE(act != REGENERATE || (f.sid_changed && !f.empty && !f.is_new));
        RULE(act != REPLACE || (f.changed && !f.empty && !f.sid_changed));
        /* Nothing goes away unless somebody emptied it. */
        RULE(act != REMOVE || (f.empty && (f.changed || f.modified || f.sid_changed)));
        RULE(!(f.empty && f.changed && !f.is_new && !dead) || act == REMOVE);
        /* Reading writes nothing, and touches by the rule of the touch alone. */
        RULE(!(writes && !f.changed && !f.modified && !f.sid_changed && !f.is_new));
        RULE(act != TOUCH || f.modified || (f.refresh && f.touch_due));
        RULE(act != TOUCH || !f.changed);
        RULE(f.accessed || f.changed || f.sid_changed || act == NONE);
        /* What is changed is never passed over. */
        RULE(!(f.changed && !dead && !(f.is_new && f.empty)) || writes);
        /* The cookie's business does not choose the store's. */
        cession_facts other = f;
        other.permanent = !f.permanent;
        other.permanence_changed = !f.permanence_changed;
        other.old_signature = !f.old_signature;
        other.unknown_sid = !f.unknown_sid;
        RULE(cession_decide_action(&other) == act);
    }
    CHECK_INT(broken, 0);
    for (size_t i = 0; i < sizeof seen / sizeof seen[0]; i++)
        CHECK(seen[i] > 0);
}

static void test_rules_of_cookies(void)
{
    static const int statuses[] = {CESSION_OK,       CESSION_NOT_FOUND, CESSION_EXISTS,
                                   CESSION_CONFLICT, CESSION_GONE,      CESSION_CHANGED,
                                   CESSION_E_BUSY,   CESSION_E_INTERNAL};
    unsigned broken = 0, seen[CESSION_COOKIE_DELETE + 1] = {0};
    for (unsigned bits = 0; bits < F_ALL; bits++) {
        cession_facts f = facts_of(bits);
        bool dead = f.retired || f.lost;
        /* Also actions that these facts would not choose: a merge that came out
         * empty turns a REPLACE into a REMOVE. */
        for (int a = CESSION_ACT_NONE; a <= CESSION_ACT_DROP; a++) {
            cession_action act = (cession_action)a;
            for (size_t s = 0; s < sizeof statuses / sizeof statuses[0]; s++) {
                int status = statuses[s];
                cession_cookie cookie = cession_decide_cookie(&f, act, status);
                RULE((unsigned)cookie <= CESSION_COOKIE_DELETE);
                seen[cookie]++;
                RULE(cookie == NO_COOKIE || (!dead && status == CESSION_OK && act != DROP));
                if (dead || status != CESSION_OK)
                    continue;
                RULE(!(act == CREATE || act == REGENERATE) || cookie == SET);
                RULE(act != REMOVE || cookie == DELETE);
                RULE(cookie != DELETE || act == REMOVE ||
                     (act == NONE && f.is_new && f.empty && f.unknown_sid && f.modified));
                RULE(act != TOUCH || (cookie == SET) == (f.permanent || f.old_signature));
                RULE(act != REPLACE || (cookie == SET) == (f.permanent || f.permanence_changed ||
                                                           f.sid_changed || f.old_signature));
                RULE(!(act == NONE && cookie == SET) || (f.old_signature && !f.is_new));
            }
        }
        cession_action chosen = cession_decide_action(&f);
        if (!f.accessed && !f.changed && !f.sid_changed)
            RULE(cession_decide_cookie(&f, chosen, CESSION_OK) == NO_COOKIE);
        /* An empty session never gets a cookie set, unless its record lies there. */
        if (f.empty && (f.is_new || f.changed))
            RULE(cession_decide_cookie(&f, chosen, CESSION_OK) != SET);
    }
    CHECK_INT(broken, 0);
    CHECK(seen[NO_COOKIE] > 0 && seen[SET] > 0 && seen[DELETE] > 0);
}

static void test_touch_due(void)
{
    const int64_t now = 1700000000000, hour = 3600000, day = 24 * hour;
    const struct {
        int64_t now, expires_at, lifetime, interval;
        bool due;
    } rows[] = {
        /* The default: the twentieth part, 60 s at most. */
        {now, now + day, day, -1, false},
        {now, now + day - 60000, day, -1, false},
        {now, now + day - 60001, day, -1, true},
        {now, now + day + 60000, day, -1, false},
        {now, now + day + 60001, day, -1, true}, /* the lifetime was made shorter */
        {now, now + 1000, 1000, -1, false},
        {now, now + 950, 1000, -1, false},
        {now, now + 949, 1000, -1, true},
        {now, now - 1, day, -1, true},
        {now, now, day, -1, true},
        /* Given. */
        {now, now + day, day, 0, false},
        {now, now + day - 1, day, 0, true},
        {now, now + day + 1, day, 0, true},
        {now, now + 1, day, day, false},
        {now, now, day, day, false},
        {now, now - 1, day, day, true},
        {now, now + 2 * day, day, hour, true},
        /* Unknown, none, odd. */
        {now, CESSION_EXPIRES_UNKNOWN, day, -1, true},
        {now, CESSION_EXPIRES_NEVER, day, INT64_MAX, true},
        {now, now + day, 0, -1, true},
        {now, now + day, -day, -1, true},
        {-1, now, day, -1, true},
        /* The ends of the range do not overflow. */
        {0, INT64_MAX, INT64_MAX, 0, false},
        {0, INT64_MAX, 1, INT64_MAX, false},
        {0, INT64_MAX, INT64_MAX, INT64_MAX, false},
        {INT64_MAX, 0, INT64_MAX, INT64_MAX, true},
        {INT64_MAX, 0, 1, INT64_MAX, true},
        {INT64_MAX, 0, INT64_MAX, 0, true},
        {0, INT64_MAX, 1, 0, true},
    };
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++)
        CHECK_MSG(cession_touch_due(rows[i].now, rows[i].expires_at, rows[i].lifetime,
                                    rows[i].interval) == rows[i].due,
                  "row %zu", i);
}

static const harness_test tests[] = {
    HARNESS_TEST(named_rows),
    HARNESS_TEST(rules_of_actions),
    HARNESS_TEST(rules_of_cookies),
    HARNESS_TEST(touch_due),
};
HARNESS_MAIN(tests)
