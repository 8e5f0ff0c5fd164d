#include "attr.h"

static int optional(PyObject *attr, PyObject **ret_attr)
{
    *ret_attr = attr;
    if (attr) {
        return 1;
    }
    if (!PyErr_ExceptionMatches(PyExc_AttributeError)) {
        return -1;
    }
    PyErr_Clear();
    return 0;
}

int cx_get_optional(PyObject *object, PyObject *name, PyObject **ret_attr)
{
    return optional(PyObject_GetAttr(object, name), ret_attr);
}

int cx_get_optional_string(PyObject *object, const char *name, PyObject **ret_attr)
{
    return optional(PyObject_GetAttrString(object, name), ret_attr);
}

int cx_has_attr(PyObject *object, PyObject *name)
{
    PyObject *attr;
    int result = cx_get_optional(object, name, &attr);
    Py_XDECREF(attr);
    return result;
}
