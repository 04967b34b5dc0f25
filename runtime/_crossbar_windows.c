/* Operations on the windows of one output row: products with a matrix, and pools. */
#include "_crossbar_stream.h"

/* x[1..5]: kernel rows and columns, stride, dilation of rows and columns. */
typedef struct {
    Py_ssize_t rows, columns, stride, row_step, column_step;
} geometry;

static geometry geometry_of(const op *o) {
    geometry g = {(Py_ssize_t)o->x[1], (Py_ssize_t)o->x[2], (Py_ssize_t)o->x[3],
                  (Py_ssize_t)o->x[4], (Py_ssize_t)o->x[5]};
    return g;
}

static int prepare_windows(const op *o) {
    for (int i = 1; i <= 5; i++)
        if (o->x[i] < 1 || o->x[i] > MAX_SIZE) goto wrong;
    const geometry g = geometry_of(o);
    if (o->into->rows == 1 && (g.rows - 1) * g.row_step < o->a->rows &&
        (o->into->columns - 1) * g.stride + (g.columns - 1) * g.column_step < o->a->columns)
        return 0;
wrong:
    return refuse("windows do not fit their source");
}

/* --------------------------------------------------------------- mvm */

int prepare_mvm(engine *e, op *o) {
    if (prepare_windows(o) < 0) return -1;
    if (o->x[0] >= 0 && o->x[0] < e->matrix_count) {
        const matrix *m = &e->matrices[o->x[0]];
        const Py_ssize_t inputs = m->inputs, rest = inputs / (Py_ssize_t)o->x[1];
        if (o->into->in->type == S32 && (o->a->in->type == S8 || o->a->in->type == U8) &&
            inputs % o->x[1] == 0 && rest % o->x[2] == 0 && rest / o->x[2] == o->a->channels &&
            m->outputs == o->into->channels && o->into->columns <= e->scratch_bytes / inputs) {
            const Py_ssize_t slice = e->scratch_bytes / (o->into->columns * inputs);
            o->matrix = &e->matrices[o->x[0]];
            need_work(e, (slice < e->images ? slice : e->images) * elements_of(o->into) * 4);
            return 0;
        }
    }
    return refuse("a product has no matrix, or sizes do not fit");
}

/* Some bytes of a window's row, mostly tens: a call of memcpy would cost as much as the copy. */
ALWAYS void copy_short(uint8_t *to, const char *from, Py_ssize_t n) {
    Py_ssize_t i = 0;
    for (; i + 16 <= n; i += 16) memcpy(to + i, from + i, 16);
    for (; i < n; i++) to[i] = (uint8_t)from[i];
}

/* All windows of one image as [windows, kernel rows, kernel columns, channels]. */
static void gather(const op *o, place from, Py_ssize_t image, uint8_t *u) {
    const geometry g = geometry_of(o);
    const Py_ssize_t step = o->a->in->column_step, channels = o->a->channels;
    const Py_ssize_t together = o->a->packed && g.column_step == 1 ? g.columns : 1;
    const Py_ssize_t bytes = together * channels, inputs = o->matrix->inputs;
    for (Py_ssize_t i = 0; i < g.rows; i++) {
        const char *row = row_of(o->a, from, image, i * g.row_step);
        uint8_t *to = u + i * g.columns * channels;
        for (Py_ssize_t w = 0; w < o->into->columns; w++, to += inputs)
            for (Py_ssize_t j = 0; j < g.columns; j += together)
                copy_short(to + j * channels,
                           row + (w * g.stride + j * g.column_step) * step, bytes);
    }
}

static int multiply(engine *e, matrix *m, const uint8_t *u, Py_ssize_t windows, int32_t *out) {
    uint64_t saturated = 0;
    if (m->weights.buf)
        gemm_of(e->level)(u, m->weights.buf, out, windows, m->inputs, m->outputs);
    if (m->plan && serial_run(m->plan, m->method, e->level, u, windows, out, &saturated) < 0) {
        PyEval_RestoreThread(e->thread);
        PyErr_NoMemory();
        e->thread = PyEval_SaveThread();
        return FAILS;
    }
    m->saturated += saturated;
    return NEXT;
}

/* The images go in slices whose gathered windows fit the scratch, hence the cache. */
int run_mvm(engine *e, stream *s, const op *o) {
    const box *into = o->into;
    matrix *m = o->matrix;
    const Py_ssize_t windows = into->columns, row_bytes = windows * m->outputs * 4;
    Py_ssize_t step = e->scratch_bytes / (windows * m->inputs);
    place from, to;
    (void)s;
    if (locate(e, o->a, &from) || locate(e, into, &to)) return REFUSES;
    for (Py_ssize_t first = 0; first < e->images; first += step) {
        if (step > e->images - first) step = e->images - first;
        for (Py_ssize_t i = 0; i < step; i++)
            gather(o, from, first + i, e->scratch + i * windows * m->inputs);
        if (o->a->in->type == S8) /* s8 + 128 is one flipped bit */
            e->rows->flip(e->scratch, step * windows * m->inputs);
        const int in_place = into->packed && (step == 1 || into->in->image_step == row_bytes);
        char *target = row_of(into, to, first, 0);
        int32_t *out = in_place ? (int32_t *)target : (int32_t *)e->work;
        if (multiply(e, m, e->scratch, step * windows, out) == FAILS) return FAILS;
        if (in_place) continue;
        for (Py_ssize_t i = 0; i < step; i++)
            for (Py_ssize_t w = 0; w < windows; w++)
                memcpy(row_of(into, to, first + i, 0) + w * into->in->column_step,
                       out + (i * windows + w) * m->outputs, (size_t)m->outputs * 4);
    }
    return NEXT;
}

/* --------------------------------------------------------------- pools */

enum { MAX_S8, MAX_U8, SUM_S8, SUM_U8 }; /* of row_kernels.reduce */

int prepare_pool(engine *e, op *o) {
    (void)e;
    if (prepare_windows(o) < 0) return -1;
    const int type = o->a->in->type, sums = o->x[0] == 1;
    if ((type == S8 || type == U8) && o->into->in->type == (sums ? S32 : type) &&
        o->into->channels == o->a->channels && (o->x[0] == 0 || sums)) {
        o->x[0] = (sums ? SUM_S8 : MAX_S8) + (type == U8);
        return 0;
    }
    return refuse("a pool's types or channels do not fit");
}

int run_pool(engine *e, stream *s, const op *o) {
    const geometry g = geometry_of(o);
    const box *into = o->into, *a = o->a;
    const Py_ssize_t channels = into->channels, step = a->in->column_step;
    const int sums = o->x[0] >= SUM_S8;
    place from, to;
    (void)s;
    if (locate(e, a, &from) || locate(e, into, &to)) return REFUSES;
    for (Py_ssize_t image = 0; image < e->images; image++)
        for (Py_ssize_t w = 0; w < into->columns; w++) {
            char *total = row_of(into, to, image, 0) + w * into->in->column_step;
            const char *window = row_of(a, from, image, 0) + w * g.stride * step;
            if (sums) memset(total, 0, (size_t)channels * 4);
            else memcpy(total, window, (size_t)channels);
            for (Py_ssize_t i = 0; i < g.rows; i++) {
                const char *row = row_of(a, from, image, i * g.row_step) + w * g.stride * step;
                for (Py_ssize_t j = 0; j < g.columns; j++)
                    e->rows->reduce[o->x[0]](total, row + j * g.column_step * step, channels);
            }
        }
    return NEXT;
}
