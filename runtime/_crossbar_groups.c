/* Normalization over the rows and columns of groups of channels: exact sums, and their use. */
#include "_crossbar_stream.h"

enum { LOW_BITS = 24,     /* of a sum of squares, in its second word */
       COLUMNS = 16384 }; /* 16384 * 255 * 255 < 2^31: sums of so many stay in 32 bits */

static int32_t *words_of(const box *b, place p, Py_ssize_t image, Py_ssize_t column) {
    return (int32_t *)(row_of(b, p, image, 0) + column * b->in->column_step);
}

static int holds_moments(const box *b, const box *source) {
    return b->in->type == S32 && b->rows == 1 && b->columns == 3 &&
           source->channels % b->channels == 0;
}

int prepare_moments(engine *e, op *o) {
    if (o->a->in->type > U8 || !holds_moments(o->into, o->a))
        return refuse("moments: types or shapes do not fit");
    need_work(e, o->a->channels * 8);
    return 0;
}

/* Add the sums by channel to those of the groups, and forget them; whole numbers wrap. */
static void add_to_groups(const op *o, place to, Py_ssize_t image, int32_t *total,
                          uint32_t *squares) {
    const Py_ssize_t groups = o->into->channels, size = o->a->channels / groups;
    int32_t *sum = words_of(o->into, to, image, 0);
    int32_t *high = words_of(o->into, to, image, 1), *low = words_of(o->into, to, image, 2);
    for (Py_ssize_t g = 0; g < groups; g++) {
        int64_t all = 0, square = low[g];
        for (Py_ssize_t i = g * size; i < (g + 1) * size; i++) all += total[i], square += squares[i];
        sum[g] = (int32_t)((uint32_t)sum[g] + (uint32_t)all);
        high[g] = (int32_t)((uint32_t)high[g] + (uint32_t)(square >> LOW_BITS));
        low[g] = (int32_t)(square & ((1 << LOW_BITS) - 1));
    }
    memset(total, 0, (size_t)(groups * size) * 4);
    memset(squares, 0, (size_t)(groups * size) * 4);
}

int run_moments(engine *e, stream *s, const op *o) {
    const box *a = o->a;
    int32_t *total = (int32_t *)e->work;
    uint32_t *squares = (uint32_t *)(total + a->channels);
    place from, to;
    (void)s;
    if (locate(e, a, &from) || locate(e, o->into, &to)) return REFUSES;
    memset(total, 0, (size_t)a->channels * 8);
    for (Py_ssize_t image = 0; image < e->images; image++)
        for (Py_ssize_t row = 0; row < a->rows; row++) {
            const char *values = row_of(a, from, image, row);
            for (Py_ssize_t column = 0; column < a->columns; column++) {
                e->rows->sums[a->in->type](values, a->channels, total, squares);
                values += a->in->column_step;
                if (column % COLUMNS == COLUMNS - 1) add_to_groups(o, to, image, total, squares);
            }
            add_to_groups(o, to, image, total, squares);
        }
    return NEXT;
}

/* x[0]: zero. x[1]: table of scale and epsilon. x[2], x[3]: gain, offset. x[4]: count. */
int prepare_groupnorm(engine *e, op *o) {
    const Py_buffer *numbers = table_of(e, o->x[1], 4);
    const Py_buffer *gain = numbers ? table_of(e, o->x[2], 4) : NULL;
    const Py_buffer *offset = gain ? table_of(e, o->x[3], 4) : NULL;
    if (!offset) return -1;
    o->table[0] = gain->buf, o->table[1] = offset->buf, o->table[2] = numbers->buf;
    o->period = gain->len / 4;
    if (o->into->in->type > U8 || o->a->in->type > U8 || !same_shape(o->into, o->a) ||
        !holds_moments(o->b, o->a) || !is_zero_point(o->x[0]) || numbers->len != 8 ||
        gain->len != offset->len || o->period < 1 || o->period % o->into->channels ||
        o->x[4] < 1 || o->x[4] > MAX_COUNTED)
        return refuse("groupnorm: types, shapes or tables do not fit");
    need_work(e, o->period * 12);
    return 0;
}

/* Of an image: sum and root for each element of the period. */
static void spread_moments(const op *o, place at, Py_ssize_t image, double *total,
                           float *root) {
    const Py_ssize_t channels = o->into->channels, size = channels / o->b->channels;
    const int32_t *sums = words_of(o->b, at, image, 0);
    const int32_t *high = words_of(o->b, at, image, 1), *low = words_of(o->b, at, image, 2);
    const float epsilon = ((const float *)o->table[2])[1];
    for (Py_ssize_t i = 0; i < channels; i++) {
        const Py_ssize_t g = i / size;
        const uint64_t sum = (uint64_t)(int64_t)sums[g];
        const uint64_t squares = ((uint64_t)(int64_t)high[g] << LOW_BITS) + (uint64_t)low[g];
        const uint64_t spread = (uint64_t)o->x[4] * squares - sum * sum;
        total[i] = sums[g];
        root[i] = i % size ? root[i - 1] : sqrtf((float)(int64_t)spread + epsilon);
    }
    for (Py_ssize_t i = channels; i < o->period; i++)
        total[i] = total[i - channels], root[i] = root[i - channels];
}

int run_groupnorm(engine *e, stream *s, const op *o) {
    const box *into = o->into, *a = o->a;
    const int type = into->in->type, whole = into->packed && a->packed;
    const Py_ssize_t steps = whole ? 1 : into->columns;
    const Py_ssize_t n = whole ? into->columns * into->channels : into->channels;
    const float *gain = o->table[0], *offset = o->table[1], scale = ((const float *)o->table[2])[0];
    double *total = (double *)e->work;
    float *root = (float *)(total + o->period), real[CHUNK];
    place from, to, held;
    (void)s;
    if (locate(e, a, &from) || locate(e, into, &to) || locate(e, o->b, &held)) return REFUSES;
    for (Py_ssize_t image = 0; image < e->images; image++) {
        spread_moments(o, held, image, total, root);
        for (Py_ssize_t at = 0; at < into->rows * steps; at++) {
            const Py_ssize_t row = at / steps, column = at % steps;
            const char *source = row_of(a, from, image, row) + column * a->in->column_step;
            char *target = row_of(into, to, image, row) + column * into->in->column_step;
            for (Py_ssize_t done = 0, size; done < n; done += size) {
                const Py_ssize_t t = (column * n + done) % o->period;
                size = n - done < o->period - t ? n - done : o->period - t;
                size = size < CHUNK ? size : CHUNK;
                e->rows->standardize[a->in->type](source + done, real, size, (double)o->x[4],
                                                  total + t, root + t, gain + t, offset + t);
                e->rows->quantize[type](real, target + done, size, scale, LOW[type], HIGH[type],
                                        (int)o->x[0]);
            }
        }
    }
    return NEXT;
}
