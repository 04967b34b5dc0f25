/* The excess method: what the ADC cuts off, looked for only where a clip is possible. */
#include "_crossbar.h"

/* Estimated cycles, measured on Zen 4, that decide between excess and the others; a wrong guess
 * costs time, never a result. */
enum { WORK_RUN = 32, WORK_GATHER = 64, WORK_HIT = 20, WORK_COMPARE = 3, WORK_CLIP = 8, WORK_ROUTE = 2 };

/* Subtract from `out` what the ADC cuts off column `danger` at input bit t. */
ALWAYS void cut(const plan *p, int64_t danger, uint32_t excess, uint32_t *out,
                excess_result *result) {
    const int64_t from = p->danger_route[danger], to = p->danger_route[danger + 1];
    for (int64_t n = from; n < to; n++)
        out[p->danger_output[n]] -= excess * (uint32_t)p->danger_factor[n];
    result->saturated++;
    result->work += WORK_CLIP + WORK_ROUTE * (uint64_t)(to - from);
}

/* Dangerous columns of a group that clip at bit t; sums: room for all of them. */
ALWAYS void excess_wide(const plan *p, Py_ssize_t g, uint64_t bits[8][WORDS], int t,
                        uint32_t *restrict sums, uint32_t *out, excess_result *result) {
    const int64_t first = p->danger_first[g], count = p->danger_first[g + 1] - first;
    const uint64_t *words = p->danger_words + first * p->planes * p->words;
    memset(sums, 0, (size_t)count * sizeof *sums);
    for (Py_ssize_t b = 0; b < p->planes; b++)
        for (Py_ssize_t i = 0; i < p->words; i++, words += count) {
            const uint64_t line = bits[t][i];
            for (int64_t c = 0; c < count; c++)
                sums[c] += (uint32_t)__builtin_popcountll(words[c] & line) << b;
        }
    const uint32_t limit = (uint32_t)p->adc_max;
    for (int64_t c = 0; c < count; c++)
        if (sums[c] > limit) cut(p, first + c, (sums[c] - limit) << t, out, result);
    result->work += WORK_HIT + (uint64_t)(count * p->planes * p->words * WORK_COMPARE / 8);
}

ALWAYS void excess_short(const plan *p, Py_ssize_t g, uint16_t line, int t, uint32_t *out,
                         excess_result *result) {
    const int64_t first = p->danger_first[g], stop = p->danger_first[g + 1];
    for (int64_t c = first; c < stop; c++) {
        const int sum = __builtin_popcount(p->danger_short[c] & line);
        if (sum > p->adc_max) cut(p, c, (uint32_t)(sum - p->adc_max) << t, out, result);
    }
    result->work += WORK_HIT + (uint64_t)((stop - first) * WORK_COMPARE / 2);
}

#if X86
AVX512 ALWAYS void excess_short_avx512(const plan *p, Py_ssize_t g, uint16_t line, int t,
                                       uint32_t *out, excess_result *result) {
    const int64_t first = p->danger_first[g], stop = p->danger_first[g + 1];
    const __m512i input = _mm512_set1_epi16((short)line);
    const __m512i limit = _mm512_set1_epi16((short)p->adc_max); /* below 16, or nothing clips */
    for (int64_t c = first; c < stop; c += 32) { /* danger_short is 32 longer than its content */
        const __m512i cells = _mm512_loadu_si512(p->danger_short + c);
        const __m512i sum = _mm512_popcnt_epi16(_mm512_and_si512(cells, input));
        uint32_t above = _mm512_cmpgt_epu16_mask(sum, limit);
        if (stop - c < 32) above &= (1u << (stop - c)) - 1;
        for (; above; above &= above - 1) {
            const int64_t danger = c + __builtin_ctz(above);
            const int clipped = __builtin_popcount(p->danger_short[danger] & line) - p->adc_max;
            cut(p, danger, (uint32_t)clipped << t, out, result);
        }
    }
    result->work += WORK_HIT + (uint64_t)((stop - first) / 32 + 1) * WORK_COMPARE;
}
#endif

/* The word lines of a group as eight 16-bit patterns, one an input bit. */
ALWAYS void short_bits(const plan *p, const uint8_t *row, Py_ssize_t g, uint16_t bits[8]) {
    if (p->run_first[g] >= 0) { /* neighbouring inputs: row has 16 bytes beyond its end */
        uint64_t words[2];
        memcpy(words, row + p->run_first[g], sizeof words);
        sixteen_bits(words[0] & p->run_mask[2 * g], words[1] & p->run_mask[2 * g + 1], bits);
        return;
    }
    const int32_t *rows = p->rows + g * p->lines;
    const int lines = (int)p->lines;
    sixteen_bits(eight_lanes(row, rows, lines < 8 ? lines : 8),
                 lines > 8 ? eight_lanes(row, rows + 8, lines - 8) : 0, bits);
}

/* All groups of one window; returns 0 when it stopped half-way, with a useless `out`. A clip needs
 * more than adc_max set inputs; with larger cells that many times the largest cell. */
#define EXCESS_WINDOW(name, attribute, short_group)                                              \
    attribute static int name(const plan *p, const uint8_t *row, uint32_t *sums, uint32_t *out,  \
                              excess_result *result) {                                           \
        uint64_t bits[8][WORDS];                                                                 \
        uint16_t lines[8];                                                                       \
        const int cell = (1 << p->planes) - 1;                                                   \
        for (Py_ssize_t g = 0; g < p->groups; g++) {                                             \
            result->work += p->run_first[g] >= 0 ? WORK_RUN : WORK_GATHER;                       \
            if (result->work > result->budget) return 0;                                         \
            if (p->danger_first[g] == p->danger_first[g + 1]) continue;                          \
            if (p->danger_short) {                                                               \
                short_bits(p, row, g, lines);                                                    \
                for (int t = 0; t < 8; t++)                                                      \
                    if (__builtin_popcount(lines[t]) > p->adc_max)                               \
                        short_group(p, g, lines[t], t, out, result);                             \
                continue;                                                                        \
            }                                                                                    \
            line_bits(p, row, g, bits);                                                          \
            for (int t = 0; t < 8; t++) {                                                        \
                int set = 0;                                                                     \
                for (Py_ssize_t i = 0; i < p->words; i++)                                        \
                    set += __builtin_popcountll(bits[t][i]);                                     \
                if (set * cell > p->adc_max) excess_wide(p, g, bits, t, sums, out, result);      \
            }                                                                                    \
        }                                                                                        \
        return result->work <= result->budget;                                                   \
    }

EXCESS_WINDOW(excess_portable, , excess_short)
#if X86
EXCESS_WINDOW(excess_avx2, AVX2, excess_short)
EXCESS_WINDOW(excess_avx512, AVX512, excess_short_avx512)
#endif

excess_fn *excess_of(int level) {
#if X86
    if (level >= 2) return excess_avx512;
    if (level >= 1) return excess_avx2;
#endif
    (void)level;
    return excess_portable;
}
