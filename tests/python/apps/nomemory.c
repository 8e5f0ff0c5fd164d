/* A module for tests: lets CPython's allocators fail at will. */
#define PY_SSIZE_T_CLEAN
#include <Python.h>

static struct domain {
    PyMemAllocatorDomain id;
    PyMemAllocatorEx below;
} domains[] = {{.id = PYMEM_DOMAIN_MEM}, {.id = PYMEM_DOMAIN_OBJ}};

/* Both domains are used with the GIL held. */
static long successes_left, failures_left, seen;
static unsigned long thread;

static int fails(void)
{
    if (PyThread_get_thread_ident() != thread) {
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

static PyObject *start(PyObject *self, PyObject *args)
{
    (void)self;
    if (!PyArg_ParseTuple(args, "ll:start", &successes_left, &failures_left)) {
        return NULL;
    }
    thread = PyThread_get_thread_ident();
    seen = 0;
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
    for (size_t i = 0; i < sizeof domains / sizeof domains[0]; i++) {
        PyMem_SetAllocator(domains[i].id, &domains[i].below);
    }
    return Py_BuildValue("(ll)", seen, failures_left);
}

static PyMethodDef methods[] = {
    {"start", start, METH_VARARGS,
     "start(successes, failures): of this thread's allocations let so many succeed, then so many "
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
