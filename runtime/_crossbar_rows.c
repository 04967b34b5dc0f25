/* Arithmetic on a run of elements: isa/numerics.py to the last bit.
 *
 * Compiled with -ffp-contract=off: each operation rounds to float32 on its own. A body is written
 * once and compiled for each level.
 */
#include "_crossbar_stream.h"

#if defined(__FAST_MATH__) || (defined(__FLT_EVAL_METHOD__) && __FLT_EVAL_METHOD__ != 0)
#error "each float32 operation has to round on its own"
#endif

/* `sat(rint(real) + zero)`: the bounds are whole numbers, so that the clamp may come first. Below
 * 2^22 adding and taking away 1.5 * 2^23 rounds half to even. What is no number becomes `low`. */
ALWAYS int32_t finish(float real, int low, int high, int zero) {
    const float magic = 12582912.0f, least = (float)(low - zero), most = (float)(high - zero);
    real = real > least ? real : least;
    real = real < most ? real : most;
    return (int32_t)((real + magic) - magic) + zero;
}

/* The same into s32, where float32 does not hold every whole number: `high` is the largest that it
 * does, and the sum with the zero point rounds, too. Of a requantization the clamp comes first. */
ALWAYS int32_t finish_s32(float real, int low, int high, int zero, int clamp_first) {
    const float least = (float)((int64_t)low - (clamp_first ? zero : 0));
    const float most = (float)((int64_t)high - (clamp_first ? zero : 0));
    if (!clamp_first) real = rintf(real) + (float)zero;
    real = real > least ? real : least;
    real = real < most ? real : most;
    if (clamp_first) real = rintf(real) + (float)zero;
    return (int32_t)(real < (float)high ? real : (float)high);
}

#define REQUANTIZE(name, type)                                                                    \
    ALWAYS void name(const int32_t *restrict sums, const int32_t *restrict bias,                  \
                     const float *restrict scale, char *restrict into, Py_ssize_t n, int low,     \
                     int high, int zero) {                                                        \
        type *to = (type *)into;                                                                  \
        for (Py_ssize_t i = 0; i < n; i++) {                                                      \
            const int32_t sum = (int32_t)((uint32_t)sums[i] + (uint32_t)bias[i]);                 \
            to[i] = (type)finish((float)sum * scale[i], low, high, zero);                         \
        }                                                                                         \
    }
REQUANTIZE(requantize_s8, int8_t)
REQUANTIZE(requantize_u8, uint8_t)

ALWAYS void requantize_s32(const int32_t *restrict sums, const int32_t *restrict bias,
                           const float *restrict scale, char *restrict into, Py_ssize_t n, int low,
                           int high, int zero) {
    int32_t *to = (int32_t *)into;
    for (Py_ssize_t i = 0; i < n; i++) {
        const int32_t sum = (int32_t)((uint32_t)sums[i] + (uint32_t)bias[i]);
        to[i] = finish_s32((float)sum * scale[i], low, high, zero, 1);
    }
}

ALWAYS void requantize_f32(const int32_t *restrict sums, const int32_t *restrict bias,
                           const float *restrict scale, char *restrict into, Py_ssize_t n, int low,
                           int high, int zero) {
    float *to = (float *)into;
    (void)low, (void)high, (void)zero;
    for (Py_ssize_t i = 0; i < n; i++)
        to[i] = (float)(int32_t)((uint32_t)sums[i] + (uint32_t)bias[i]) * scale[i];
}

#define DEQUANTIZE(name, type)                                                                    \
    ALWAYS void name(const char *from, float *restrict real, Py_ssize_t n, float scale,           \
                     int zero) {                                                                  \
        const type *values = (const type *)from;                                                  \
        for (Py_ssize_t i = 0; i < n; i++)                                                        \
            real[i] = (float)(int32_t)((uint32_t)values[i] - (uint32_t)zero) * scale;             \
    }
DEQUANTIZE(dequantize_s8, int8_t)
DEQUANTIZE(dequantize_u8, uint8_t)
DEQUANTIZE(dequantize_s32, int32_t)

ALWAYS void dequantize_f32(const char *from, float *restrict real, Py_ssize_t n, float scale,
                           int zero) {
    (void)scale, (void)zero;
    memcpy(real, from, (size_t)n * sizeof *real);
}

#define COMBINE(name, expression)                                                                 \
    ALWAYS void name(float *restrict a, const float *restrict b, Py_ssize_t n) {                  \
        for (Py_ssize_t i = 0; i < n; i++) a[i] = expression;                                     \
    }
COMBINE(add, a[i] + b[i])
COMBINE(sub, a[i] - b[i])
COMBINE(mul, a[i] * b[i])
/* What is no number wins, as in NumPy. */
COMBINE(max, a[i] > b[i] || a[i] != a[i] ? a[i] : b[i])
COMBINE(min, a[i] < b[i] || a[i] != a[i] ? a[i] : b[i])
COMBINE(divide, a[i] / b[i])
COMBINE(power, (float)pow((double)a[i], (double)b[i]))

#define QUANTIZE(name, type)                                                                      \
    ALWAYS void name(const float *restrict real, char *restrict into, Py_ssize_t n, float scale,  \
                     int low, int high, int zero) {                                               \
        type *to = (type *)into;                                                                  \
        for (Py_ssize_t i = 0; i < n; i++)                                                        \
            to[i] = (type)finish(real[i] / scale, low, high, zero);                               \
    }
QUANTIZE(quantize_s8, int8_t)
QUANTIZE(quantize_u8, uint8_t)

ALWAYS void quantize_s32(const float *restrict real, char *restrict into, Py_ssize_t n, float scale,
                         int low, int high, int zero) {
    int32_t *to = (int32_t *)into;
    for (Py_ssize_t i = 0; i < n; i++) to[i] = finish_s32(real[i] / scale, low, high, zero, 0);
}

ALWAYS void quantize_f32(const float *restrict real, char *restrict into, Py_ssize_t n, float scale,
                         int low, int high, int zero) {
    (void)scale, (void)low, (void)high, (void)zero;
    memcpy(into, real, (size_t)n * sizeof *real);
}

ALWAYS void accumulate(int32_t *into, const int32_t *from, Py_ssize_t n) {
    for (Py_ssize_t i = 0; i < n; i++) into[i] = (int32_t)((uint32_t)into[i] + (uint32_t)from[i]);
}

ALWAYS void flip(uint8_t *bytes, Py_ssize_t n) {
    for (Py_ssize_t i = 0; i < n; i++) bytes[i] ^= 0x80;
}

#define REDUCE(name, total, type, expression)                                                     \
    ALWAYS void name(char *restrict into, const char *restrict from, Py_ssize_t n) {              \
        total *t = (total *)into;                                                                 \
        const type *v = (const type *)from;                                                       \
        for (Py_ssize_t i = 0; i < n; i++) t[i] = expression;                                     \
    }
REDUCE(max_s8, int8_t, int8_t, t[i] > v[i] ? t[i] : v[i])
REDUCE(max_u8, uint8_t, uint8_t, t[i] > v[i] ? t[i] : v[i])
REDUCE(sum_s8, int32_t, int8_t, (int32_t)((uint32_t)t[i] + (uint32_t)v[i]))
REDUCE(sum_u8, int32_t, uint8_t, (int32_t)((uint32_t)t[i] + (uint32_t)v[i]))

/* Exact sums of the values and of their squares. */
#define MOMENTS(name, type)                                                                       \
    ALWAYS void name(const char *from, Py_ssize_t n, int64_t *total, int64_t *squares) {          \
        const type *values = (const type *)from;                                                  \
        for (Py_ssize_t at = 0; at < n; at += 16384) { /* 16384 * 255 * 255 < 2^31 */             \
            const Py_ssize_t end = n - at < 16384 ? n : at + 16384;                               \
            int32_t sum = 0, square = 0;                                                          \
            for (Py_ssize_t i = at; i < end; i++) {                                               \
                sum += values[i];                                                                 \
                square += values[i] * values[i];                                                  \
            }                                                                                     \
            *total += sum, *squares += square;                                                    \
        }                                                                                         \
    }
MOMENTS(moments_s8, int8_t)
MOMENTS(moments_u8, uint8_t)

/* `(count * value - total) / root * gain + offset`; the difference fits 32 bits. */
#define CENTER(name, type)                                                                        \
    ALWAYS void name(const char *from, float *restrict real, Py_ssize_t n, int count, int total,  \
                     float root, const float *restrict gain, const float *restrict offset) {      \
        const type *values = (const type *)from;                                                  \
        for (Py_ssize_t i = 0; i < n; i++)                                                        \
            real[i] = (float)(count * values[i] - total) / root * gain[i] + offset[i];            \
    }
CENTER(center_s8, int8_t)
CENTER(center_u8, uint8_t)

/* Each value and its square to the sums of its place. */
#define SUMS(name, type)                                                                          \
    ALWAYS void name(const char *from, Py_ssize_t n, int32_t *restrict total,                     \
                     uint32_t *restrict squares) {                                                \
        const type *values = (const type *)from;                                                  \
        for (Py_ssize_t i = 0; i < n; i++) {                                                      \
            total[i] += values[i];                                                                \
            squares[i] += (uint32_t)(values[i] * values[i]);                                      \
        }                                                                                         \
    }
SUMS(sums_s8, int8_t)
SUMS(sums_u8, uint8_t)

/* `f32(count * value - total) / root * gain + offset`; float64 holds the difference. */
#define STANDARDIZE(name, type)                                                                   \
    ALWAYS void name(const char *from, float *restrict real, Py_ssize_t n, double count,          \
                     const double *restrict total, const float *restrict root,                    \
                     const float *restrict gain, const float *restrict offset) {                  \
        const type *values = (const type *)from;                                                  \
        for (Py_ssize_t i = 0; i < n; i++) {                                                      \
            const float distance = (float)(count * (double)values[i] - total[i]);                 \
            real[i] = distance / root[i] * gain[i] + offset[i];                                   \
        }                                                                                         \
    }
STANDARDIZE(standardize_s8, int8_t)
STANDARDIZE(standardize_u8, uint8_t)

/* One body at one level, under its own name. */
#define AT(level, attribute, name, parameters, ...)                                               \
    attribute static void name##_##level parameters { name(__VA_ARGS__); }
#define REQUANTIZE_AT(level, attribute, name)                                                     \
    AT(level, attribute, name,                                                                    \
       (const int32_t *s, const int32_t *b, const float *f, char *t, Py_ssize_t n, int l, int h,  \
        int z), s, b, f, t, n, l, h, z)
#define DEQUANTIZE_AT(level, attribute, name)                                                     \
    AT(level, attribute, name, (const char *f, float *r, Py_ssize_t n, float s, int z),           \
       f, r, n, s, z)
#define COMBINE_AT(level, attribute, name)                                                        \
    AT(level, attribute, name, (float *a, const float *b, Py_ssize_t n), a, b, n)
#define QUANTIZE_AT(level, attribute, name)                                                       \
    AT(level, attribute, name,                                                                    \
       (const float *r, char *t, Py_ssize_t n, float s, int l, int h, int z), r, t, n, s, l, h, z)
#define REDUCE_AT(level, attribute, name)                                                         \
    AT(level, attribute, name, (char *t, const char *v, Py_ssize_t n), t, v, n)

#define MOMENTS_AT(level, attribute, name)                                                        \
    AT(level, attribute, name, (const char *f, Py_ssize_t n, int64_t *t, int64_t *q), f, n, t, q)
#define CENTER_AT(level, attribute, name)                                                         \
    AT(level, attribute, name,                                                                    \
       (const char *f, float *r, Py_ssize_t n, int c, int t, float d, const float *g,             \
        const float *o), f, r, n, c, t, d, g, o)
#define SUMS_AT(level, attribute, name)                                                           \
    AT(level, attribute, name, (const char *f, Py_ssize_t n, int32_t *t, uint32_t *q), f, n, t, q)
#define STANDARDIZE_AT(level, attribute, name)                                                    \
    AT(level, attribute, name,                                                                    \
       (const char *f, float *r, Py_ssize_t n, double c, const double *t, const float *d,         \
        const float *g, const float *o), f, r, n, c, t, d, g, o)

#define KERNELS(level, attribute)                                                                 \
    REQUANTIZE_AT(level, attribute, requantize_s8)                                                \
    REQUANTIZE_AT(level, attribute, requantize_u8)                                                \
    REQUANTIZE_AT(level, attribute, requantize_s32)                                               \
    REQUANTIZE_AT(level, attribute, requantize_f32)                                               \
    DEQUANTIZE_AT(level, attribute, dequantize_s8)                                                \
    DEQUANTIZE_AT(level, attribute, dequantize_u8)                                                \
    DEQUANTIZE_AT(level, attribute, dequantize_s32)                                               \
    DEQUANTIZE_AT(level, attribute, dequantize_f32)                                               \
    COMBINE_AT(level, attribute, add)                                                             \
    COMBINE_AT(level, attribute, sub)                                                             \
    COMBINE_AT(level, attribute, mul)                                                             \
    COMBINE_AT(level, attribute, max)                                                             \
    COMBINE_AT(level, attribute, min)                                                             \
    COMBINE_AT(level, attribute, divide)                                                          \
    COMBINE_AT(level, attribute, power)                                                           \
    QUANTIZE_AT(level, attribute, quantize_s8)                                                    \
    QUANTIZE_AT(level, attribute, quantize_u8)                                                    \
    QUANTIZE_AT(level, attribute, quantize_s32)                                                   \
    QUANTIZE_AT(level, attribute, quantize_f32)                                                   \
    AT(level, attribute, accumulate, (int32_t *t, const int32_t *f, Py_ssize_t n), t, f, n)       \
    AT(level, attribute, flip, (uint8_t *b, Py_ssize_t n), b, n)                                  \
    REDUCE_AT(level, attribute, max_s8)                                                           \
    REDUCE_AT(level, attribute, max_u8)                                                           \
    REDUCE_AT(level, attribute, sum_s8)                                                           \
    REDUCE_AT(level, attribute, sum_u8)                                                           \
    MOMENTS_AT(level, attribute, moments_s8)                                                      \
    MOMENTS_AT(level, attribute, moments_u8)                                                      \
    CENTER_AT(level, attribute, center_s8)                                                        \
    CENTER_AT(level, attribute, center_u8)                                                        \
    SUMS_AT(level, attribute, sums_s8)                                                            \
    SUMS_AT(level, attribute, sums_u8)                                                            \
    STANDARDIZE_AT(level, attribute, standardize_s8)                                              \
    STANDARDIZE_AT(level, attribute, standardize_u8)                                              \
    static const row_kernels kernels_##level = {                                                  \
        {requantize_s8_##level, requantize_u8_##level, requantize_s32_##level,                    \
         requantize_f32_##level},                                                                 \
        {dequantize_s8_##level, dequantize_u8_##level, dequantize_s32_##level,                    \
         dequantize_f32_##level},                                                                 \
        {add_##level, sub_##level, mul_##level, max_##level, min_##level, divide_##level,         \
         power_##level},                                                                          \
        {quantize_s8_##level, quantize_u8_##level, quantize_s32_##level,                          \
         quantize_f32_##level},                                                                   \
        accumulate_##level,                                                                       \
        flip_##level,                                                                             \
        {max_s8_##level, max_u8_##level, sum_s8_##level, sum_u8_##level},                         \
        {moments_s8_##level, moments_u8_##level},                                                 \
        {center_s8_##level, center_u8_##level},                                                   \
        {sums_s8_##level, sums_u8_##level},                                                       \
        {standardize_s8_##level, standardize_u8_##level},                                         \
    };

KERNELS(portable, )
#if X86
KERNELS(avx2, AVX2)
KERNELS(avx512, AVX512)
#endif

const row_kernels *row_kernels_of(int level) {
#if X86
    if (level >= 2) return &kernels_avx512;
    if (level >= 1) return &kernels_avx2;
#endif
    (void)level;
    return &kernels_portable;
}
