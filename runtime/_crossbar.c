/* The C kernel: exact integer products, with and without the clip of the ADC, and whole streams.
 *
 * gemm    u8 [windows, inputs] x s8 weights: the linear path, where no conversion can clip.
 * serial  the bit-serial path of the block form, every conversion clipped. Four methods, one
 *         answer: "table" adds tabulated column sums, "popcount" counts bits, and "excess" and
 *         "sliced" take the linear product that is in `out` already and subtract what the ADC
 *         cuts off: one window at a time, looking only where enough inputs and cells are set for
 *         a clip to be possible, or 64 windows at a time.
 * engine  streams of instructions on the memory of NumPy arrays; run executes all of them.
 * NumPy's runtime/crossbar.py:block_product is the oracle of products, Python's executors that of
 * streams.
 *
 * No threads, no allocation inside a loop, the GIL released; only an engine has state. All sizes
 * are checked before the first loop; what a plan or an engine holds is checked once, when it is
 * made, and copied, so that nobody can change it afterwards.
 */
#include "_crossbar_stream.h"

#ifndef PIM_SOURCE_SHA256
#define PIM_SOURCE_SHA256 "unknown"
#endif

int best_level(void) {
#if X86
    __builtin_cpu_init();
    if (__builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
        __builtin_cpu_supports("avx512vl") && __builtin_cpu_supports("avx512dq") &&
        __builtin_cpu_supports("avx512vnni") && __builtin_cpu_supports("avx512bitalg") &&
        __builtin_cpu_supports("avx512vpopcntdq"))
        return 2;
    if (__builtin_cpu_supports("avx2") && __builtin_cpu_supports("popcnt")) return 1;
#endif
    return 0;
}

static int check_level(int level) {
    if (level >= 0 && level <= best_level()) return 0;
    PyErr_Format(PyExc_ValueError, "level %d: this CPU has levels 0..%d", level, best_level());
    return -1;
}

PyDoc_STRVAR(gemm_doc, "gemm(u, weights, out, level)\n--\n\nout = u @ weights, exactly.");

static PyObject *py_gemm(PyObject *self, PyObject *args) {
    PyObject *objects[3], *result = NULL;
    Py_buffer u, weights, out;
    int level;
    (void)self;
    if (!PyArg_ParseTuple(args, "OOOi:gemm", &objects[0], &objects[1], &objects[2], &level))
        return NULL;
    if (check_level(level) < 0 || take(objects[0], &u, "u", 2, "B", 0) < 0) return NULL;
    if (take(objects[1], &weights, "weights", 4, "b", 0) < 0) goto no_weights;
    if (take(objects[2], &out, "out", 2, "il", 1) < 0) goto no_out;
    const Py_ssize_t windows = u.shape[0], inputs = u.shape[1], outputs = out.shape[1];
    if (out.itemsize != 4) {
        PyErr_SetString(PyExc_TypeError, "out: expected 32-bit integers");
    } else if (out.shape[0] != windows || inputs > MAX_INPUTS) {
        PyErr_Format(PyExc_ValueError, "u is [%zd, %zd], out is [%zd, %zd], inputs are at most %d",
                     windows, inputs, out.shape[0], outputs, (int)MAX_INPUTS);
    } else if (weights.shape[2] != OUTS || weights.shape[3] != DEPTH ||
               weights.shape[1] != (inputs + DEPTH - 1) / DEPTH ||
               weights.shape[0] != (outputs + OUTS - 1) / OUTS) {
        PyErr_Format(PyExc_ValueError,
                     "weights: %zd inputs and %zd outputs need [%zd, %zd, %d, %d], found "
                     "[%zd, %zd, %zd, %zd]",
                     inputs, outputs, (outputs + OUTS - 1) / OUTS, (inputs + DEPTH - 1) / DEPTH,
                     (int)OUTS, (int)DEPTH, weights.shape[0], weights.shape[1], weights.shape[2],
                     weights.shape[3]);
    } else {
        Py_BEGIN_ALLOW_THREADS
        if (windows)
            gemm_of(level)(u.buf, weights.buf, out.buf, windows, inputs, outputs);
        Py_END_ALLOW_THREADS
        result = Py_NewRef(Py_None);
    }
    PyBuffer_Release(&out);
no_out:
    PyBuffer_Release(&weights);
no_weights:
    PyBuffer_Release(&u);
    return result;
}

PyDoc_STRVAR(plan_doc,
             "plan(inputs, outputs, adc_max, rows, first, cells, list_groups, list_columns,\n"
             "     list_outputs, output, entry, slot, factor)\n--\n\n"
             "Check and copy a block matrix into the form that `serial` executes.");

PyDoc_STRVAR(serial_doc,
             "serial(plan, u, out, method, level)\n--\n\n"
             "Bit-serial product with the clip; returns the number of saturated conversions.\n"
             "Methods 'excess', 'sliced' and 'auto' expect the linear product in out.");

static PyObject *py_serial(PyObject *self, PyObject *args) {
    PyObject *capsule, *objects[2], *result = NULL;
    Py_buffer u, out;
    const char *method;
    int level;
    (void)self;
    if (!PyArg_ParseTuple(args, "OOOsi:serial", &capsule, &objects[0], &objects[1], &method,
                          &level))
        return NULL;
    const plan *p = plan_of(capsule);
    if (!p || check_level(level) < 0) return NULL;
    const int chosen = method_of(method);
    if (!method_can(p, chosen)) {
        PyErr_Format(PyExc_ValueError, "method '%s' cannot do this plan", method);
        return NULL;
    }
    if (take(objects[0], &u, "u", 2, "B", 0) < 0) return NULL;
    if (take(objects[1], &out, "out", 2, "il", 1) < 0) goto no_out;
    if (out.itemsize != 4) {
        PyErr_SetString(PyExc_TypeError, "out: expected 32-bit integers");
    } else if (u.shape[1] != p->inputs || out.shape[1] != p->outputs ||
               u.shape[0] != out.shape[0]) {
        PyErr_Format(PyExc_ValueError, "plan is [%zd, %zd], u is [%zd, %zd], out is [%zd, %zd]",
                     p->inputs, p->outputs, u.shape[0], u.shape[1], out.shape[0], out.shape[1]);
    } else {
        uint64_t saturated;
        int status;
        Py_BEGIN_ALLOW_THREADS
        status = serial_run(p, chosen, level, u.buf, u.shape[0], out.buf, &saturated);
        Py_END_ALLOW_THREADS
        result = status < 0 ? PyErr_NoMemory() : PyLong_FromUnsignedLongLong(saturated);
    }
    PyBuffer_Release(&out);
no_out:
    PyBuffer_Release(&u);
    return result;
}

PyDoc_STRVAR(can_doc, "can(plan, method)\n--\n\nWhether the method can do the plan.");

static PyObject *py_can(PyObject *self, PyObject *args) {
    PyObject *capsule;
    const char *method;
    (void)self;
    if (!PyArg_ParseTuple(args, "Os:can", &capsule, &method)) return NULL;
    const plan *p = plan_of(capsule);
    return p ? PyBool_FromLong(method_can(p, method_of(method))) : NULL;
}

PyDoc_STRVAR(level_doc, "best_level()\n--\n\nThe highest level of this CPU.");

static PyObject *py_best_level(PyObject *self, PyObject *unused) {
    (void)self, (void)unused;
    return PyLong_FromLong(best_level());
}

PyDoc_STRVAR(kinds_doc, "kinds()\n--\n\nThe kinds of operations of an engine, in order.");

PyDoc_STRVAR(hash_doc, "source_hash()\n--\n\nThe sha256 of the source this was compiled from.");

static PyObject *py_source_hash(PyObject *self, PyObject *unused) {
    (void)self, (void)unused;
    return PyUnicode_FromString(PIM_SOURCE_SHA256);
}

static PyMethodDef METHODS[] = {
    {"gemm", py_gemm, METH_VARARGS, gemm_doc},
    {"plan", py_plan, METH_VARARGS, plan_doc},
    {"serial", py_serial, METH_VARARGS, serial_doc},
    {"can", py_can, METH_VARARGS, can_doc},
    {"engine", py_engine, METH_VARARGS, engine_doc},
    {"run", py_run, METH_VARARGS, run_doc},
    {"kinds", py_kinds, METH_NOARGS, kinds_doc},
    {"best_level", py_best_level, METH_NOARGS, level_doc},
    {"source_hash", py_source_hash, METH_NOARGS, hash_doc},
    {NULL, NULL, 0, NULL},
};

static PyModuleDef_Slot SLOTS[] = {{0, NULL}};

static struct PyModuleDef MODULE = {
    PyModuleDef_HEAD_INIT, .m_name = "runtime._crossbar",
    .m_doc = "Exact crossbar products; see runtime/crossbar.py.",
    .m_methods = METHODS, .m_slots = SLOTS,
};

PyMODINIT_FUNC PyInit__crossbar(void) { return PyModuleDef_Init(&MODULE); }
