/* A static device as the integers plus what it changes: where a code is not the sum of the cells.
 *
 * A programmed column gives the right code for most patterns of its word lines. The others are
 * listed once, by row group and pattern, and a product is the linear one, which is in `out`
 * already, plus the listed differences of the patterns that the inputs show. One bit a pattern
 * says whether there is anything to look up, whatever the number of columns.
 */
#include "_device.h"

enum { SPARSE_LINES = 12, MAX_PATTERNS = 1 << SPARSE_LINES };

/* The code of a column is `delta` more than the sum of its cells. */
typedef struct {
    int32_t column, delta;
} difference;

/* A pattern of a group that must be looked up. */
typedef struct {
    int64_t start;     /* -> differences, up to the start of the next hit */
    int32_t saturated; /* columns */
} hit;

typedef struct {
    Py_ssize_t inputs, outputs, groups, lines, lists, patterns, words;
    int codes, fraction, bias;
    int32_t top;
    int32_t *rows;         /* [groups][lines], `inputs` where unused */
    int64_t *first;        /* [groups] first stored column */
    int64_t *list_groups;  /* [lists + 1] */
    int64_t *list_columns; /* [lists] */
    int64_t *list_slots;   /* [lists] first slot: column c of the list has slot list_slots + c */
    int64_t *route_start;  /* [slots + 1] */
    int32_t *output, *factor;
    int32_t *thresholds;   /* [codes] */
    uint64_t *any;         /* [groups][words] bit q: pattern q changes something or saturates */
    int64_t *rank;         /* [groups][words] -> hits, of the lowest bit of the word */
    hit *hits;             /* [set bits of `any` + 1] */
    difference *differences;
} sparse;

static const char SPARSE[] = "runtime._device.sparse";

static void sparse_free(sparse *p) {
    if (!p) return;
    void *owned[] = {p->rows, p->first, p->list_groups, p->list_columns, p->list_slots,
                     p->route_start, p->output, p->factor, p->thresholds, p->any, p->rank,
                     p->hits, p->differences};
    for (size_t i = 0; i < sizeof owned / sizeof *owned; i++) free(owned[i]);
    free(p);
}

static void sparse_release(PyObject *capsule) {
    sparse_free(PyCapsule_GetPointer(capsule, SPARSE));
}

/* ------------------------------------------------------------------------------ the list */

/* One column for all patterns: delta[q], and 1 in full[q] where it saturates. Returns whether any
 * of them is set. `lines`: those of the group in use, at the start. */
ALWAYS int column_body(const sparse *p, const int16_t *cells, const int16_t *ideal, int lines,
                       int uniform, int32_t *restrict sums, int32_t *restrict whole,
                       int32_t *restrict delta, int32_t *restrict full) {
    const int patterns = 1 << lines, limit = p->codes;
    int32_t found = 0;
    sums[0] = p->bias, whole[0] = 0;
    for (int line = 0; line < lines; line++) {
        const int half = 1 << line;
        for (int q = 0; q < half; q++) sums[half + q] = sums[q] + cells[line];
        for (int q = 0; q < half; q++) whole[half + q] = whole[q] + ideal[line];
    }
    if (uniform) {
        for (int q = 0; q < patterns; q++) {
            const int32_t code = sums[q] >> p->fraction;
            delta[q] = (code < 0 ? 0 : code > limit ? limit : code) - whole[q];
        }
    } else {
        for (int q = 0; q < patterns; q++) delta[q] = -whole[q];
        for (int k = 0; k < limit; k++)
            for (int q = 0; q < patterns; q++) delta[q] += sums[q] >= p->thresholds[k];
    }
    for (int q = 0; q < patterns; q++) {
        full[q] = sums[q] >= p->top;
        found |= delta[q] | full[q];
    }
    return found != 0;
}

typedef int column_fn(const sparse *, const int16_t *, const int16_t *, int, int, int32_t *,
                      int32_t *, int32_t *, int32_t *);

static int column_portable(const sparse *p, const int16_t *cells, const int16_t *ideal, int lines,
                           int uniform, int32_t *sums, int32_t *whole, int32_t *delta,
                           int32_t *full) {
    return column_body(p, cells, ideal, lines, uniform, sums, whole, delta, full);
}
#if X86
AVX2 static int column_avx2(const sparse *p, const int16_t *cells, const int16_t *ideal, int lines,
                            int uniform, int32_t *sums, int32_t *whole, int32_t *delta,
                            int32_t *full) {
    return column_body(p, cells, ideal, lines, uniform, sums, whole, delta, full);
}
AVX512 static int column_avx512(const sparse *p, const int16_t *cells, const int16_t *ideal,
                                int lines, int uniform, int32_t *sums, int32_t *whole,
                                int32_t *delta, int32_t *full) {
    return column_body(p, cells, ideal, lines, uniform, sums, whole, delta, full);
}
static column_fn *const COLUMN[] = {column_portable, column_avx2, column_avx512};
#else
static column_fn *const COLUMN[] = {column_portable};
#endif

/* Room for one column and for what is found in one group, before it is sorted by pattern. */
typedef struct {
    int32_t sums[MAX_PATTERNS], whole[MAX_PATTERNS], delta[MAX_PATTERNS], full[MAX_PATTERNS];
    int32_t saturated[MAX_PATTERNS]; /* columns by pattern */
    int64_t place[MAX_PATTERNS + 1];
    int32_t *pattern;
    difference *found;
    Py_ssize_t count, room;
    Py_ssize_t hits, hit_room, differences, difference_room; /* of the plan */
} workspace;

/* Make room for `count` more items of `size` bytes; -1: no memory. */
static int grow(void **array, Py_ssize_t used, Py_ssize_t count, Py_ssize_t *room, size_t size) {
    if (used + count <= *room) return 0;
    const Py_ssize_t wanted = 2 * (used + count) + 1024;
    void *grown = realloc(*array, (size_t)wanted * size);
    if (!grown) return -1;
    *array = grown, *room = wanted;
    return 0;
}

static int collect(workspace *s, int32_t pattern, int32_t column, int32_t delta) {
    Py_ssize_t room = s->room;
    if (grow((void **)&s->pattern, s->count, 1, &room, sizeof *s->pattern) < 0 ||
        grow((void **)&s->found, s->count, 1, &s->room, sizeof *s->found) < 0)
        return -1;
    s->pattern[s->count] = pattern;
    s->found[s->count++] = (difference){column, delta};
    return 0;
}

/* List what was found in a group behind the groups before it, by pattern. */
static int append(sparse *p, Py_ssize_t group, workspace *s) {
    const uint64_t *any = p->any + group * p->words;
    if (grow((void **)&p->hits, s->hits, p->patterns + 1, &s->hit_room, sizeof *p->hits) < 0 ||
        grow((void **)&p->differences, s->differences, s->count, &s->difference_room,
             sizeof *p->differences) < 0)
        return -1;
    memset(s->place, 0, sizeof s->place);
    for (Py_ssize_t i = 0; i < s->count; i++) s->place[s->pattern[i] + 1]++;
    s->place[0] = s->differences;
    for (Py_ssize_t q = 0; q < p->patterns; q++) {
        s->place[q + 1] += s->place[q];
        if (q % 64 == 0) p->rank[group * p->words + q / 64] = s->hits;
        if (any[q / 64] >> q % 64 & 1) p->hits[s->hits++] = (hit){s->place[q], s->saturated[q]};
    }
    for (Py_ssize_t i = 0; i < s->count; i++)
        p->differences[s->place[s->pattern[i]]++] = s->found[i];
    s->differences += s->count;
    p->hits[s->hits] = (hit){s->differences, 0};
    return 0;
}

/* One row group: every column, every pattern. -1: no memory. */
static int group_fill(sparse *p, Py_ssize_t group, int64_t columns, const int16_t *cells,
                      const int16_t *ideal, int uniform, int level, workspace *s) {
    const int32_t *rows = p->rows + group * p->lines;
    int lines = 0;
    while (lines < p->lines && rows[lines] < p->inputs) lines++;
    s->count = 0;
    memset(s->saturated, 0, sizeof s->saturated);
    for (int64_t c = 0; c < columns; c++) {
        const Py_ssize_t at = (Py_ssize_t)(p->first[group] + c) * p->lines;
        if (!COLUMN[level](p, cells + at, ideal + at, lines, uniform, s->sums, s->whole, s->delta,
                           s->full))
            continue;
        for (int q = 0; q < 1 << lines; q++) {
            if (!(s->full[q] | s->delta[q])) continue;
            s->saturated[q] += s->full[q];
            p->any[group * p->words + q / 64] |= (uint64_t)1 << q % 64;
            if (s->delta[q] && collect(s, q, (int32_t)c, s->delta[q]) < 0) return -1;
        }
    }
    return append(p, group, s);
}

/* 1: listed. 0: more than `most` differences, so that another way is quicker. -1: no memory. */
static int sparse_fill(sparse *p, const int16_t *cells, const int16_t *ideal, int uniform,
                       int level, int64_t most) {
    workspace *s = calloc(1, sizeof *s);
    int status = s ? 1 : -1;
    for (Py_ssize_t list = 0; list < p->lists; list++)
        for (Py_ssize_t g = p->list_groups[list]; g < p->list_groups[list + 1]; g++) {
            if (status != 1) break;
            status = group_fill(p, g, p->list_columns[list], cells, ideal, uniform, level, s);
            status = status < 0 ? -1 : s->differences <= most;
        }
    if (s) free(s->pattern), free(s->found);
    free(s);
    return status;
}

/* ------------------------------------------------------------------------------ the product */

static uint64_t sparse_window(const sparse *p, const uint8_t *row, uint32_t *out) {
    uint64_t saturated = 0;
    for (Py_ssize_t list = 0; list < p->lists; list++)
        for (Py_ssize_t g = p->list_groups[list]; g < p->list_groups[list + 1]; g++) {
            const uint64_t *any = p->any + g * p->words;
            uint16_t bits[8];
            device_bits(row, p->rows + g * p->lines, (int)p->lines, bits);
            for (int t = 0; t < 8; t++) {
                const unsigned word = bits[t] / 64u, bit = bits[t] % 64u;
                if (!(any[word] >> bit & 1)) continue;
                const uint64_t below = any[word] & (((uint64_t)1 << bit) - 1);
                const hit *found =
                    p->hits + p->rank[g * p->words + word] + __builtin_popcountll(below);
                saturated += (uint64_t)found->saturated;
                for (int64_t i = found[0].start; i < found[1].start; i++) {
                    const int64_t slot = p->list_slots[list] + p->differences[i].column;
                    const uint32_t delta = (uint32_t)p->differences[i].delta << t;
                    for (int64_t n = p->route_start[slot]; n < p->route_start[slot + 1]; n++)
                        out[p->output[n]] += delta * (uint32_t)p->factor[n];
                }
            }
        }
    return saturated;
}

/* ------------------------------------------------------------------------------ Python */

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
    p->rank = calloc((size_t)(p->groups * p->words) + 1, sizeof *p->rank);
    if (p->any && p->rank) return 0;
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
        p->lines > SPARSE_LINES || p->codes < 1 || p->codes > 65535 || p->fraction < 0 ||
        p->fraction > 14 || level < 0 || level >= (int)(sizeof COLUMN / sizeof *COLUMN)) {
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
    else result = PyCapsule_New(p, SPARSE, sparse_release);
done:
    free(cells), free(ideal);
    if (!result || result == Py_None) sparse_free(p);
    return result;
}

const char device_sparse_doc[] =
    "sparse(plan, u, out)\n--\n\n"
    "Add the differences to the linear product in out; returns the saturated conversions.";

PyObject *device_sparse(PyObject *self, PyObject *args) {
    PyObject *capsule, *objects[2], *result = NULL;
    Py_buffer u, out;
    (void)self;
    if (!PyArg_ParseTuple(args, "OOO:sparse", &capsule, &objects[0], &objects[1])) return NULL;
    const sparse *p = PyCapsule_GetPointer(capsule, SPARSE);
    if (!p || PyObject_GetBuffer(objects[0], &u, PyBUF_C_CONTIGUOUS) < 0) return NULL;
    const Py_ssize_t windows = u.len / p->inputs;
    if (u.itemsize != 1 || windows * p->inputs != u.len) {
        PyErr_Format(PyExc_ValueError, "u: %zd bytes are no windows of %zd inputs", u.len, p->inputs);
    } else if (device_take(objects[1], &out, "out", windows * p->outputs, 4, 1) == 0) {
        uint8_t *row = calloc((size_t)p->inputs + 16, 1);
        uint64_t saturated = 0;
        Py_BEGIN_ALLOW_THREADS
        for (Py_ssize_t w = 0; row && w < windows; w++) {
            memcpy(row, (const uint8_t *)u.buf + w * p->inputs, (size_t)p->inputs);
            saturated += sparse_window(p, row, (uint32_t *)out.buf + w * p->outputs);
        }
        Py_END_ALLOW_THREADS
        result = row ? PyLong_FromUnsignedLongLong(saturated) : PyErr_NoMemory();
        free(row);
        PyBuffer_Release(&out);
    }
    PyBuffer_Release(&u);
    return result;
}
