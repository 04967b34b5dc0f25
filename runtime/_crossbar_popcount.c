/* The popcount method: few windows, one at a time. */
#include "_crossbar.h"

ALWAYS uint64_t popcount_group(const plan *p, Py_ssize_t group, int64_t columns,
                               uint64_t bits[8][WORDS], uint32_t *sums) {
    uint64_t saturated = 0;
    const uint8_t *cell = p->cells + p->first[group] * p->planes * p->bytes;
    for (int64_t c = 0; c < columns; c++, cell += p->planes * p->bytes) {
        uint32_t total = 0;
        for (int t = 7; t >= 0; t--) {
            uint32_t sum = 0;
            for (Py_ssize_t b = 0; b < p->planes; b++)
                for (Py_ssize_t first = 0; first < p->bytes; first += 8) {
                    const uint64_t word = cell_word(cell + b * p->bytes + first, p->bytes - first);
                    sum += (uint32_t)__builtin_popcountll(word & bits[t][first / 8]) << b;
                }
            saturated += sum > (uint32_t)p->adc_max;
            total = 2 * total + (sum > (uint32_t)p->adc_max ? (uint32_t)p->adc_max : sum);
        }
        sums[c] += total;
    }
    return saturated;
}

static uint64_t popcount_portable(const plan *p, Py_ssize_t group, int64_t columns,
                                  uint64_t bits[8][WORDS], uint32_t *sums) {
    return popcount_group(p, group, columns, bits, sums);
}

#if X86
AVX2 static uint64_t popcount_avx2(const plan *p, Py_ssize_t group, int64_t columns,
                                   uint64_t bits[8][WORDS], uint32_t *sums) {
    return popcount_group(p, group, columns, bits, sums);
}

/* Up to 16 word lines and 1-bit cells: 32 columns side by side in 16-bit lanes. */
AVX512 static uint64_t popcount_short(const plan *p, Py_ssize_t group, int64_t columns,
                                      uint64_t bits[8][WORDS], uint32_t *sums) {
    const __m512i limit = _mm512_set1_epi16((short)(p->adc_max < 16 ? p->adc_max : 16));
    const uint8_t *cells = p->cells + p->first[group] * p->bytes;
    __m512i input[8];
    uint64_t saturated = 0;
    for (int t = 0; t < 8; t++) input[t] = _mm512_set1_epi16((short)bits[t][0]);
    for (int64_t c = 0; c < columns; c += 32) {
        const int64_t left = columns - c;
        const __mmask32 mask = left >= 32 ? ~(__mmask32)0 : ((__mmask32)1 << left) - 1;
        const __m512i lines =
            p->bytes == 2 ? _mm512_maskz_loadu_epi16(mask, cells + 2 * c)
                          : _mm512_cvtepu8_epi16(_mm256_maskz_loadu_epi8(mask, cells + c));
        __m512i total = _mm512_setzero_si512();
        for (int t = 7; t >= 0; t--) {
            const __m512i sum = _mm512_popcnt_epi16(_mm512_and_si512(lines, input[t]));
            saturated += (uint64_t)__builtin_popcount(_mm512_cmpgt_epu16_mask(sum, limit));
            total = _mm512_add_epi16(_mm512_add_epi16(total, total), _mm512_min_epu16(sum, limit));
        }
        for (int h = 0; h < 2; h++) {
            const __mmask16 part = (__mmask16)(mask >> (16 * h));
            const __m256i shorts = h ? _mm512_extracti64x4_epi64(total, 1)
                                     : _mm512_castsi512_si256(total);
            const __m512i before = _mm512_maskz_loadu_epi32(part, sums + c + 16 * h);
            _mm512_mask_storeu_epi32(sums + c + 16 * h, part,
                                     _mm512_add_epi32(before, _mm512_cvtepu16_epi32(shorts)));
        }
    }
    return saturated;
}
#endif

uint64_t popcount_window(const plan *p, popcount_fn *count, const uint8_t *row, uint32_t *sums,
                         uint32_t *out) {
    uint64_t bits[8][WORDS], saturated = 0;
    memset(out, 0, (size_t)p->outputs * sizeof *out);
    for (Py_ssize_t list = 0; list < p->lists; list++) {
        if (is_empty(p, list)) continue;
        memset(sums, 0, (size_t)p->list_columns[list] * sizeof *sums);
        for (Py_ssize_t g = p->list_groups[list]; g < p->list_groups[list + 1]; g++) {
            line_bits(p, row, g, bits);
            saturated += count(p, g, p->list_columns[list], bits, sums);
        }
        for (int64_t e = p->list_outputs[list]; e < p->list_outputs[list + 1]; e++) {
            uint32_t sum = out[p->output[e]]; /* unsigned: wraps as the accumulators do */
            for (int64_t n = p->entry[e]; n < p->entry[e + 1]; n++)
                sum += sums[p->slot[n]] * (uint32_t)p->factor[n];
            out[p->output[e]] = sum;
        }
    }
    return saturated;
}

popcount_fn *popcount_of(const plan *p, int level) {
#if X86
    if (level >= 2 && p->planes == 1 && p->bytes <= 2) return popcount_short;
    if (level >= 1) return popcount_avx2;
#endif
    (void)level, (void)p;
    return popcount_portable;
}
