#include "files_world.h"

#include <dirent.h>
#include <fcntl.h>
#include <ftw.h>
#include <limits.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <openssl/evp.h>

#include "harness.h"
#include "scratch.h"

static char base[PATH_MAX / 4];

static void die(const char *what, const char *path)
{
    fprintf(stderr, "%s %s: ", what, path);
    perror(NULL);
    exit(2);
}

static char *room(void)
{
    static char rooms[64][PATH_MAX];
    static unsigned turn;
    return rooms[turn++ % 64];
}

const char *files_text(const char *format, ...)
{
    char *text = room();
    va_list args;
    va_start(args, format);
    vsnprintf(text, PATH_MAX, format, args);
    va_end(args);
    return text;
}

static pid_t base_owner;

static void remove_base(void)
{
    if (base_owner == getpid()) {
        files_remove_tree(base);
    }
}

/* In memory where the system has a place for that: these tests make many small
 * files, and what they are about does not depend on the disk. */
static void choose_base(void)
{
    snprintf(base, sizeof base, "/dev/shm/cession-test-XXXXXX");
    if (mkdtemp(base) != NULL) {
        base_owner = getpid();
        atexit(remove_base);
    } else {
        snprintf(base, sizeof base, "%s", scratch_path("files"));
        if (mkdir(base, 0700) != 0) {
            die("cannot make", base);
        }
    }
}

const char *files_dir(const char *name)
{
    static char kept[16384];
    static size_t used;
    char path[PATH_MAX];
    if (base[0] == '\0') {
        choose_base();
    }
    snprintf(path, sizeof path, "%s/%s", base, name);
    size_t size = strlen(path) + 1;
    if (used + size > sizeof kept) {
        fprintf(stderr, "files_dir: too many directories\n");
        exit(2);
    }
    char *place = memcpy(kept + used, path, size);
    used += size;
    return place;
}

const char *files_fresh(void)
{
    static unsigned number;
    char name[32];
    snprintf(name, sizeof name, "files-%u", number++);
    return files_dir(name);
}

void files_set_base(const char *path)
{
    snprintf(base, sizeof base, "%s", path);
}

cession_store *files_open(const char *dir, const char *option, ...)
{
    char names[8][16];
    cession_option options[9] = {{.name = "path", .value = dir}};
    size_t count = 1;
    va_list args;
    va_start(args, option);
    for (; option != NULL && count < 9; option = va_arg(args, const char *)) {
        const char *equals = strchr(option, '=');
        snprintf(names[count - 1], sizeof names[0], "%.*s", (int)(equals - option), option);
        options[count] = (cession_option){.name = names[count - 1], .value = equals + 1};
        count++;
    }
    va_end(args);
    cession_store *store = NULL;
    cession_error err = CESSION_ERROR_INIT;
    CHECK_MSG(cession_store_open("filesystem", options, count, &store, &err) == CESSION_OK, "%s",
              err.text);
    return store;
}

static void digest_of(const char *digest, cession_span key, char *ret_hex)
{
    uint8_t bytes[EVP_MAX_MD_SIZE];
    unsigned len = 0;
    CHECK(EVP_Digest(key.data, key.len, bytes, &len, EVP_get_digestbyname(digest), NULL) == 1);
    for (unsigned i = 0; i < len; i++) {
        sprintf(ret_hex + 2 * i, "%02x", bytes[i]);
    }
}

const char *files_path_of(const char *dir, cession_span key)
{
    char hex[2 * EVP_MAX_MD_SIZE + 1];
    digest_of("SHA256", key, hex);
    return files_text("%s/cession/%.2s/%s", dir, hex, hex);
}

const char *files_legacy_path(const char *dir, const char *digest, cession_span key)
{
    char hex[2 * EVP_MAX_MD_SIZE + 1];
    digest_of(digest, key, hex);
    return files_text("%s/%s", dir, hex);
}

ssize_t files_read(const char *path, void *data, size_t max)
{
    int fd = open(path, O_RDONLY | O_NONBLOCK);
    if (fd < 0) {
        return -1;
    }
    ssize_t got = read(fd, data, max);
    close(fd);
    return got;
}

void files_write(const char *path, const void *data, size_t len)
{
    unlink(path);
    int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC, 0600);
    if (fd < 0 || write(fd, data, len) != (ssize_t)len) {
        die("cannot write", path);
    }
    close(fd);
}

void files_copy(const char *from, const char *to)
{
    static char data[1 << 20];
    ssize_t len = files_read(from, data, sizeof data);
    if (len < 0) {
        die("cannot read", from);
    }
    files_write(to, data, (size_t)len);
}

void files_copy_all(const char *from, const char *to)
{
    char from_dir[PATH_MAX], to_dir[PATH_MAX];
    snprintf(from_dir, sizeof from_dir, "%s", from);
    snprintf(to_dir, sizeof to_dir, "%s", to);
    DIR *dir = opendir(from_dir);
    if (dir == NULL) {
        die("cannot open", from_dir);
    }
    if (mkdir(to_dir, 0755) != 0 && !files_exists(to_dir)) {
        die("cannot make", to_dir);
    }
    for (struct dirent *entry; (entry = readdir(dir)) != NULL;) {
        if (entry->d_name[0] != '.') {
            files_copy(files_text("%s/%s", from_dir, entry->d_name),
                       files_text("%s/%s", to_dir, entry->d_name));
        }
    }
    closedir(dir);
}

bool files_exists(const char *path)
{
    struct stat st;
    return lstat(path, &st) == 0;
}

void files_age(const char *path, int64_t seconds)
{
    struct timespec times[2];
    clock_gettime(CLOCK_REALTIME, &times[0]);
    times[0].tv_sec -= seconds;
    times[1] = times[0];
    if (utimensat(AT_FDCWD, path, times, AT_SYMLINK_NOFOLLOW) != 0) {
        die("cannot age", path);
    }
}

static int remove_one(const char *path, const struct stat *st, int kind, struct FTW *ftw)
{
    (void)st;
    (void)kind;
    (void)ftw;
    return remove(path);
}

void files_remove_tree(const char *path)
{
    if (nftw(path, remove_one, 16, FTW_DEPTH | FTW_PHYS) != 0) {
        die("cannot remove", path);
    }
}

static const char *counted_prefix;
static unsigned counted;

static int count_one(const char *path, const struct stat *st, int kind, struct FTW *ftw)
{
    (void)kind;
    counted += S_ISREG(st->st_mode) &&
               strncmp(path + ftw->base, counted_prefix, strlen(counted_prefix)) == 0;
    return 0;
}

unsigned files_count(const char *path, const char *prefix)
{
    counted_prefix = prefix;
    counted = 0;
    nftw(path, count_one, 16, FTW_PHYS);
    return counted;
}

unsigned files_open_fds(void)
{
    unsigned count = 0;
    DIR *dir = opendir("/proc/self/fd");
    if (dir == NULL) {
        die("cannot open", "/proc/self/fd");
    }
    while (readdir(dir) != NULL) {
        count++;
    }
    closedir(dir);
    return count;
}

/* ---- operations ------------------------------------------------------------------- */

static cession_deadline soon(void)
{
    return cession_deadline_in(20000);
}

int files_create(cession_store *store, const char *key, const char *value)
{
    return cession_store_create(store, cession_span_str(key), cession_span_str(value), HOUR, soon(),
                                NULL);
}

int files_replace(cession_store *store, const char *key, const char *expected, const char *value)
{
    cession_expected e = {.value = cession_span_str(expected)};
    cession_stored current;
    cession_stored_init(&current);
    int rc = cession_store_replace(store, cession_span_str(key), &e, cession_span_str(value), HOUR,
                                   soon(), &current, NULL);
    cession_stored_release(&current);
    return rc;
}

int files_touch(cession_store *store, const char *key, const char *expected, int64_t ttl_ms)
{
    cession_expected e = {.value = cession_span_str(expected)};
    return cession_store_touch(store, cession_span_str(key), &e, ttl_ms, soon(), NULL);
}

int files_remove(cession_store *store, const char *key)
{
    return cession_store_remove(store, cession_span_str(key), soon(), NULL);
}

const char *files_load(cession_store *store, const char *key)
{
    static char text[4096];
    cession_stored stored;
    cession_stored_init(&stored);
    int rc = cession_store_load(store, cession_span_str(key), soon(), &stored, NULL);
    if (rc == CESSION_OK) {
        snprintf(text, sizeof text, "%.*s", (int)stored.value.len, (const char *)stored.value.data);
    } else if (rc == CESSION_NOT_FOUND) {
        snprintf(text, sizeof text, "-");
    } else {
        snprintf(text, sizeof text, "!%s", cession_status_name(rc));
    }
    cession_stored_release(&stored);
    return text;
}

int64_t files_expiry(cession_store *store, const char *key)
{
    cession_stored stored;
    cession_stored_init(&stored);
    CHECK_OK(cession_store_load(store, cession_span_str(key), soon(), &stored, NULL));
    int64_t expires = stored.expires_at_ms;
    cession_stored_release(&stored);
    return expires;
}
