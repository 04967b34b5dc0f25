/* The crossbar kernel of a non-ideal device: sums on a grid of integers, read noise, ADC codes.
 *
 * product  what runtime/analog.py:analog_product defines, bit for bit, for matrices whose sums fit
 *          16 bits and ADCs of up to 8 bits.
 *
 * A unit is a row group times a tile of 64 stored columns. Its sums for all patterns of a few word
 * lines stand in a table, so that a conversion is one or more table rows added, its noise, and a
 * shift. Without noise the table of all word lines holds the codes themselves.
 *
 * _device.c          the Python module     _device_plan.c     a matrix, checked and copied
 * _device_product.c  one call              _device_scan.c     a unit: tables, noise, codes
 * _device_route.c    sums to outputs       _device_avx512.c   a unit, where it is usual
 * _device_{list,differ,sparse}.c  a static device: list of differences, its product, both checked
 *
 * No state, no threads, no allocation inside a loop, the GIL released. All sizes are checked
 * before the first loop; a plan is checked once, when it is made, and copied. Vector instructions
 * are chosen at run time: level 0 is portable C, 1 is AVX2, 2 is AVX-512.
 */
#include "_device.h"

#ifndef PIM_SOURCE_SHA256
#define PIM_SOURCE_SHA256 "unknown"
#endif

/* A C-contiguous buffer of `items` elements of `size` bytes, or -1 with an error. */
int device_take(PyObject *object, Py_buffer *view, const char *name, Py_ssize_t items,
                Py_ssize_t size, int writable) {
    if (PyObject_GetBuffer(object, view, PyBUF_C_CONTIGUOUS | (writable ? PyBUF_WRITABLE : 0)) < 0)
        return -1;
    if (view->itemsize == size && view->len == items * size) return 0;
    PyErr_Format(PyExc_ValueError, "%s: expected %zd elements of %zd bytes, found %zd of %zd", name,
                 items, size, view->len / view->itemsize, view->itemsize);
    PyBuffer_Release(view);
    return -1;
}

void *device_copy(PyObject *object, const char *name, Py_ssize_t items, Py_ssize_t size) {
    Py_buffer view;
    if (items < 0 || device_take(object, &view, name, items, size, 0) < 0) return NULL;
    void *copy = malloc((size_t)(items * size) + 64);
    if (copy) memcpy(copy, view.buf, (size_t)(items * size));
    else PyErr_NoMemory();
    PyBuffer_Release(&view);
    return copy;
}

/* Bounds that rise from 0 to `last`. */
int device_rises(const int64_t *bounds, Py_ssize_t count, int64_t last, const char *name) {
    int sound = bounds[0] == 0 && bounds[count] == last;
    for (Py_ssize_t i = 0; i < count; i++) sound &= bounds[i] <= bounds[i + 1];
    if (!sound)
        PyErr_Format(PyExc_ValueError, "%s: must rise from 0 to %lld", name, (long long)last);
    return sound ? 0 : -1;
}

int device_within(const int32_t *values, Py_ssize_t count, int64_t low, int64_t high,
                  const char *name) {
    for (Py_ssize_t i = 0; i < count; i++)
        if (values[i] < low || values[i] >= high) {
            PyErr_Format(PyExc_ValueError, "%s: %d is outside %lld..%lld", name, (int)values[i],
                         (long long)low, (long long)high);
            return -1;
        }
    return 0;
}

PyDoc_STRVAR(hash_doc, "source_hash()\n--\n\nThe sha256 of the source this was compiled from.");

static PyObject *py_source_hash(PyObject *self, PyObject *unused) {
    (void)self, (void)unused;
    return PyUnicode_FromString(PIM_SOURCE_SHA256);
}

static PyMethodDef METHODS[] = {
    {"plan", device_plan, METH_VARARGS, device_plan_doc},
    {"product", device_product, METH_VARARGS, device_product_doc},
    {"sparse_plan", device_sparse_plan, METH_VARARGS, device_sparse_plan_doc},
    {"sparse", device_sparse, METH_VARARGS, device_sparse_doc},
    {"source_hash", py_source_hash, METH_NOARGS, hash_doc},
    {NULL, NULL, 0, NULL},
};

static PyModuleDef_Slot SLOTS[] = {{0, NULL}};

static struct PyModuleDef MODULE = {
    PyModuleDef_HEAD_INIT, .m_name = "runtime._device",
    .m_doc = "Products of a non-ideal device; see runtime/analog.py.",
    .m_methods = METHODS, .m_slots = SLOTS,
};

PyMODINIT_FUNC PyInit__device(void) { return PyModuleDef_Init(&MODULE); }
