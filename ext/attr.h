/* Attributes that may be missing. Every function needs the GIL. */
#ifndef CX_ATTR_H
#define CX_ATTR_H

#define PY_SSIZE_T_CLEAN
#include <Python.h>

/* PyObject_GetOptionalAttr, which CPython has from 3.13 on:
 *   1  *ret_attr is a new reference
 *   0  there is no such attribute: *ret_attr is NULL, no exception is set
 *  -1  exception, whatever but AttributeError; *ret_attr is NULL          */
int cx_get_optional(PyObject *object, PyObject *name, PyObject **ret_attr);
int cx_get_optional_string(PyObject *object, const char *name, PyObject **ret_attr);

/* 1, 0, or -1 with the exception that PyObject_HasAttr would swallow. */
int cx_has_attr(PyObject *object, PyObject *name);

#endif
