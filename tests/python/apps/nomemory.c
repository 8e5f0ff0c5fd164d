/* A module for tests: lets CPython's allocators, and those of an extension's C library, fail at
 * will. */
#define PY_SSIZE_T_CLEAN
#include <Python.h> /* defines _GNU_SOURCE, which dl_iterate_phdr() needs */
#include <link.h>
#include <string.h>

static struct domain {
    PyMemAllocatorDomain id;
    PyMemAllocatorEx below;
} domains[] = {{.id = PYMEM_DOMAIN_MEM}, {.id = PYMEM_DOMAIN_OBJ}};

/* Of one thread's allocations only, which need no lock. */
static long successes_left, failures_left, seen;
static unsigned long thread;
static int started, library = 1;

static int fails(void)
{
    if (!started || PyThread_get_thread_ident() != thread) {
        return 0;
    }
    seen++;
    if (successes_left > 0) {
        successes_left--;
        return 0;
    }
    if (failures_left > 0) {
        failures_left--;
        return 1;
    }
    return 0;
}

static void *hook_malloc(void *context, size_t size)
{
    struct domain *d = context;
    return fails() ? NULL : d->below.malloc(d->below.ctx, size);
}

static void *hook_calloc(void *context, size_t count, size_t size)
{
    struct domain *d = context;
    return fails() ? NULL : d->below.calloc(d->below.ctx, count, size);
}

static void *hook_realloc(void *context, void *old, size_t size)
{
    struct domain *d = context;
    return fails() ? NULL : d->below.realloc(d->below.ctx, old, size);
}

static void hook_free(void *context, void *block)
{
    struct domain *d = context;
    d->below.free(d->below.ctx, block);
}

/* ---- a C library's ------------------------------------------------------------------------- */

#if defined(__x86_64__)
#define POINTER_RELOCATION R_X86_64_64
#elif defined(__aarch64__)
#define POINTER_RELOCATION R_AARCH64_ABS64
#endif

static void *(*below_malloc)(size_t);
static void *(*below_realloc)(void *, size_t);

static void *library_malloc(size_t size)
{
    return library && fails() ? NULL : below_malloc(size);
}

static void *library_realloc(void *old, size_t size)
{
    return library && fails() ? NULL : below_realloc(old, size);
}

typedef struct search {
    const char *path;
    int found;
} search;

#ifdef POINTER_RELOCATION
/* Writable pointers of this shared object that the loader set to malloc and realloc: the C
 * library's table of allocators. */
static int redirect(struct dl_phdr_info *info, size_t size, void *context)
{
    (void)size;
    search *s = context;
    if (info->dlpi_name == NULL || strcmp(info->dlpi_name, s->path) != 0) {
        return 0;
    }
    const ElfW(Dyn) *dynamic = NULL;
    ElfW(Addr) relro = 0, relro_end = 0;
    for (int i = 0; i < info->dlpi_phnum; i++) {
        const ElfW(Phdr) *segment = &info->dlpi_phdr[i];
        if (segment->p_type == PT_DYNAMIC) {
            dynamic = (const void *)(info->dlpi_addr + segment->p_vaddr);
        } else if (segment->p_type == PT_GNU_RELRO) {
            relro = segment->p_vaddr;
            relro_end = relro + segment->p_memsz;
        }
    }
    const ElfW(Rela) *table = NULL;
    const ElfW(Sym) *symbols = NULL;
    const char *names = NULL;
    size_t bytes = 0;
    for (; dynamic != NULL && dynamic->d_tag != DT_NULL; dynamic++) {
        switch (dynamic->d_tag) {
        case DT_RELA:
            table = (const void *)dynamic->d_un.d_ptr;
            break;
        case DT_RELASZ:
            bytes = dynamic->d_un.d_val;
            break;
        case DT_SYMTAB:
            symbols = (const void *)dynamic->d_un.d_ptr;
            break;
        case DT_STRTAB:
            names = (const void *)dynamic->d_un.d_ptr;
            break;
        }
    }
    for (size_t i = 0; table != NULL && i < bytes / sizeof *table; i++) {
        ElfW(Addr) at = table[i].r_offset;
        if (ELF64_R_TYPE(table[i].r_info) != POINTER_RELOCATION ||
            (at >= relro && at < relro_end)) {
            continue;
        }
        const char *name = names + symbols[ELF64_R_SYM(table[i].r_info)].st_name;
        void *place = (void *)(info->dlpi_addr + at);
        if (strcmp(name, "malloc") == 0) {
            void *(*mine)(size_t) = library_malloc;
            memcpy(&below_malloc, place, sizeof below_malloc);
            memcpy(place, &mine, sizeof mine);
            s->found++;
        } else if (strcmp(name, "realloc") == 0) {
            void *(*mine)(void *, size_t) = library_realloc;
            memcpy(&below_realloc, place, sizeof below_realloc);
            memcpy(place, &mine, sizeof mine);
            s->found++;
        }
    }
    return 1;
}
#endif

static PyObject *include(PyObject *self, PyObject *path)
{
    (void)self;
    search s = {PyUnicode_AsUTF8(path), 0};
    if (s.path == NULL) {
        return NULL;
    }
    if (below_malloc == NULL) {
#ifdef POINTER_RELOCATION
        dl_iterate_phdr(redirect, &s);
#else
        (void)library_malloc;
        (void)library_realloc;
#endif
    }
    return PyBool_FromLong(below_malloc != NULL && below_realloc != NULL);
}

static PyObject *start(PyObject *self, PyObject *args)
{
    (void)self;
    library = 1;
    if (!PyArg_ParseTuple(args, "ll|p:start", &successes_left, &failures_left, &library)) {
        return NULL;
    }
    thread = PyThread_get_thread_ident();
    seen = 0;
    started = 1;
    for (size_t i = 0; i < sizeof domains / sizeof domains[0]; i++) {
        struct domain *d = &domains[i];
        PyMem_GetAllocator(d->id, &d->below);
        PyMemAllocatorEx hooks = {d, hook_malloc, hook_calloc, hook_realloc, hook_free};
        PyMem_SetAllocator(d->id, &hooks);
    }
    Py_RETURN_NONE;
}

static PyObject *stop(PyObject *self, PyObject *ignored)
{
    (void)self;
    (void)ignored;
    started = 0;
    for (size_t i = 0; i < sizeof domains / sizeof domains[0]; i++) {
        PyMem_SetAllocator(domains[i].id, &domains[i].below);
    }
    return Py_BuildValue("(ll)", seen, failures_left);
}

static PyMethodDef methods[] = {
    {"include", include, METH_O,
     "include(path) -> bool: let the allocator table of this extension fail as well. False where "
     "it was not found."},
    {"start", start, METH_VARARGS,
     "start(successes, failures, library=True): of this thread's allocations let so many succeed, "
     "then so many "
     "fail, then all succeed."},
    {"stop", stop, METH_NOARGS, "stop() -> (allocations seen, failures that did not come to pass)"},
    {NULL, NULL, 0, NULL},
};

static struct PyModuleDef definition = {
    PyModuleDef_HEAD_INIT, "nomemory", NULL, 0, methods, NULL, NULL, NULL, NULL};

PyMODINIT_FUNC PyInit_nomemory(void)
{
    return PyModule_Create(&definition);
}
