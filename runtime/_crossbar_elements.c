/* Operations on elements: copies, fills, and arithmetic on whole regions. */
#include "_crossbar_stream.h"

static int is_byte(const box *b) { return b->in->type == S8 || b->in->type == U8; }

/* A whole number as an element of a box: its bits, or those of the same number in float32. */
static int32_t word_of(const box *b, int64_t value) {
    const float real = (float)value;
    int32_t word = (int32_t)value;
    if (b->in->type == F32) memcpy(&word, &real, sizeof word);
    return word;
}

int prepare_move(engine *e, op *o) {
    (void)e;
    if (o->into->in->item != o->a->in->item || elements_of(o->into) != elements_of(o->a))
        return refuse("a copy changes the type or the number of elements");
    return 0;
}

int run_move(engine *e, stream *s, const op *o) {
    place from, to;
    (void)s;
    if (locate(e, o->a, &from) || locate(e, o->into, &to)) return REFUSES;
    move(e, o->a, from, o->into, to);
    return NEXT;
}

int prepare_fill(engine *e, op *o) {
    (void)e;
    return o->into->in->type != OTHER ? 0 : refuse("fill: the type does not fit");
}

int run_fill(engine *e, stream *s, const op *o) {
    const box *b = o->into;
    const int32_t value = word_of(b, o->x[0]);
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

int prepare_requant(engine *e, op *o) {
    const Py_buffer *bias = table_of(e, o->x[0], 4), *scale = bias ? table_of(e, o->x[1], 4) : NULL;
    if (!scale) return -1;
    o->table[0] = bias->buf, o->table[1] = scale->buf, o->period = bias->len / 4;
    if (o->into->in->type == OTHER || o->a->in->type != S32 || !same_shape(o->into, o->a) ||
        !is_zero_point(o->x[2]) || bias->len != scale->len || o->period < 1 ||
        o->period % o->into->channels)
        return refuse("requant: types, shapes or tables do not fit");
    return 0;
}

int run_requant(engine *e, stream *s, const op *o) {
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
            e->rows->requantize[type]((const int32_t *)a + done, bias + t, scale + t,
                                      into + done * bi->in->item, size, low, high, zero);
            done += size;
        }
    });
    return NEXT;
}

int prepare_combine(engine *e, op *o) {
    const Py_buffer *scales = table_of(e, o->x[4], 4);
    if (!scales) return -1;
    o->table[0] = scales->buf;
    const box *into = o->into, *a = o->a, *b = o->b;
    if (into->in->type == OTHER || a->in->type == OTHER || b->in->type == OTHER ||
        !same_shape(into, a) || b->rows != into->rows ||
        (b->columns != into->columns && b->columns != 1) ||
        (b->channels != into->channels && b->channels != 1) || scales->len != 12 || o->x[0] < 0 ||
        o->x[0] >= COMBINATIONS || !is_zero_point(o->x[1]) || !is_zero_point(o->x[2]) ||
        !is_zero_point(o->x[3]))
        return refuse("arithmetic: types, shapes or numbers do not fit");
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
        rows->quantize[type](left, into + at * o->into->in->item, size, scales[2], LOW[type],
                             HIGH[type], (int)o->x[3]);
    }
}

int run_combine(engine *e, stream *s, const op *o) {
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

/* Whether a region has the rows of the result, and one or all of its columns and channels. */
static int broadcasts(const box *b, const box *into) {
    return b->rows == into->rows && (b->columns == into->columns || b->columns == 1) &&
           (b->channels == into->channels || b->channels == 1);
}

/* a: the mask; b and c: what it chooses from. x: zeros of b, c and the result, scales. */
int prepare_select(engine *e, op *o) {
    const Py_buffer *scales = table_of(e, o->x[3], 4);
    if (!scales) return -1;
    o->table[0] = scales->buf;
    if (!is_byte(o->into) || !is_byte(o->a) || !is_byte(o->b) || !is_byte(o->c) ||
        !broadcasts(o->a, o->into) || !broadcasts(o->b, o->into) || !broadcasts(o->c, o->into) ||
        scales->len != 12 || !is_zero_point(o->x[0]) || !is_zero_point(o->x[1]) ||
        !is_zero_point(o->x[2]))
        return refuse("select: types, shapes or numbers do not fit");
    return 0;
}

/* Elements at..at+n of a run of bytes as reals; a run of one stands for all of them. */
static void reals(const engine *e, const box *b, const char *run, float *real, Py_ssize_t at,
                  Py_ssize_t n, float scale, int zero) {
    const int one = b->channels == 1;
    e->rows->dequantize[b->in->type](one ? run : run + at, real, one ? 1 : n, scale, zero);
    for (Py_ssize_t i = 1; one && i < n; i++) real[i] = real[0];
}

static void select_run(const engine *e, const op *o, char *into, const char *mask, const char *b,
                       const char *c) {
    const float *scales = o->table[0];
    const int type = o->into->in->type, one = o->a->channels == 1;
    const Py_ssize_t n = o->into->channels;
    float left[CHUNK], right[CHUNK];
    for (Py_ssize_t at = 0; at < n; at += CHUNK) {
        const Py_ssize_t size = n - at < CHUNK ? n - at : CHUNK;
        reals(e, o->b, b, left, at, size, scales[0], (int)o->x[0]);
        reals(e, o->c, c, right, at, size, scales[1], (int)o->x[1]);
        for (Py_ssize_t i = 0; i < size; i++)
            left[i] = mask[one ? 0 : at + i] ? left[i] : right[i];
        e->rows->quantize[type](left, into + at, size, scales[2], LOW[type], HIGH[type],
                                (int)o->x[2]);
    }
}

/* From one column of a region to the next, in bytes. */
static Py_ssize_t column_step(const box *b) { return b->columns == 1 ? 0 : b->in->column_step; }

int run_select(engine *e, stream *s, const op *o) {
    place masks, first, second, to;
    (void)s;
    if (locate(e, o->a, &masks) || locate(e, o->b, &first) || locate(e, o->c, &second) ||
        locate(e, o->into, &to))
        return REFUSES;
    for (Py_ssize_t image = 0; image < e->images; image++)
        for (Py_ssize_t row = 0; row < o->into->rows; row++) {
            char *into = row_of(o->into, to, image, row);
            const char *mask = row_of(o->a, masks, image, row);
            const char *b = row_of(o->b, first, image, row);
            const char *c = row_of(o->c, second, image, row);
            for (Py_ssize_t column = 0; column < o->into->columns; column++) {
                select_run(e, o, into, mask, b, c);
                into += o->into->in->column_step, mask += column_step(o->a);
                b += column_step(o->b), c += column_step(o->c);
            }
        }
    return NEXT;
}

int prepare_lut(engine *e, op *o) {
    const Py_ssize_t item = o->into->in->item;
    const Py_buffer *table = table_of(e, o->x[0], item);
    if (!table) return -1;
    o->table[0] = table->buf;
    o->period = table->len == 256 * item ? 1 : o->into->channels;
    if (o->into->in->type == OTHER || !is_byte(o->a) || !same_shape(o->into, o->a) ||
        table->len != o->period * 256 * item)
        return refuse("lut: types, shapes or the table do not fit");
    return 0;
}

#define LOOK_UP(type)                                                                             \
    EACH_RUN(o, to, from, {                                                                       \
        (void)at; /* a run begins at the first channel */                                         \
        const type *table = o->table[0];                                                          \
        const uint8_t *values = (const uint8_t *)a;                                               \
        type *results = (type *)into;                                                             \
        if (period == 1)                                                                          \
            for (Py_ssize_t i = 0; i < n; i++) results[i] = table[values[i]];                     \
        else                                                                                      \
            for (Py_ssize_t i = 0; i < n; i += period)                                            \
                for (Py_ssize_t c = 0; c < period; c++)                                           \
                    results[i + c] = table[c * 256 + values[i + c]];                              \
    })

int run_lut(engine *e, stream *s, const op *o) {
    const Py_ssize_t period = o->period;
    place from, to;
    (void)s;
    if (locate(e, o->a, &from) || locate(e, o->into, &to)) return REFUSES;
    if (o->into->in->item == 1) LOOK_UP(uint8_t);
    else LOOK_UP(uint32_t);
    return NEXT;
}

int prepare_accumulate(engine *e, op *o) {
    (void)e;
    if (o->into->in->type != S32 || o->a->in->type != S32 || !same_shape(o->into, o->a))
        return refuse("accumulate: types or shapes do not fit");
    return 0;
}

int run_accumulate(engine *e, stream *s, const op *o) {
    place from, to;
    (void)s;
    if (locate(e, o->a, &from) || locate(e, o->into, &to)) return REFUSES;
    EACH_RUN(o, to, from, {
        (void)at;
        e->rows->accumulate((int32_t *)into, (const int32_t *)a, n);
    });
    return NEXT;
}

/* x: table of indices, value. The source is laid out flat first, and the result is picked flat. */
int prepare_gather(engine *e, op *o) {
    const Py_buffer *index = table_of(e, o->x[0], 4);
    if (!index) return -1;
    const Py_ssize_t count = elements_of(o->into), limit = elements_of(o->a);
    const int32_t *numbers = o->table[0] = index->buf;
    int fits = index->len == count * 4 && o->into->in->type == o->a->in->type &&
               o->into->in->type != OTHER;
    for (Py_ssize_t i = 0; fits && i < count; i++) fits = numbers[i] >= -1 && numbers[i] < limit;
    if (!fits) return refuse("gather: types, or numbers of elements do not fit");
    need_work(e, (count + limit) * 4);
    return 0;
}

int run_gather(engine *e, stream *s, const op *o) {
    const Py_ssize_t count = elements_of(o->into), limit = elements_of(o->a);
    const int32_t *index = o->table[0], value = word_of(o->into, o->x[1]);
    const storage flat = {.base = (char *)e->work, .item = o->a->in->item, .rows = 1};
    const box source = line_box(&flat, limit), result = line_box(&flat, count);
    const place start = {(char *)e->work, 0}, picked = {(char *)e->work + 4 * limit, 0};
    place from, to;
    (void)s;
    if (locate(e, o->a, &from) || locate(e, o->into, &to)) return REFUSES;
    for (Py_ssize_t image = 0; image < e->images; image++) {
        move_image(image, o->a, from, &source, start);
        if (flat.item == 1) {
            const char *a = start.origin;
            for (Py_ssize_t i = 0; i < count; i++)
                picked.origin[i] = index[i] < 0 ? (char)value : a[index[i]];
        } else {
            const int32_t *a = (const int32_t *)start.origin;
            int32_t *into = (int32_t *)picked.origin;
            for (Py_ssize_t i = 0; i < count; i++) into[i] = index[i] < 0 ? value : a[index[i]];
        }
        move_image(image, &result, picked, o->into, to);
    }
    return NEXT;
}
