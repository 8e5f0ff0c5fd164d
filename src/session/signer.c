#include "cession/session.h"

#include <stdatomic.h>

#include <openssl/core_names.h>
#include <openssl/evp.h>
#include <openssl/params.h>

#include "base/alloc.h"
#include "base/os.h"
#include "session/base64url.h"
#include "base/banned.h"

#define SIGNER_KEYS_MAX 64u
#define MAC_LEN 20u /* HMAC-SHA1 */
#define MAC_TEXT_LEN CES_BASE64URL_LEN(MAC_LEN)

static const char signer_salt[] = "flask-session";

/* OpenSSL keeps the derived key and wipes it when the context is freed.
 * `keyed` is only ever duplicated, so that any number of threads may use it;
 * `work` saves the duplicate (more than half of the time) for whoever holds
 * `work_taken`. */
struct signer_key {
    EVP_MAC_CTX *keyed;
    EVP_MAC_CTX *work;
};

struct cession_signer {
    atomic_flag work_taken;
    size_t count;
    struct signer_key keys[];
};

static int crypto_failed(cession_error *err)
{
    return cession_fail(err, CESSION_E_CRYPTO, "HMAC-SHA1 failed");
}

static EVP_MAC_CTX *new_hmac(EVP_MAC *hmac, const void *key, size_t len)
{
    /* The parameter list is not const in OpenSSL; the text is only read. */
    char digest[] = "SHA1";
    OSSL_PARAM params[] = {OSSL_PARAM_construct_utf8_string(OSSL_MAC_PARAM_DIGEST, digest, 0),
                           OSSL_PARAM_construct_end()};
    EVP_MAC_CTX *ctx = EVP_MAC_CTX_new(hmac);
    if (ctx && EVP_MAC_init(ctx, key, len, params) != 1) {
        EVP_MAC_CTX_free(ctx);
        return NULL;
    }
    return ctx;
}

static bool finish_hmac(EVP_MAC_CTX *ctx, const void *data, size_t len, uint8_t mac[MAC_LEN])
{
    size_t mac_len = 0;
    return EVP_MAC_update(ctx, data, len) == 1 && EVP_MAC_final(ctx, mac, &mac_len, MAC_LEN) == 1 &&
           mac_len == MAC_LEN;
}

static bool derive_key(EVP_MAC *hmac, cession_span secret, struct signer_key *ret_key)
{
    uint8_t derived[MAC_LEN];
    EVP_MAC_CTX *ctx = new_hmac(hmac, secret.data, secret.len);
    bool done = ctx && finish_hmac(ctx, signer_salt, sizeof signer_salt - 1, derived);
    EVP_MAC_CTX_free(ctx);
    if (done) {
        ret_key->keyed = new_hmac(hmac, derived, sizeof derived);
        ret_key->work = ret_key->keyed ? EVP_MAC_CTX_dup(ret_key->keyed) : NULL;
        done = ret_key->work != NULL;
    }
    ces_wipe(derived, sizeof derived);
    return done;
}

int cession_signer_new(const cession_span *keys, size_t count, cession_signer **ret_signer,
                       cession_error *err)
{
    if (count == 0 || count > SIGNER_KEYS_MAX)
        return cession_fail(err, CESSION_E_INVALID, "a signer takes 1 to %u keys, not %zu",
                            SIGNER_KEYS_MAX, count);
    for (size_t i = 0; i < count; i++) {
        if (keys[i].len == 0)
            return cession_fail(err, CESSION_E_INVALID, "key %zu of the signer is empty", i);
    }

    cession_signer *signer = ces_alloc_zero(sizeof *signer + count * sizeof(struct signer_key));
    if (!signer)
        return cession_fail(err, CESSION_E_NOMEM, NULL);
    atomic_flag_clear(&signer->work_taken);
    signer->count = count;

    EVP_MAC *hmac = EVP_MAC_fetch(NULL, "HMAC", NULL);
    bool done = hmac != NULL;
    for (size_t i = 0; done && i < count; i++)
        done = derive_key(hmac, keys[i], &signer->keys[i]);
    EVP_MAC_free(hmac); /* the contexts hold references of their own */
    if (!done) {
        cession_signer_free(signer);
        return crypto_failed(err);
    }
    *ret_signer = signer;
    return CESSION_OK;
}

void cession_signer_free(cession_signer *signer)
{
    if (!signer)
        return;
    for (size_t i = 0; i < signer->count; i++) {
        EVP_MAC_CTX_free(signer->keys[i].keyed);
        EVP_MAC_CTX_free(signer->keys[i].work);
    }
    ces_free(signer);
}

/* The flag that guards the work contexts is only tried, never waited for: a
 * thread that finds it taken duplicates, also in a child that was forked while
 * another thread held it. */
static bool sign_text(const cession_signer *signer, size_t key, bool may_work, cession_span value,
                      char text[MAC_TEXT_LEN])
{
    uint8_t mac[MAC_LEN];
    bool done;
    if (may_work) {
        /* A NULL key starts over with the key the context has. */
        EVP_MAC_CTX *ctx = signer->keys[key].work;
        done = EVP_MAC_init(ctx, NULL, 0, NULL) == 1 &&
               finish_hmac(ctx, value.data, value.len, mac);
    } else {
        EVP_MAC_CTX *ctx = EVP_MAC_CTX_dup(signer->keys[key].keyed);
        done = ctx && finish_hmac(ctx, value.data, value.len, mac);
        EVP_MAC_CTX_free(ctx);
    }
    if (done)
        ces_base64url(mac, sizeof mac, text);
    return done;
}

/* A signer is immutable to its callers; the flag and the work contexts that it
 * guards are a cache inside. */
static bool take_work(const cession_signer *signer)
{
    return !atomic_flag_test_and_set_explicit(&((cession_signer *)signer)->work_taken,
                                              memory_order_acquire);
}

static void give_work(const cession_signer *signer)
{
    atomic_flag_clear_explicit(&((cession_signer *)signer)->work_taken, memory_order_release);
}

int cession_signer_sign(const cession_signer *signer, cession_span value, cession_buf *out,
                        cession_error *err)
{
    if (value.len > CESSION_SIGNED_MAX - 1 - MAC_TEXT_LEN)
        return cession_fail(err, CESSION_E_LIMIT, "a signed value has at most %u bytes",
                            CESSION_SIGNED_MAX);
    char text[MAC_TEXT_LEN];
    bool may_work = take_work(signer);
    bool done = sign_text(signer, 0, may_work, value, text);
    if (may_work)
        give_work(signer);
    if (!done)
        return crypto_failed(err);

    int rc = cession_buf_reserve(out, value.len + 1 + sizeof text);
    if (rc != CESSION_OK)
        return cession_fail(err, rc, NULL);
    uint8_t *at = out->data + out->len;
    if (value.len > 0)
        memcpy(at, value.data, value.len);
    at[value.len] = '.';
    memcpy(at + value.len + 1, text, sizeof text);
    out->len += value.len + 1 + sizeof text;
    return CESSION_OK;
}

int cession_signer_verify(const cession_signer *signer, cession_span signed_value,
                          cession_span *ret_value, size_t *ret_key, cession_error *err)
{
    /* What follows the last dot is the signature, 27 characters without a dot;
     * the value may have some. Only this exact text is accepted, no other
     * spelling of the same 160 bits. Lengths are no secret. */
    if (signed_value.len > CESSION_SIGNED_MAX || signed_value.len < 1 + MAC_TEXT_LEN)
        return CESSION_NOT_FOUND;
    size_t len = signed_value.len - MAC_TEXT_LEN - 1;
    const uint8_t *dot = signed_value.data + len;
    if (*dot != '.')
        return CESSION_NOT_FOUND;
    cession_span value = {signed_value.data, len};

    bool done = true;
    size_t fits = signer->count;
    bool may_work = take_work(signer);
    for (size_t i = signer->count; i-- > 0 && done;) {
        char text[MAC_TEXT_LEN];
        done = sign_text(signer, i, may_work, value, text);
        /* Every key is tried, in time that does not tell which one fits. */
        size_t fit = done && ces_equal_ct(text, dot + 1, sizeof text);
        size_t mask = (size_t)0 - fit;
        fits = (i & mask) | (fits & ~mask);
    }
    if (may_work)
        give_work(signer);
    if (!done)
        return crypto_failed(err);
    if (fits == signer->count)
        return CESSION_NOT_FOUND;
    *ret_value = value;
    *ret_key = fits;
    return CESSION_OK;
}
