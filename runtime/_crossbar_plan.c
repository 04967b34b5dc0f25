/* A block matrix in the order of execution: everything that the loops rely on is checked once. */
#include "_crossbar.h"

static void plan_free(plan *p) {
    if (!p) return;
    void *owned[] = {p->rows, p->first, p->cells, p->list_groups, p->list_columns,
                     p->list_outputs, p->output, p->entry, p->slot, p->factor, p->lanes,
                     p->mask_first, p->masks, p->danger_first, p->danger_short, p->danger_words,
                     p->danger_route, p->danger_slot, p->danger_output, p->danger_factor, p->run_first,
                     p->run_mask};
    for (size_t i = 0; i < sizeof owned / sizeof *owned; i++) free(owned[i]);
    free(p);
}

/* A C-contiguous buffer of `dimensions` axes whose elements have one of the codes. */
int take(PyObject *object, Py_buffer *view, const char *name, int dimensions,
                const char *codes, int writable) {
    const int flags = PyBUF_C_CONTIGUOUS | PyBUF_FORMAT | (writable ? PyBUF_WRITABLE : 0);
    if (PyObject_GetBuffer(object, view, flags) < 0) return -1;
    const char *format = view->format ? view->format : "B";
    if (*format == '<' || *format == '=' || *format == '@') format++;
    if (view->ndim != dimensions || !strchr(codes, *format) || format[1]) {
        PyErr_Format(PyExc_TypeError, "%s: expected %d axes of type '%s', found %d of type '%s'",
                     name, dimensions, codes, view->ndim, view->format ? view->format : "B");
        PyBuffer_Release(view);
        return -1;
    }
    return 0;
}

static const char PLAN[] = "runtime._crossbar.plan";

static void plan_release(PyObject *capsule) { plan_free(PyCapsule_GetPointer(capsule, PLAN)); }

const plan *plan_of(PyObject *capsule) { return PyCapsule_GetPointer(capsule, PLAN); }

/* Copy a one-axis buffer of `size`-byte integers; *count gets its length. */
static void *copy_of(PyObject *object, const char *name, int dimensions, size_t size,
                     Py_ssize_t *shape) {
    Py_buffer view;
    if (take(object, &view, name, dimensions, size == 1 ? "B" : size == 4 ? "il" : "lq", 0) < 0)
        return NULL;
    void *copy = NULL;
    if ((size_t)view.itemsize != size) {
        PyErr_Format(PyExc_TypeError, "%s: expected %zu-byte integers", name, size);
    } else if ((copy = malloc((size_t)view.len + 1)) == NULL) {
        PyErr_NoMemory();
    } else {
        memcpy(copy, view.buf, (size_t)view.len);
        for (int i = 0; i < dimensions; i++) shape[i] = view.shape[i];
    }
    PyBuffer_Release(&view);
    return copy;
}

/* offsets[0..count] must rise from 0 to `end`. */
static int rises(const int64_t *offsets, Py_ssize_t count, Py_ssize_t end, const char *name) {
    int wrong = offsets[0] != 0 || offsets[count] != end;
    for (Py_ssize_t i = 0; i < count; i++) wrong |= offsets[i] > offsets[i + 1];
    if (wrong) PyErr_Format(PyExc_ValueError, "%s: must rise from 0 to %zd", name, end);
    return wrong ? -1 : 0;
}

static int within(const int32_t *values, Py_ssize_t count, int32_t low, Py_ssize_t high,
                  const char *name) {
    for (Py_ssize_t i = 0; i < count; i++)
        if (values[i] < low || values[i] >= high) {
            PyErr_Format(PyExc_ValueError, "%s: %d is outside %d..%zd", name, values[i], low, high);
            return -1;
        }
    return 0;
}

typedef struct {
    Py_ssize_t rows[2], first, cells[3], list_groups, list_columns, list_outputs, output, entry,
        slot, factor;
} plan_shapes;

/* Everything that the loops rely on. */
static int plan_check(plan *p, const plan_shapes *s) {
    p->groups = s->rows[0], p->lines = s->rows[1];
    p->columns = s->cells[0], p->planes = s->cells[1], p->bytes = s->cells[2];
    p->lists = s->list_columns;
    if (s->first != p->groups || s->list_groups != p->lists + 1 ||
        s->list_outputs != p->lists + 1 || s->entry != s->output + 1 || s->factor != s->slot) {
        PyErr_Format(PyExc_ValueError,
                     "plan: %zd groups with %zd starts, %zd lists with %zd and %zd offsets, "
                     "%zd outputs with %zd offsets, %zd routes with %zd factors",
                     p->groups, s->first, p->lists, s->list_groups, s->list_outputs, s->output,
                     s->entry, s->slot, s->factor);
        return -1;
    }
    if (p->inputs < 0 || p->inputs > MAX_SIDE || p->outputs < 0 || p->outputs > MAX_SIDE) {
        PyErr_Format(PyExc_ValueError, "plan: %zd inputs and %zd outputs are outside 0..%d",
                     p->inputs, p->outputs, (int)MAX_SIDE);
        return -1;
    }
    if (p->planes < 1 || p->planes > 8 || p->lines < 1 || p->lines > WORDS * 64 ||
        p->bytes != (p->lines + 7) / 8 || p->adc_max < 1 || p->adc_max > 65535) {
        PyErr_Format(PyExc_ValueError, "plan: %zd lines in %zd bytes, %zd planes, adc_max %d",
                     p->lines, p->bytes, p->planes, (int)p->adc_max);
        return -1;
    }
    if (rises(p->list_groups, p->lists, p->groups, "list_groups") < 0 ||
        rises(p->list_outputs, p->lists, s->output, "list_outputs") < 0 ||
        rises(p->entry, s->output, s->slot, "entry") < 0 ||
        within(p->rows, p->groups * p->lines, -1, p->inputs, "rows") < 0 ||
        within(p->output, s->output, 0, p->outputs, "output") < 0)
        return -1;
    for (Py_ssize_t i = 0; i < p->groups * p->lines; i++)
        if (p->rows[i] < 0) p->rows[i] = (int32_t)p->inputs;
    for (Py_ssize_t list = 0; list < p->lists; list++) {
        const int64_t columns = p->list_columns[list];
        if (columns < 0 || columns > MAX_SIDE) { /* a list without groups has any number */
            PyErr_Format(PyExc_ValueError, "list_columns: %lld is outside 0..%d",
                         (long long)columns, (int)MAX_SIDE);
            return -1;
        }
        for (Py_ssize_t g = p->list_groups[list]; g < p->list_groups[list + 1]; g++)
            if (p->first[g] < 0 || p->first[g] > p->columns - columns) {
                PyErr_Format(PyExc_ValueError,
                             "plan: group %zd has columns %lld + %lld, the cells have %zd", g,
                             (long long)p->first[g], (long long)columns, p->columns);
                return -1;
            }
        const int64_t from = p->entry[p->list_outputs[list]];
        const int64_t to = p->entry[p->list_outputs[list + 1]];
        if (within(p->slot + from, (Py_ssize_t)(to - from), 0, (Py_ssize_t)columns, "slot") < 0)
            return -1;
    }
    return 0;
}

PyObject *py_plan(PyObject *self, PyObject *args) {
    PyObject *o[10];
    plan_shapes s;
    int adc_max;
    (void)self;
    plan *p = calloc(1, sizeof *p);
    if (!p) return PyErr_NoMemory();
    if (!PyArg_ParseTuple(args, "nniOOOOOOOOOO:plan", &p->inputs, &p->outputs, &adc_max, &o[0],
                          &o[1], &o[2], &o[3], &o[4], &o[5], &o[6], &o[7], &o[8], &o[9]))
        goto fail;
    p->adc_max = adc_max;
    if (!(p->rows = copy_of(o[0], "rows", 2, 4, s.rows)) ||
        !(p->first = copy_of(o[1], "first", 1, 8, &s.first)) ||
        !(p->cells = copy_of(o[2], "cells", 3, 1, s.cells)) ||
        !(p->list_groups = copy_of(o[3], "list_groups", 1, 8, &s.list_groups)) ||
        !(p->list_columns = copy_of(o[4], "list_columns", 1, 8, &s.list_columns)) ||
        !(p->list_outputs = copy_of(o[5], "list_outputs", 1, 8, &s.list_outputs)) ||
        !(p->output = copy_of(o[6], "output", 1, 4, &s.output)) ||
        !(p->entry = copy_of(o[7], "entry", 1, 8, &s.entry)) ||
        !(p->slot = copy_of(o[8], "slot", 1, 4, &s.slot)) ||
        !(p->factor = copy_of(o[9], "factor", 1, 4, &s.factor)) || plan_check(p, &s) < 0)
        goto fail;
    if (plan_derive(p) < 0) {
        PyErr_NoMemory();
        goto fail;
    }
    PyObject *capsule = PyCapsule_New(p, PLAN, plan_release);
    if (capsule) return capsule;
fail:
    plan_free(p);
    return NULL;
}
