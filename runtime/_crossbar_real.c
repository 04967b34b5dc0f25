/* Operations on float32 rows: f64 inside, rounded once to f32 (isa/catalog_float.py). */
#include "_crossbar_stream.h"

/* x[0]: which one, x[1]: zero_a, x[2]: zero. table[0]: scale_a, scale and epsilon; of a layer
 * normalization table[1]: gain, table[2]: offset. */
enum { ZERO_A = 1, ZERO = 2 };

static int prepare_real(engine *e, op *o) {
    const Py_buffer *numbers = table_of(e, o->x[3], 4);
    if (!numbers) return -1;
    o->table[0] = numbers->buf;
    if (numbers->len != 12 || o->into->in->type == OTHER || o->a->in->type == OTHER ||
        !is_zero_point(o->x[ZERO_A]) || !is_zero_point(o->x[ZERO]))
        return refuse("a float operation's types or numbers do not fit");
    return 0;
}

static void taken(const engine *e, const op *o, const char *from, float *real, Py_ssize_t n) {
    e->rows->dequantize[o->a->in->type](from, real, n, ((const float *)o->table[0])[0],
                                        (int)o->x[ZERO_A]);
}

static void given(const engine *e, const op *o, const float *real, char *into, Py_ssize_t n) {
    const int type = o->into->in->type;
    e->rows->quantize[type](real, into, n, ((const float *)o->table[0])[1], LOW[type], HIGH[type],
                            (int)o->x[ZERO]);
}

/* Each run of `n` elements: the channels of a column, or a whole row where these lie together. */
static int each(engine *e, const op *o, int by_row,
                void (*one)(const engine *e, const op *o, const char *a, char *into,
                            Py_ssize_t n)) {
    const box *into = o->into, *a = o->a;
    const int whole = by_row && into->packed && a->packed;
    const Py_ssize_t steps = whole ? 1 : a->columns;
    const Py_ssize_t n = whole ? a->columns * a->channels : a->channels;
    place from, to;
    if (locate(e, a, &from) || locate(e, into, &to)) return REFUSES;
    for (Py_ssize_t image = 0; image < e->images; image++)
        for (Py_ssize_t row = 0; row < a->rows; row++) {
            const char *source = row_of(a, from, image, row);
            char *target = row_of(into, to, image, row);
            for (Py_ssize_t step = 0; step < steps; step++)
                one(e, o, source + step * a->in->column_step, target + step * into->in->column_step,
                    n);
        }
    return NEXT;
}

/* --------------------------------------------------------------- functions of one element */

static double same(double x) { return x; }

/* Abramowitz and Stegun, 7.1.26: as in isa/numerics.py */
static double error_function(double x) {
    static const double polynomial[] = {0.254829592, -0.284496736, 1.421413741, -1.453152027,
                                        1.061405429};
    const double t = 1.0 / (1.0 + 0.3275911 * fabs(x));
    double tail = 0.0;
    for (int i = sizeof polynomial / sizeof *polynomial; i-- > 0;) tail = (tail + polynomial[i]) * t;
    const double sign = x > 0.0 ? 1.0 : x < 0.0 ? -1.0 : x == 0.0 ? 0.0 : x;
    return sign * (1.0 - exp(-x * x) * tail);
}

static double (*const FUNCTIONS[])(double) = {same, exp, log, sqrt, tanh, error_function};
enum { FUNCTION_COUNT = sizeof FUNCTIONS / sizeof *FUNCTIONS };

int prepare_function(engine *e, op *o) {
    if (prepare_real(e, o) < 0) return -1;
    if (!same_shape(o->into, o->a) || o->x[0] < 0 || o->x[0] >= FUNCTION_COUNT)
        return refuse("there is no such function, or the shapes do not fit");
    return 0;
}

static void function_run(const engine *e, const op *o, const char *a, char *into, Py_ssize_t n) {
    double (*const function)(double) = FUNCTIONS[o->x[0]];
    float real[CHUNK];
    for (Py_ssize_t at = 0; at < n; at += CHUNK) {
        const Py_ssize_t size = n - at < CHUNK ? n - at : CHUNK;
        taken(e, o, a + at * o->a->in->item, real, size);
        if (function != same)
            for (Py_ssize_t i = 0; i < size; i++) real[i] = (float)function((double)real[i]);
        given(e, o, real, into + at * o->into->in->item, size);
    }
}

int run_function(engine *e, stream *s, const op *o) {
    (void)s;
    return each(e, o, 1, function_run);
}

/* --------------------------------------------------------------- along the channels */

/* The channels of a column as real values; the work memory holds them. */
static float *column_of(const engine *e, const op *o, const char *a, Py_ssize_t n) {
    float *real = (float *)(e->work + n * (Py_ssize_t)sizeof(double));
    taken(e, o, a, real, n);
    return real;
}

static void need_column(engine *e, const op *o) {
    need_work(e, o->a->channels * (Py_ssize_t)(sizeof(double) + sizeof(float)));
}

enum { SUM, MEAN, MAX, MIN, REDUCTION_COUNT };

int prepare_reduce(engine *e, op *o) {
    const box *into = o->into, *a = o->a;
    if (prepare_real(e, o) < 0) return -1;
    if (into->rows != a->rows || into->columns != a->columns || into->channels != 1 ||
        o->x[0] < 0 || o->x[0] >= REDUCTION_COUNT)
        return refuse("there is no such reduction, or the shapes do not fit");
    need_column(e, o);
    return 0;
}

static float largest(const float *real, Py_ssize_t n) {
    float most = real[0];
    for (Py_ssize_t i = 1; i < n; i++)
        if (real[i] > most || real[i] != real[i]) most = real[i];
        else if (most != most) break;
    return most;
}

static float smallest(const float *real, Py_ssize_t n) {
    float least = real[0];
    for (Py_ssize_t i = 1; i < n; i++)
        if (real[i] < least || real[i] != real[i]) least = real[i];
        else if (least != least) break;
    return least;
}

static void reduce_column(const engine *e, const op *o, const char *a, char *into, Py_ssize_t n) {
    const float *real = column_of(e, o, a, n);
    float result;
    if (o->x[0] == MAX) result = largest(real, n);
    else if (o->x[0] == MIN) result = smallest(real, n);
    else {
        double sum = real[0];
        for (Py_ssize_t i = 1; i < n; i++) sum += real[i];
        result = (float)(o->x[0] == MEAN ? sum / (double)n : sum);
    }
    given(e, o, &result, into, 1);
}

int run_reduce(engine *e, stream *s, const op *o) {
    (void)s;
    return each(e, o, 0, reduce_column);
}

int prepare_fsoftmax(engine *e, op *o) {
    if (prepare_real(e, o) < 0) return -1;
    if (!same_shape(o->into, o->a)) return refuse("fsoftmax: the shapes do not fit");
    need_column(e, o);
    return 0;
}

static void fsoftmax_column(const engine *e, const op *o, const char *a, char *into,
                            Py_ssize_t n) {
    float *real = column_of(e, o, a, n);
    double *power = (double *)e->work;
    const double most = largest(real, n);
    for (Py_ssize_t i = 0; i < n; i++) power[i] = exp((double)real[i] - most);
    double sum = power[0];
    for (Py_ssize_t i = 1; i < n; i++) sum += power[i];
    for (Py_ssize_t i = 0; i < n; i++) real[i] = (float)(power[i] / sum);
    given(e, o, real, into, n);
}

int run_fsoftmax(engine *e, stream *s, const op *o) {
    (void)s;
    return each(e, o, 0, fsoftmax_column);
}

int prepare_flayernorm(engine *e, op *o) {
    const Py_buffer *gain = table_of(e, o->x[4], 4), *offset = gain ? table_of(e, o->x[5], 4) : gain;
    if (!offset || prepare_real(e, o) < 0) return -1;
    o->table[1] = gain->buf, o->table[2] = offset->buf;
    if (!same_shape(o->into, o->a) || gain->len != 4 * o->a->channels || offset->len != gain->len)
        return refuse("flayernorm: shapes or tables do not fit");
    need_column(e, o);
    return 0;
}

static void flayernorm_column(const engine *e, const op *o, const char *a, char *into,
                              Py_ssize_t n) {
    float *real = column_of(e, o, a, n);
    const float *gain = o->table[1], *offset = o->table[2];
    double *distance = (double *)e->work, sum = real[0], squares;
    for (Py_ssize_t i = 1; i < n; i++) sum += real[i];
    const double mean = sum / (double)n;
    for (Py_ssize_t i = 0; i < n; i++) distance[i] = (double)real[i] - mean;
    squares = distance[0] * distance[0];
    for (Py_ssize_t i = 1; i < n; i++) squares += distance[i] * distance[i];
    const double root = sqrt(squares / (double)n + (double)((const float *)o->table[0])[2]);
    for (Py_ssize_t i = 0; i < n; i++)
        real[i] = (float)(distance[i] / root * (double)gain[i] + (double)offset[i]);
    given(e, o, real, into, n);
}

int run_flayernorm(engine *e, stream *s, const op *o) {
    (void)s;
    return each(e, o, 0, flayernorm_column);
}
