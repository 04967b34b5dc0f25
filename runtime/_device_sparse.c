/* A static device as Python hands it over, checked and copied; its product. _device_sparse.h. */
#include "_device_sparse.h"

enum { FEW = 24,          /* up to so many windows are done one at a time */
       MAX_CODES = 32000 }; /* less the largest sum of cells, they fit 16 bits */

static const char SPARSE[] = "runtime._device.sparse";

static void sparse_free(sparse *p) {
    if (!p) return;
    void *owned[] = {p->rows, p->first, p->list_groups, p->list_columns, p->list_slots,
                     p->route_start, p->output, p->factor, p->thresholds, p->any, p->rank,
                     p->hits, p->differences, p->group_steps, p->steps, p->pattern,
                     p->list_outputs, p->reached, p->reach, p->slot, p->slot_factor};
    for (size_t i = 0; i < sizeof owned / sizeof *owned; i++) free(owned[i]);
    free(p);
}

static void sparse_release(PyObject *capsule) {
    sparse_free(PyCapsule_GetPointer(capsule, SPARSE));
}

static int sparse_check(sparse *p, Py_ssize_t columns, Py_ssize_t slots) {
    if (device_rises(p->list_groups, p->lists, p->groups, "list_groups") < 0 ||
        device_within(p->rows, p->groups * p->lines, -1, p->inputs, "rows") < 0)
        return -1;
    for (Py_ssize_t list = 0; list < p->lists; list++) {
        const int64_t count = p->list_columns[list];
        int sound = count >= 0 && count <= 65535 && p->list_slots[list] >= 0 &&
                    p->list_slots[list] + count <= slots;
        for (Py_ssize_t g = p->list_groups[list]; g < p->list_groups[list + 1]; g++)
            sound &= p->first[g] >= 0 && p->first[g] + count <= columns;
        if (!sound) {
            PyErr_Format(PyExc_ValueError, "list %zd: %lld columns of %zd, %zd slots", list,
                         (long long)count, columns, slots);
            return -1;
        }
    }
    for (Py_ssize_t i = 0; i < p->groups * p->lines; i++)
        if (p->rows[i] < 0) p->rows[i] = (int32_t)p->inputs;
    return 0;
}

static int sparse_room(sparse *p) {
    p->patterns = (Py_ssize_t)1 << p->lines;
    p->words = (p->patterns + 63) / 64;
    p->any = calloc((size_t)(p->groups * p->words) + 1, sizeof *p->any);
    p->rank = calloc((size_t)((p->groups + 1) * p->words), sizeof *p->rank);
    p->group_steps = calloc((size_t)p->groups + 1, sizeof *p->group_steps);
    p->list_outputs = calloc((size_t)p->lists + 1, sizeof *p->list_outputs);
    p->half = (int)(p->lines + 1) / 2;
    for (Py_ssize_t list = 0; list < p->lists; list++)
        if (p->list_columns[list] > p->most_columns) p->most_columns = p->list_columns[list];
    if (p->any && p->rank && p->group_steps && p->list_outputs) return 0;
    PyErr_NoMemory();
    return -1;
}

const char device_sparse_plan_doc[] =
    "sparse_plan(inputs, outputs, columns, (groups, lines, lists, slots, routes),\n"
    "            (codes, fraction, bias, top), (rows, first, list_groups, list_columns,\n"
    "            list_slots), (route_start, output, factor), cells, ideal, thresholds, uniform,\n"
    "            level, most)\n--\n\n"
    "List where codes differ from sums; None where that are more than `most` patterns.";

PyObject *device_sparse_plan(PyObject *self, PyObject *args) {
    PyObject *layout, *routes, *o[11], *result = NULL;
    Py_ssize_t columns, slots, count;
    long long most;
    int uniform, level;
    int16_t *cells = NULL, *ideal = NULL;
    (void)self;
    sparse *p = calloc(1, sizeof *p);
    if (!p) return PyErr_NoMemory();
    if (!PyArg_ParseTuple(args, "nnn(nnnnn)(iiii)OOOOOpiL:sparse_plan", &p->inputs, &p->outputs,
                          &columns, &p->groups, &p->lines, &p->lists, &slots, &count, &p->codes,
                          &p->fraction, &p->bias, &p->top, &layout, &routes, &o[8], &o[9], &o[10],
                          &uniform, &level, &most) ||
        !PyArg_ParseTuple(layout, "OOOOO:layout", &o[0], &o[1], &o[2], &o[3], &o[4]) ||
        !PyArg_ParseTuple(routes, "OOO:routes", &o[5], &o[6], &o[7]))
        goto done;
    if (p->inputs < 1 || p->outputs < 1 || p->groups < 0 || p->lists < 0 || p->lines < 1 ||
        p->lines > SPARSE_LINES || p->codes < 1 || p->codes > MAX_CODES || p->fraction < 0 ||
        p->fraction > 14 || level < 0 || level >= SPARSE_LEVELS) {
        PyErr_Format(PyExc_ValueError, "sparse_plan: %zd lines, %d codes, fraction %d, level %d",
                     p->lines, p->codes, p->fraction, level);
        goto done;
    }
    if (!(p->rows = device_copy(o[0], "rows", p->groups * p->lines, 4)) ||
        !(p->first = device_copy(o[1], "first", p->groups, 8)) ||
        !(p->list_groups = device_copy(o[2], "list_groups", p->lists + 1, 8)) ||
        !(p->list_columns = device_copy(o[3], "list_columns", p->lists, 8)) ||
        !(p->list_slots = device_copy(o[4], "list_slots", p->lists, 8)) ||
        !(p->route_start = device_copy(o[5], "route_start", slots + 1, 8)) ||
        !(p->output = device_copy(o[6], "output", count, 4)) ||
        !(p->factor = device_copy(o[7], "factor", count, 4)) ||
        !(cells = device_copy(o[8], "cells", columns * p->lines, 2)) ||
        !(ideal = device_copy(o[9], "ideal", columns * p->lines, 2)) ||
        !(p->thresholds = device_copy(o[10], "thresholds", p->codes, 4)) ||
        device_rises(p->route_start, slots, count, "route_start") < 0 ||
        device_within(p->output, count, 0, p->outputs, "output") < 0 ||
        sparse_check(p, columns, slots) < 0 || sparse_room(p) < 0)
        goto done;
    const int status = sparse_fill(p, cells, ideal, uniform, level, most);
    if (status < 0) PyErr_NoMemory();
    else if (status == 0) result = Py_NewRef(Py_None);
    else if (sparse_reach(p, count) < 0) PyErr_NoMemory();
    else result = PyCapsule_New(p, SPARSE, sparse_release);
done:
    free(cells), free(ideal);
    if (!result || result == Py_None) sparse_free(p);
    return result;
}

/* All windows; -1: no memory. */
static int sparse_run(const sparse *p, int level, const uint8_t *u, Py_ssize_t windows,
                      uint32_t *out, uint64_t *saturated) {
    const Py_ssize_t rest = windows % SLICE;
    const Py_ssize_t single = p->largest > MAX_SLICE_DELTA ? windows : rest <= FEW ? rest : 0;
    uint8_t *row = calloc((size_t)p->inputs + 16, 1);
    slice_scratch s = {0};
    int status = row && (single == windows || slice_make(p, &s) == 0) ? 0 : -1;
    *saturated = 0;
    for (Py_ssize_t w = 0; status == 0 && w < windows - single; w += SLICE) {
        const Py_ssize_t count = windows - w < SLICE ? windows - w : SLICE;
        *saturated += sparse_slice(p, level, &s, u + w * p->inputs, count, out + w * p->outputs);
    }
    for (Py_ssize_t w = windows - single; status == 0 && w < windows; w++) {
        memcpy(row, u + w * p->inputs, (size_t)p->inputs);
        *saturated += sparse_window(p, row, out + w * p->outputs);
    }
    free(row), free(s.memory);
    return status;
}

const char device_sparse_doc[] =
    "sparse(plan, u, out, level)\n--\n\n"
    "Add the differences to the linear product in out; returns the saturated conversions.";

PyObject *device_sparse(PyObject *self, PyObject *args) {
    PyObject *capsule, *objects[2], *result = NULL;
    Py_buffer u, out;
    int level;
    (void)self;
    if (!PyArg_ParseTuple(args, "OOOi:sparse", &capsule, &objects[0], &objects[1], &level))
        return NULL;
    const sparse *p = PyCapsule_GetPointer(capsule, SPARSE);
    if (!p) return NULL;
    if (level < 0 || level >= SPARSE_LEVELS)
        return PyErr_Format(PyExc_ValueError, "sparse: level %d", level);
    if (PyObject_GetBuffer(objects[0], &u, PyBUF_C_CONTIGUOUS) < 0) return NULL;
    const Py_ssize_t windows = u.len / p->inputs;
    if (u.itemsize != 1 || windows * p->inputs != u.len) {
        PyErr_Format(PyExc_ValueError, "u: %zd bytes are no windows of %zd inputs", u.len,
                     p->inputs);
    } else if (device_take(objects[1], &out, "out", windows * p->outputs, 4, 1) == 0) {
        uint64_t saturated;
        int status;
        Py_BEGIN_ALLOW_THREADS
        status = sparse_run(p, level, u.buf, windows, out.buf, &saturated);
        Py_END_ALLOW_THREADS
        result = status < 0 ? PyErr_NoMemory() : PyLong_FromUnsignedLongLong(saturated);
        PyBuffer_Release(&out);
    }
    PyBuffer_Release(&u);
    return result;
}
