/* A matrix of the device, checked and copied. */
#include "_device_plan.h"

static void plan_free(plan *p) {
    if (!p) return;
    void *owned[] = {p->rows, p->group, p->list_groups, p->list_columns, p->list_tiles,
                     p->tile_outputs, p->output, p->entry, p->slot, p->factor, p->unit_first,
                     p->cells, p->variance, p->std, p->thresholds, p->pool};
    for (size_t i = 0; i < sizeof owned / sizeof *owned; i++) free(owned[i]);
    free(p);
}

static const char PLAN[] = "runtime._device.plan";

static void plan_release(PyObject *capsule) { plan_free(PyCapsule_GetPointer(capsule, PLAN)); }

const plan *device_plan_of(PyObject *capsule) { return PyCapsule_GetPointer(capsule, PLAN); }

/* Turn cells [columns][lines] into units [lines][TILE]; `size` bytes each, 2 or 4. */
static void *unit_cells(const plan *p, PyObject *object, const char *name, const int64_t *first,
                        Py_ssize_t columns, Py_ssize_t size) {
    Py_buffer view;
    if (device_take(object, &view, name, columns * p->lines, size, 0) < 0) return NULL;
    uint8_t *units = calloc((size_t)(p->units * p->lines * TILE + 1), (size_t)size);
    const uint8_t *from = view.buf;
    if (!units) PyErr_NoMemory();
    for (Py_ssize_t list = 0; units && list < p->lists; list++)
        for (Py_ssize_t g = p->list_groups[list]; g < p->list_groups[list + 1]; g++)
            for (int64_t c = 0; c < p->list_columns[list]; c++)
                for (Py_ssize_t line = 0; line < p->lines; line++)
                    memcpy(units + (((p->unit_first[g] + c / TILE) * p->lines + line) * TILE +
                                    c % TILE) * size,
                           from + ((first[g] + c) * p->lines + line) * size, (size_t)size);
    PyBuffer_Release(&view);
    return units;
}

/* Number the units; every group must own the columns of its list. */
static int plan_units(plan *p, const int64_t *first, Py_ssize_t columns) {
    p->unit_first = malloc((size_t)(p->groups + 1) * sizeof *p->unit_first);
    p->list_tiles = malloc((size_t)(p->lists + 1) * sizeof *p->list_tiles);
    if (!p->unit_first || !p->list_tiles) {
        PyErr_NoMemory();
        return -1;
    }
    p->units = 0;
    p->list_tiles[0] = 0;
    for (Py_ssize_t list = 0; list < p->lists; list++) {
        const int64_t count = p->list_columns[list];
        if (count < 0 || count > INT32_MAX) { /* a list without groups may be longer than all */
            PyErr_Format(PyExc_ValueError, "list_columns: %lld", (long long)count);
            return -1;
        }
        p->list_tiles[list + 1] = p->list_tiles[list] + tiles_of(count);
        for (Py_ssize_t g = p->list_groups[list]; g < p->list_groups[list + 1]; g++) {
            if (first[g] < 0 || first[g] > columns - count) {
                PyErr_Format(PyExc_ValueError, "first: group %zd has columns %lld + %lld of %zd", g,
                             (long long)first[g], (long long)count, columns);
                return -1;
            }
            p->unit_first[g] = p->units;
            p->units += tiles_of(count);
        }
    }
    return 0;
}

static int plan_limits(plan *p) {
    if (p->inputs < 1 || p->outputs < 1 || p->groups < 0 || p->lists < 0 || p->lines < 1 ||
        p->lines > MAX_LINES || p->codes < 1 || p->codes > 255 || p->fraction < 0 ||
        p->fraction > 14 || p->bias < -32768 || p->bias > 32767) {
        PyErr_Format(PyExc_ValueError, "plan: %zd lines, %d codes, fraction %d, bias %d", p->lines,
                     p->codes, p->fraction, p->bias);
        return -1;
    }
    p->words = (p->lines + 15) / 16;
    p->chunk = 65535 / 255 / p->codes; /* sums of a chunk fit 16 bits */
    if (p->chunk > MAX_CHUNK) p->chunk = MAX_CHUNK;
    return 0;
}

static int plan_noise(plan *p, PyObject *noise, const int64_t *first, Py_ssize_t columns) {
    PyObject *pool, *std, *variance;
    unsigned long long k0, k1;
    if (noise == Py_None) return 0;
    if (!PyArg_ParseTuple(noise, "KKOOO:noise", &k0, &k1, &pool, &std, &variance)) return -1;
    p->noisy = 1, p->key[0] = (uint32_t)k0, p->key[1] = (uint32_t)k1;
    if (!(p->pool = device_copy(pool, "pool", POOL + TILE, 2))) return -1;
    if (variance != Py_None)
        return (p->variance = unit_cells(p, variance, "variance", first, columns, 4)) ? 0 : -1;
    return (p->std = device_copy(std, "std", p->lines + 1, 2)) ? 0 : -1;
}

static int plan_routes(plan *p, PyObject *routes) {
    PyObject *o[5];
    Py_ssize_t entries, count;
    if (!PyArg_ParseTuple(routes, "nnOOOOO:routes", &entries, &count, &o[0], &o[1], &o[2], &o[3],
                          &o[4]))
        return -1;
    const Py_ssize_t tiles = (Py_ssize_t)p->list_tiles[p->lists];
    if (!(p->tile_outputs = device_copy(o[0], "tile_outputs", tiles + 1, 8)) ||
        !(p->output = device_copy(o[1], "output", entries, 4)) ||
        !(p->entry = device_copy(o[2], "entry", entries + 1, 8)) ||
        !(p->slot = device_copy(o[3], "slot", count, 4)) ||
        !(p->factor = device_copy(o[4], "factor", count, 4)))
        return -1;
    return device_rises(p->tile_outputs, tiles, entries, "tile_outputs") < 0 ||
                   device_rises(p->entry, entries, count, "entry") < 0 ||
                   device_within(p->output, entries, 0, p->outputs, "output") < 0 ||
                   device_within(p->slot, count, 0, TILE, "slot") < 0
               ? -1 : 0;
}

const char device_plan_doc[] =
    "plan(inputs, outputs, columns, (groups, lines, lists), (codes, fraction, bias, top),\n"
    "     (rows, group, first, list_groups, list_columns), cells,\n"
    "     (entries, routes, tile_outputs, output, entry, slot, factor),\n"
    "     thresholds, noise)\n--\n\n"
    "Check and copy a matrix on the grid; thresholds and noise may be None.\n"
    "noise: (key0, key1, pool, std, variance), one of the last two None.";

PyObject *device_plan(PyObject *self, PyObject *args) {
    PyObject *layout, *cells, *routes, *thresholds, *noise, *o[5];
    Py_ssize_t columns;
    int64_t *first = NULL;
    (void)self;
    plan *p = calloc(1, sizeof *p);
    if (!p) return PyErr_NoMemory();
    if (!PyArg_ParseTuple(args, "nnn(nnn)(iiii)OOOOO:plan", &p->inputs, &p->outputs, &columns,
                          &p->groups, &p->lines, &p->lists, &p->codes, &p->fraction, &p->bias,
                          &p->top, &layout, &cells, &routes, &thresholds, &noise) ||
        plan_limits(p) < 0 ||
        !PyArg_ParseTuple(layout, "OOOOO:layout", &o[0], &o[1], &o[2], &o[3], &o[4]))
        goto fail;
    if (!(p->rows = device_copy(o[0], "rows", p->groups * p->lines, 4)) ||
        !(p->group = device_copy(o[1], "group", p->groups, 4)) ||
        !(first = device_copy(o[2], "first", p->groups, 8)) ||
        !(p->list_groups = device_copy(o[3], "list_groups", p->lists + 1, 8)) ||
        !(p->list_columns = device_copy(o[4], "list_columns", p->lists, 8)) ||
        device_rises(p->list_groups, p->lists, p->groups, "list_groups") < 0 ||
        device_within(p->rows, p->groups * p->lines, -1, p->inputs, "rows") < 0 ||
        plan_units(p, first, columns) < 0 || plan_routes(p, routes) < 0 ||
        !(p->cells = unit_cells(p, cells, "cells", first, columns, 2)) ||
        plan_noise(p, noise, first, columns) < 0)
        goto fail;
    if (thresholds != Py_None &&
        !(p->thresholds = device_copy(thresholds, "thresholds", p->codes, 4)))
        goto fail;
    for (Py_ssize_t i = 0; i < p->groups * p->lines; i++)
        if (p->rows[i] < 0) p->rows[i] = (int32_t)p->inputs;
    free(first);
    PyObject *capsule = PyCapsule_New(p, PLAN, plan_release);
    if (!capsule) plan_free(p);
    return capsule;
fail:
    free(first);
    plan_free(p);
    return NULL;
}
