/* What the files of the device's kernel share: buffers from Python, and input bits. */
#ifndef PIM_DEVICE_H
#define PIM_DEVICE_H
#define PY_SSIZE_T_CLEAN
#include <Python.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#if defined(__x86_64__) && defined(__GNUC__)
#define X86 1
#include <immintrin.h>
#define AVX2 __attribute__((target("avx2,popcnt")))
#define AVX512 __attribute__((target("avx512f,avx512bw,avx512vl,avx512dq,popcnt")))
#else
#define X86 0
#endif
#define ALWAYS static inline __attribute__((always_inline))

/* A C-contiguous buffer of `items` elements of `size` bytes, or -1 with an error. */
int device_take(PyObject *object, Py_buffer *view, const char *name, Py_ssize_t items,
                Py_ssize_t size, int writable);
void *device_copy(PyObject *object, const char *name, Py_ssize_t items, Py_ssize_t size);
/* Bounds that rise from 0 to `last`, and values in low..high; -1 with an error otherwise. */
int device_rises(const int64_t *bounds, Py_ssize_t count, int64_t last, const char *name);
int device_within(const int32_t *values, Py_ssize_t count, int64_t low, int64_t high,
                  const char *name);

/* bits[t]: bit t of up to 16 inputs, lane i in bit i; lanes: their indices in `row`. */
ALWAYS void device_bits(const uint8_t *row, const int32_t *lanes, int count, uint16_t bits[8]) {
    uint64_t half[2] = {0, 0};
    for (int i = 0; i < count && i < 8; i++) half[0] |= (uint64_t)row[lanes[i]] << (8 * i);
    for (int i = 8; i < count; i++) half[1] |= (uint64_t)row[lanes[i]] << (8 * i - 64);
#if X86
    __m128i v = _mm_set_epi64x((long long)half[1], (long long)half[0]);
    for (int t = 7; t >= 0; t--, v = _mm_add_epi8(v, v)) bits[t] = (uint16_t)_mm_movemask_epi8(v);
#else
    const uint64_t ones = 0x0101010101010101u, gather = 0x0102040810204080u;
    for (int t = 0; t < 8; t++)
        bits[t] = (uint16_t)(((half[0] >> t & ones) * gather >> 56) |
                             ((half[1] >> t & ones) * gather >> 56) << 8);
#endif
}

extern const char device_plan_doc[], device_product_doc[];
extern const char device_sparse_plan_doc[], device_sparse_doc[];
PyObject *device_plan(PyObject *self, PyObject *args);
PyObject *device_product(PyObject *self, PyObject *args);
PyObject *device_sparse_plan(PyObject *self, PyObject *args);
PyObject *device_sparse(PyObject *self, PyObject *args);
#endif
