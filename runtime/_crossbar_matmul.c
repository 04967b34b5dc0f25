/* The product of two computed matrices, by the gemm of the crossbars. */
#include "_crossbar_stream.h"

/* With u = a + 128 where a is s8, and v = b - 128 where b is u8, and zero points moved alike:
 * sum (u - zu)(v - zv) = sum u v - zv sum u - zu sum v + K zu zv, all in 32 bits that wrap. */

typedef struct {
    Py_ssize_t windows, inputs, outputs, depth, tiles;
    uint8_t *u;        /* [windows][inputs] */
    int8_t *v;         /* as gemm wants its weights */
    int32_t *sums;     /* [windows][outputs] */
    uint32_t *of_u, *of_v; /* sums over the inputs, [windows] and [outputs] */
} work;

/* The parts of `memory`, each at a multiple of 64 bytes; the number of bytes is returned. */
static Py_ssize_t work_of(const op *o, uint8_t *memory, work *w) {
    w->windows = o->into->columns, w->inputs = o->a->channels, w->outputs = o->into->channels;
    w->depth = (w->inputs + DEPTH - 1) / DEPTH, w->tiles = (w->outputs + OUTS - 1) / OUTS;
    const Py_ssize_t sizes[] = {w->windows * w->inputs, w->tiles * w->depth * OUTS * DEPTH,
                                w->windows * w->outputs * 4, w->windows * 4, w->outputs * 4};
    Py_ssize_t offsets[5], total = 0;
    for (int i = 0; i < 5; i++) {
        offsets[i] = total;
        total += (sizes[i] + 63) / 64 * 64;
    }
    if (!memory) return total;
    w->u = memory, w->v = (int8_t *)memory + offsets[1], w->sums = (int32_t *)(memory + offsets[2]);
    w->of_u = (uint32_t *)(memory + offsets[3]), w->of_v = (uint32_t *)(memory + offsets[4]);
    return total;
}

/* x: zeros of a, b and the result, and a table of one scale. */
int prepare_matmul(engine *e, op *o) {
    const box *a = o->a, *b = o->b, *into = o->into;
    const Py_buffer *scale = table_of(e, o->x[3], 4);
    work w;
    if (!scale) return -1;
    o->table[0] = scale->buf;
    if (a->in->type > U8 || b->in->type > U8 || into->in->type == OTHER || into->in->type == S32 || scale->len != 4 ||
        a->rows != into->rows || b->rows != into->rows || a->columns != into->columns ||
        b->columns != a->channels || b->channels != into->channels || a->channels > MAX_INPUTS ||
        into->columns > MAX_SIDE || into->channels > MAX_INPUTS || !is_zero_point(o->x[0]) ||
        !is_zero_point(o->x[1]) || !is_zero_point(o->x[2]))
        return refuse("matmul: types, shapes or zero points do not fit");
    need_work(e, work_of(o, NULL, &w));
    return 0;
}

static void take_a(const engine *e, const op *o, const char *row, const work *w) {
    const Py_ssize_t inputs = w->inputs;
    for (Py_ssize_t i = 0; i < w->windows; i++)
        memcpy(w->u + i * inputs, row + i * o->a->in->column_step, (size_t)inputs);
    if (o->a->in->type == S8) e->rows->flip(w->u, w->windows * inputs);
    for (Py_ssize_t i = 0; i < w->windows; i++) {
        uint32_t sum = 0;
        for (Py_ssize_t k = 0; k < inputs; k++) sum += w->u[i * inputs + k];
        w->of_u[i] = sum;
    }
}

static void take_b(const op *o, const char *row, const work *w) {
    const int flip = o->b->in->type == U8 ? 0x80 : 0;
    memset(w->v, 0, (size_t)(w->tiles * w->depth * OUTS * DEPTH));
    memset(w->of_v, 0, (size_t)w->outputs * 4);
    for (Py_ssize_t k = 0; k < w->inputs; k++) {
        const uint8_t *values = (const uint8_t *)row + k * o->b->in->column_step;
        int8_t *to = w->v + k / DEPTH * OUTS * DEPTH + k % DEPTH;
        for (Py_ssize_t first = 0; first < w->outputs; first += OUTS) {
            const Py_ssize_t count = w->outputs - first < OUTS ? w->outputs - first : OUTS;
            for (Py_ssize_t i = 0; i < count; i++) {
                const int8_t value = (int8_t)(values[first + i] ^ flip);
                to[i * DEPTH] = value;
                w->of_v[first + i] += (uint32_t)value;
            }
            to += w->depth * OUTS * DEPTH;
        }
    }
}

int run_matmul(engine *e, stream *s, const op *o) {
    static const int32_t none[OUTS] = {0};
    const box *into = o->into;
    const int type = into->in->type;
    const uint32_t zu = (uint32_t)(o->x[0] + (o->a->in->type == S8 ? 128 : 0));
    const uint32_t zv = (uint32_t)(o->x[1] - (o->b->in->type == U8 ? 128 : 0));
    float scales[OUTS];
    place from, with, to;
    work w;
    (void)s;
    if (locate(e, o->a, &from) || locate(e, o->b, &with) || locate(e, into, &to)) return REFUSES;
    work_of(o, e->work, &w);
    for (int i = 0; i < OUTS; i++) scales[i] = *(const float *)o->table[0];
    for (Py_ssize_t image = 0; image < e->images; image++)
        for (Py_ssize_t row = 0; row < into->rows; row++) {
            take_a(e, o, row_of(o->a, from, image, row), &w);
            take_b(o, row_of(o->b, with, image, row), &w);
            gemm_of(e->level)(w.u, w.v, w.sums, w.windows, w.inputs, w.outputs);
            for (Py_ssize_t i = 0; i < w.windows; i++) {
                const uint32_t constant = (uint32_t)w.inputs * zu * zv - zv * w.of_u[i];
                char *target = row_of(into, to, image, row) + i * into->in->column_step;
                for (Py_ssize_t c = 0; c < w.outputs; c += OUTS) {
                    const Py_ssize_t count = w.outputs - c < OUTS ? w.outputs - c : OUTS;
                    int32_t *sums = w.sums + i * w.outputs + c;
                    for (Py_ssize_t n = 0; n < count; n++)
                        sums[n] = (int32_t)((uint32_t)sums[n] + constant - zu * w.of_v[c + n]);
                    e->rows->requantize[type](sums, none, scales, target + c * into->in->item, count, LOW[type],
                                              HIGH[type], (int)o->x[2]);
                }
            }
        }
    return NEXT;
}
