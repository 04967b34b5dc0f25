/* Operations that look along the channels: softmax, its logarithm, layer normalization. */
#include "_crossbar_stream.h"

enum { LOG_ROOTS = 10 }; /* as in isa/numerics.py */

/* x[0]: zero. table[0]: powers, or gain; table[1]: offset. table[2]: scale, and the source's or
 * epsilon. */
static int prepare_along(const engine *e, op *o, int64_t first, Py_ssize_t elements) {
    const Py_buffer *table = table_of(e, first, 4);
    const Py_buffer *numbers = table ? table_of(e, o->x[1], 4) : NULL;
    if (!numbers) return -1;
    o->table[0] = table->buf, o->table[2] = numbers->buf;
    if (o->into->in->type > U8 || o->a->in->type > U8 || !same_shape(o->into, o->a) ||
        !is_zero_point(o->x[0]) || table->len != elements * 4 || numbers->len != 8)
        return refuse("a normalization's types, shapes or tables do not fit");
    return 0;
}

/* Each column of each row of each image: its channels, from `a` to `into`. */
static int each_column(engine *e, const op *o,
                       void (*one)(const engine *e, const op *o, const char *a, char *into)) {
    const box *into = o->into, *a = o->a;
    place from, to;
    if (locate(e, a, &from) || locate(e, into, &to)) return REFUSES;
    for (Py_ssize_t image = 0; image < e->images; image++)
        for (Py_ssize_t row = 0; row < into->rows; row++) {
            const char *source = row_of(a, from, image, row);
            char *target = row_of(into, to, image, row);
            for (Py_ssize_t column = 0; column < into->columns; column++)
                one(e, o, source + column * a->in->column_step,
                    target + column * into->in->column_step);
        }
    return NEXT;
}

static void quantized(const engine *e, const op *o, const float *real, char *into, Py_ssize_t n) {
    const int type = o->into->in->type;
    e->rows->quantize[type](real, into, n, ((const float *)o->table[2])[0], LOW[type], HIGH[type],
                            (int)o->x[0]);
}

int prepare_softmax(engine *e, op *o) { return prepare_along(e, o, o->x[2], 256); }

/* The largest element, and the sum of the powers by their distance to it. */
static int largest(const op *o, const char *a, int32_t *sum) {
    const Py_ssize_t channels = o->into->channels;
    const int32_t *powers = o->table[0];
    const int is_signed = o->a->in->type == S8;
    int most = is_signed ? -128 : 0;
    for (Py_ssize_t i = 0; i < channels; i++) {
        const int value = is_signed ? (int8_t)a[i] : (uint8_t)a[i];
        most = value > most ? value : most;
    }
    uint32_t total = 0;
    for (Py_ssize_t i = 0; i < channels; i++)
        total += (uint32_t)powers[(is_signed ? (int8_t)a[i] : (uint8_t)a[i]) - most + 255];
    *sum = (int32_t)total;
    return most;
}

static void softmax_column(const engine *e, const op *o, const char *a, char *into) {
    const Py_ssize_t channels = o->into->channels;
    const int32_t *powers = o->table[0];
    const int is_signed = o->a->in->type == S8;
    int32_t total;
    const int most = largest(o, a, &total);
    float real[CHUNK];
    for (Py_ssize_t at = 0; at < channels; at += CHUNK) {
        const Py_ssize_t size = channels - at < CHUNK ? channels - at : CHUNK;
        for (Py_ssize_t i = 0; i < size; i++) {
            const int value = is_signed ? (int8_t)a[at + i] : (uint8_t)a[at + i];
            real[i] = (float)powers[value - most + 255] / (float)total;
        }
        quantized(e, o, real, into + at, size);
    }
}

int run_softmax(engine *e, stream *s, const op *o) {
    (void)s;
    return each_column(e, o, softmax_column);
}

int prepare_logsoftmax(engine *e, op *o) { return prepare_along(e, o, o->x[2], 256); }

static void logsoftmax_column(const engine *e, const op *o, const char *a, char *into) {
    const Py_ssize_t channels = o->into->channels;
    const int32_t *powers = o->table[0];
    const int type = o->a->in->type;
    int32_t total;
    const int most = largest(o, a, &total);
    float root = (float)total / (float)powers[255];
    for (int i = 0; i < LOG_ROOTS; i++) root = sqrtf(root);
    const float logarithm = (float)(2 << LOG_ROOTS) * ((root - 1.0f) / (root + 1.0f));
    float real[CHUNK];
    for (Py_ssize_t at = 0; at < channels; at += CHUNK) {
        const Py_ssize_t size = channels - at < CHUNK ? channels - at : CHUNK;
        e->rows->dequantize[type](a + at, real, size, ((const float *)o->table[2])[1], most);
        for (Py_ssize_t i = 0; i < size; i++) real[i] -= logarithm;
        quantized(e, o, real, into + at, size);
    }
}

int run_logsoftmax(engine *e, stream *s, const op *o) {
    (void)s;
    return each_column(e, o, logsoftmax_column);
}

int prepare_layernorm(engine *e, op *o) {
    const Py_buffer *offset = table_of(e, o->x[3], 4);
    if (!offset || prepare_along(e, o, o->x[2], o->into->channels) < 0) return -1;
    o->table[1] = offset->buf;
    if (offset->len != o->into->channels * 4 || o->into->channels > MAX_NORMALIZED)
        return refuse("layernorm: too many channels, or another number of offsets");
    return 0;
}

static void layernorm_column(const engine *e, const op *o, const char *a, char *into) {
    const Py_ssize_t channels = o->into->channels;
    const float *gain = o->table[0], *offset = o->table[1];
    const int type = o->a->in->type;
    int64_t total = 0, squares = 0;
    float real[CHUNK];
    e->rows->moments[type](a, channels, &total, &squares);
    const float spread = (float)(channels * squares - total * total);
    const float root = sqrtf(spread + ((const float *)o->table[2])[1]);
    for (Py_ssize_t at = 0; at < channels; at += CHUNK) {
        const Py_ssize_t size = channels - at < CHUNK ? channels - at : CHUNK;
        e->rows->center[type](a + at, real, size, (int)channels, (int)total, root, gain + at,
                              offset + at);
        quantized(e, o, real, into + at, size);
    }
}

int run_layernorm(engine *e, stream *s, const op *o) {
    (void)s;
    return each_column(e, o, layernorm_column);
}
