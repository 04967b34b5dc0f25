/* The kinds of operations: what each needs, checked once, and what it does. */
#include "_crossbar_stream.h"

enum { CHUNK = 512 }; /* elements whose real values are held at once */

static const int LOW[] = {-128, 0}, HIGH[] = {127, 255};

static int wrong(const char *what) {
    PyErr_Format(PyExc_ValueError, "engine: %s", what);
    return -1;
}

static int is_byte(const box *b) { return b->in->type == S8 || b->in->type == U8; }

static int same_shape(const box *a, const box *b) {
    return a->rows == b->rows && a->columns == b->columns && a->channels == b->channels;
}

static int is_zero_point(int64_t zero) { return zero >= -32768 && zero <= 32767; }

/* The view of a table of `item`-byte elements, NULL with an exception. */
static const Py_buffer *table_of(const engine *e, int64_t index, Py_ssize_t item) {
    if (index >= 0 && index < e->table_count && e->tables[index].itemsize == item)
        return &e->tables[index];
    wrong("an operation names no table, or one of another type");
    return NULL;
}

/* --------------------------------------------------------------- control */

static int prepare_loop(engine *e, op *o) {
    const int64_t *x = o->x, end = x[4], index = o - e->ops;
    if (x[0] < 0 || x[0] >= e->variable_count || x[3] < 1 || x[3] > MAX_SIZE ||
        x[1] < -MAX_SIZE || x[1] > MAX_SIZE || x[2] < -MAX_SIZE || x[2] > MAX_SIZE ||
        end <= index || end >= e->op_count)
        return wrong("a loop has no variable, no end, or bounds beyond 2^30");
    return 0;
}

static int run_loop(engine *e, stream *s, const op *o) {
    e->variables[o->x[0]] = o->x[1];
    if (o->x[1] >= o->x[2]) s->at = (Py_ssize_t)o->x[4];
    return NEXT;
}

static int prepare_end(engine *e, op *o) {
    const int64_t begin = o->x[0], index = o - e->ops;
    if (begin < 0 || begin >= index || e->ops[begin].run != run_loop || e->ops[begin].x[4] != index)
        return wrong("an end has no loop");
    memcpy(&o->x[1], &e->ops[begin].x[0], 4 * sizeof *o->x); /* variable, start, stop, step */
    return 0;
}

static int run_end(engine *e, stream *s, const op *o) {
    const int64_t value = e->variables[o->x[1]] + o->x[4];
    if (value < o->x[3]) {
        e->variables[o->x[1]] = value;
        s->at = (Py_ssize_t)o->x[0];
    }
    return NEXT;
}

int64_t op_jump(const op *o) { return o->run == run_loop ? o->x[4] : o->run == run_end ? o->x[0] : -1; }

static int prepare_call(engine *e, op *o) {
    const int64_t *x = o->x;
    if (x[0] < 0 || x[1] < 0 || x[2] < 0 || x[1] + x[2] > e->variable_count)
        return wrong("a call has no function or no variables");
    return 0;
}

/* Call the Python executor with the values of the enclosing loops' variables. */
static int run_call(engine *e, stream *s, const op *o) {
    int status = FAILS;
    (void)s;
    PyEval_RestoreThread(e->thread);
    PyObject *values = PyTuple_New((Py_ssize_t)o->x[2]);
    for (Py_ssize_t i = 0; values && i < o->x[2]; i++) {
        PyObject *value = PyLong_FromLongLong(e->variables[o->x[1] + i]);
        if (!value || PyTuple_SetItem(values, i, value) < 0) Py_CLEAR(values);
    }
    PyObject *call = values ? PyList_GetItem(e->calls, (Py_ssize_t)o->x[0]) : NULL;
    PyObject *result = call ? PyObject_CallObject(call, values) : NULL;
    if (result) status = NEXT;
    Py_XDECREF(result);
    Py_XDECREF(values);
    e->thread = PyEval_SaveThread();
    return status;
}

/* --------------------------------------------------------------- movement */

static int prepare_move(engine *e, op *o) {
    (void)e;
    if (o->into->in->item != o->a->in->item || elements_of(o->into) != elements_of(o->a))
        return wrong("a copy changes the type or the number of elements");
    return 0;
}

static int run_move(engine *e, stream *s, const op *o) {
    place from, to;
    (void)s;
    if (locate(e, o->a, &from) || locate(e, o->into, &to)) return REFUSES;
    move(e, o->a, from, o->into, to);
    return NEXT;
}

static int prepare_message(engine *e, op *o) {
    const box *b = o->a ? o->a : o->into;
    if (o->x[0] < 0 || o->x[0] >= e->queue_count) return wrong("a message has no queue");
    o->queue = &e->queues[o->x[0]];
    if (b->in->item != o->queue->memory.item || elements_of(b) > o->queue->memory.channels)
        return wrong("a message does not fit its queue");
    return 0;
}

/* In a traced run: tell Python that a slot has been filled. */
static int record(engine *e, const op *o, Py_ssize_t slot, Py_ssize_t elements) {
    int status = FAILS;
    PyEval_RestoreThread(e->thread);
    PyObject *call = PyList_GetItem(e->records, (Py_ssize_t)o->x[0]);
    if (call == Py_None) {
        status = NEXT;
    } else if (call) {
        PyObject *result = PyObject_CallFunction(call, "nn", slot, elements);
        if (result) status = NEXT;
        Py_XDECREF(result);
    }
    e->thread = PyEval_SaveThread();
    return status;
}

static int run_send(engine *e, stream *s, const op *o) {
    queue *q = o->queue;
    place from;
    (void)s;
    if (q->sent - q->taken >= q->memory.rows) return WAITS;
    if (locate(e, o->a, &from)) return REFUSES;
    const Py_ssize_t slot = (Py_ssize_t)(q->sent % q->memory.rows), elements = elements_of(o->a);
    const box message = message_box(q, elements);
    move(e, o->a, from, &message, (place){q->memory.base, slot});
    q->sizes[slot] = elements;
    q->sent++;
    wake(e, q);
    return e->records ? record(e, o, slot, elements) : NEXT;
}

static int run_recv(engine *e, stream *s, const op *o) {
    queue *q = o->queue;
    place to;
    (void)s;
    if (q->sent == q->taken) return WAITS;
    const Py_ssize_t slot = (Py_ssize_t)(q->taken % q->memory.rows), elements = elements_of(o->into);
    if (q->sizes[slot] != elements || locate(e, o->into, &to)) return REFUSES;
    const box message = message_box(q, elements);
    move(e, &message, (place){q->memory.base, slot}, o->into, to);
    q->taken++;
    wake(e, q);
    return NEXT;
}

static int prepare_fill(engine *e, op *o) {
    (void)e;
    return is_byte(o->into) || o->into->in->type == S32 ? 0 : wrong("fill knows integers only");
}

static int run_fill(engine *e, stream *s, const op *o) {
    const box *b = o->into;
    const int32_t value = (int32_t)o->x[0];
    place to;
    (void)s;
    if (locate(e, b, &to)) return REFUSES;
    for (Py_ssize_t image = 0; image < e->images; image++)
        for (Py_ssize_t row = 0; row < b->rows; row++)
            for (Py_ssize_t i = 0; i < b->runs; i++) {
                char *run = row_of(b, to, image, row) + i * b->in->column_step;
                if (b->in->item == 1) memset(run, value, (size_t)b->run);
                else
                    for (Py_ssize_t n = 0; n < b->run; n += 4) memcpy(run + n, &value, 4);
            }
    return NEXT;
}

/* --------------------------------------------------------------- arithmetic */

/* The loops over images, rows and runs of boxes of one shape: `into` and `a`, runs of `n` elements
 * that begin at element `at` of their row. */
#define EACH_RUN(o, to, from, body)                                                               \
    do {                                                                                          \
        const box *bi = (o)->into, *ba = (o)->a;                                                  \
        const int whole = bi->packed && ba->packed;                                               \
        const Py_ssize_t steps = whole ? 1 : bi->columns;                                         \
        const Py_ssize_t n = whole ? bi->columns * bi->channels : bi->channels;                   \
        for (Py_ssize_t image = 0; image < e->images; image++)                                    \
            for (Py_ssize_t row = 0; row < bi->rows; row++) {                                     \
                char *into = row_of(bi, to, image, row);                                          \
                const char *a = row_of(ba, from, image, row);                                     \
                for (Py_ssize_t step = 0; step < steps; step++) {                                 \
                    const Py_ssize_t at = step * n;                                               \
                    body;                                                                         \
                    into += bi->in->column_step, a += ba->in->column_step;                        \
                }                                                                                 \
            }                                                                                     \
    } while (0)

static int prepare_requant(engine *e, op *o) {
    const Py_buffer *bias = table_of(e, o->x[0], 4), *scale = bias ? table_of(e, o->x[1], 4) : NULL;
    if (!scale) return -1;
    o->table[0] = bias->buf, o->table[1] = scale->buf, o->period = bias->len / 4;
    if (!is_byte(o->into) || o->a->in->type != S32 || !same_shape(o->into, o->a) ||
        !is_zero_point(o->x[2]) || bias->len != scale->len || o->period < 1 ||
        o->period % o->into->channels)
        return wrong("requant: types, shapes or tables do not fit");
    return 0;
}

static int run_requant(engine *e, stream *s, const op *o) {
    const int type = o->into->in->type, low = LOW[type], high = HIGH[type], zero = (int)o->x[2];
    const int32_t *bias = o->table[0];
    const float *scale = o->table[1];
    place from, to;
    (void)s;
    if (locate(e, o->a, &from) || locate(e, o->into, &to)) return REFUSES;
    EACH_RUN(o, to, from, {
        for (Py_ssize_t done = 0; done < n;) {
            const Py_ssize_t t = (at + done) % o->period;
            const Py_ssize_t size = n - done < o->period - t ? n - done : o->period - t;
            e->rows->requantize[type]((const int32_t *)a + done, bias + t, scale + t, into + done,
                                      size, low, high, zero);
            done += size;
        }
    });
    return NEXT;
}

static int prepare_combine(engine *e, op *o) {
    const Py_buffer *scales = table_of(e, o->x[4], 4);
    if (!scales) return -1;
    o->table[0] = scales->buf;
    const box *into = o->into, *a = o->a, *b = o->b;
    if (!is_byte(into) || a->in->type == OTHER || b->in->type == OTHER || !same_shape(into, a) ||
        b->rows != into->rows || (b->columns != into->columns && b->columns != 1) ||
        (b->channels != into->channels && b->channels != 1) || scales->len != 12 || o->x[0] < 0 ||
        o->x[0] >= 5 || !is_zero_point(o->x[1]) || !is_zero_point(o->x[2]) ||
        !is_zero_point(o->x[3]))
        return wrong("arithmetic: types, shapes or numbers do not fit");
    return 0;
}

/* n elements; b_one: b is one value for all of them. */
static void combine_run(const engine *e, const op *o, char *into, const char *a, const char *b,
                        Py_ssize_t n, int b_one) {
    const row_kernels *rows = e->rows;
    const float *scales = o->table[0];
    const int type = o->into->in->type, type_a = o->a->in->type, type_b = o->b->in->type;
    float left[CHUNK], right[CHUNK];
    if (b_one) {
        rows->dequantize[type_b](b, right, 1, scales[1], (int)o->x[2]);
        for (Py_ssize_t i = 1; i < (n < CHUNK ? n : CHUNK); i++) right[i] = right[0];
    }
    for (Py_ssize_t at = 0; at < n; at += CHUNK) {
        const Py_ssize_t size = n - at < CHUNK ? n - at : CHUNK;
        rows->dequantize[type_a](a + at * o->a->in->item, left, size, scales[0], (int)o->x[1]);
        if (!b_one)
            rows->dequantize[type_b](b + at * o->b->in->item, right, size, scales[1],
                                     (int)o->x[2]);
        rows->combine[o->x[0]](left, right, size);
        rows->quantize[type](left, into + at, size, scales[2], LOW[type], HIGH[type],
                             (int)o->x[3]);
    }
}

static int run_combine(engine *e, stream *s, const op *o) {
    const box *b = o->b, *c = o->into;
    place from, with, to;
    (void)s;
    if (locate(e, o->a, &from) || locate(e, b, &with) || locate(e, c, &to)) return REFUSES;
    const int b_one = b->channels == 1 && c->channels > 1;
    const int whole = c->packed && o->a->packed && b->packed && same_shape(b, c);
    const Py_ssize_t steps = whole ? 1 : c->columns;
    const Py_ssize_t n = whole ? c->columns * c->channels : c->channels;
    const Py_ssize_t b_step = b->columns == 1 ? 0 : b->in->column_step;
    for (Py_ssize_t image = 0; image < e->images; image++)
        for (Py_ssize_t row = 0; row < c->rows; row++) {
            char *into = row_of(c, to, image, row);
            const char *left = row_of(o->a, from, image, row);
            const char *right = row_of(b, with, image, row);
            for (Py_ssize_t step = 0; step < steps; step++)
                combine_run(e, o, into + step * c->in->column_step,
                            left + step * o->a->in->column_step, right + step * b_step, n, b_one);
        }
    return NEXT;
}

static int prepare_lut(engine *e, op *o) {
    const Py_buffer *table = table_of(e, o->x[0], 1);
    if (!table) return -1;
    o->table[0] = table->buf;
    o->period = table->len == 256 ? 1 : o->into->channels;
    if (!is_byte(o->into) || !is_byte(o->a) || !same_shape(o->into, o->a) ||
        table->len != o->period * 256)
        return wrong("lut: types, shapes or the table do not fit");
    return 0;
}

static int run_lut(engine *e, stream *s, const op *o) {
    const uint8_t *table = o->table[0];
    const Py_ssize_t period = o->period;
    place from, to;
    (void)s;
    if (locate(e, o->a, &from) || locate(e, o->into, &to)) return REFUSES;
    EACH_RUN(o, to, from, {
        (void)at; /* a run begins at the first channel */
        const uint8_t *values = (const uint8_t *)a;
        if (period == 1)
            for (Py_ssize_t i = 0; i < n; i++) into[i] = (char)table[values[i]];
        else
            for (Py_ssize_t i = 0; i < n; i += period)
                for (Py_ssize_t c = 0; c < period; c++)
                    into[i + c] = (char)table[c * 256 + values[i + c]];
    });
    return NEXT;
}

static int prepare_accumulate(engine *e, op *o) {
    (void)e;
    if (o->into->in->type != S32 || o->a->in->type != S32 || !same_shape(o->into, o->a))
        return wrong("accumulate: types or shapes do not fit");
    return 0;
}

static int run_accumulate(engine *e, stream *s, const op *o) {
    place from, to;
    (void)s;
    if (locate(e, o->a, &from) || locate(e, o->into, &to)) return REFUSES;
    EACH_RUN(o, to, from, {
        (void)at;
        e->rows->accumulate((int32_t *)into, (const int32_t *)a, n);
    });
    return NEXT;
}

/* --------------------------------------------------------------- the table */

enum { INTO = 1, A = 2, B = 4 };

static const struct {
    const char *name;
    int boxes; /* the regions that it has */
    int (*prepare)(engine *e, op *o);
    int (*run)(engine *e, stream *s, const op *o);
} KINDS[] = {
    {"loop", 0, prepare_loop, run_loop},
    {"end", 0, prepare_end, run_end},
    {"call", 0, prepare_call, run_call},
    {"move", INTO | A, prepare_move, run_move},
    {"send", A, prepare_message, run_send},
    {"recv", INTO, prepare_message, run_recv},
    {"fill", INTO, prepare_fill, run_fill},
    {"requant", INTO | A, prepare_requant, run_requant},
    {"combine", INTO | A | B, prepare_combine, run_combine},
    {"lut", INTO | A, prepare_lut, run_lut},
    {"accumulate", INTO | A, prepare_accumulate, run_accumulate},
    {"mvm", INTO | A, prepare_mvm, run_mvm},
    {"pool", INTO | A, prepare_pool, run_pool},
};
enum { KIND_COUNT = sizeof KINDS / sizeof *KINDS };

PyObject *py_kinds(PyObject *self, PyObject *unused) {
    (void)self, (void)unused;
    PyObject *names = PyTuple_New(KIND_COUNT);
    for (Py_ssize_t i = 0; names && i < KIND_COUNT; i++) {
        PyObject *name = PyUnicode_FromString(KINDS[i].name);
        if (!name || PyTuple_SetItem(names, i, name) < 0) Py_CLEAR(names);
    }
    return names;
}

int op_prepare(engine *e, op *o, const int64_t *code) {
    const box **slots[] = {&o->into, &o->a, &o->b};
    if (code[0] < 0 || code[0] >= KIND_COUNT) return wrong("there is no such kind");
    for (int i = 0; i < 3; i++) {
        const int64_t index = code[1 + i];
        if (!(KINDS[code[0]].boxes & 1 << i)) continue;
        if (index < 0 || index >= e->box_count) return wrong("an operation lacks a region");
        *slots[i] = &e->boxes[index];
    }
    memcpy(o->x, code + 4, sizeof o->x);
    o->run = KINDS[code[0]].run;
    return KINDS[code[0]].prepare(e, o);
}
