/* The linear path: u8 [windows, inputs] x s8 weights, exactly. */
#include "_crossbar.h"

ALWAYS uint32_t four_inputs(const uint8_t *row, Py_ssize_t step, Py_ssize_t inputs) {
    uint32_t word = 0;
    if (step * DEPTH + DEPTH <= inputs) memcpy(&word, row + step * DEPTH, DEPTH);
    else memcpy(&word, row + step * DEPTH, (size_t)(inputs - step * DEPTH));
    return word;
}

static void gemm_portable(const uint8_t *u, const int8_t *weights, int32_t *out,
                          Py_ssize_t windows, Py_ssize_t inputs, Py_ssize_t outputs) {
    const Py_ssize_t depth = (inputs + DEPTH - 1) / DEPTH;
    for (Py_ssize_t first = 0; first < outputs; first += OUTS) {
        const int8_t *tile = weights + first * depth * DEPTH;
        const Py_ssize_t count = outputs - first < OUTS ? outputs - first : OUTS;
        for (Py_ssize_t w = 0; w < windows; w++) {
            int32_t sums[OUTS] = {0};
            for (Py_ssize_t k = 0; k < inputs; k++) {
                const int8_t *column = tile + (k / DEPTH) * OUTS * DEPTH + k % DEPTH;
                for (int o = 0; o < OUTS; o++) sums[o] += u[w * inputs + k] * column[o * DEPTH];
            }
            memcpy(out + w * outputs + first, sums, (size_t)count * sizeof *sums);
        }
    }
}

#if X86
AVX2 static void gemm_avx2(const uint8_t *u, const int8_t *weights, int32_t *out,
                           Py_ssize_t windows, Py_ssize_t inputs, Py_ssize_t outputs) {
    /* 16-bit multiply-add of even and odd bytes apart: the 8-bit one would saturate */
    enum { ROWS = 4 };
    const Py_ssize_t depth = (inputs + DEPTH - 1) / DEPTH;
    const __m256i low = _mm256_set1_epi32(0x00ff00ff);
    for (Py_ssize_t first = 0; first < outputs; first += OUTS) {
        const int8_t *tile = weights + first * depth * DEPTH;
        const Py_ssize_t count = outputs - first < OUTS ? outputs - first : OUTS;
        for (Py_ssize_t w = 0; w < windows; w += ROWS) {
            __m256i sums[ROWS][2];
            const uint8_t *rows[ROWS];
            for (int r = 0; r < ROWS; r++) { /* a missing row repeats the last one */
                rows[r] = u + (w + r < windows ? w + r : windows - 1) * inputs;
                sums[r][0] = sums[r][1] = _mm256_setzero_si256();
            }
            for (Py_ssize_t step = 0; step < depth; step++) {
                const __m256i *cell = (const __m256i *)(tile + step * OUTS * DEPTH);
                __m256i even[2], odd[2];
                for (int h = 0; h < 2; h++) {
                    const __m256i bytes = _mm256_loadu_si256(cell + h);
                    even[h] = _mm256_srai_epi16(_mm256_slli_epi16(bytes, 8), 8);
                    odd[h] = _mm256_srai_epi16(bytes, 8);
                }
                for (int r = 0; r < ROWS; r++) {
                    const __m256i word =
                        _mm256_set1_epi32((int)four_inputs(rows[r], step, inputs));
                    const __m256i a = _mm256_and_si256(word, low), b = _mm256_srli_epi16(word, 8);
                    for (int h = 0; h < 2; h++)
                        sums[r][h] = _mm256_add_epi32(
                            sums[r][h], _mm256_add_epi32(_mm256_madd_epi16(a, even[h]),
                                                         _mm256_madd_epi16(b, odd[h])));
                }
            }
            for (int r = 0; r < ROWS && w + r < windows; r++)
                memcpy(out + (w + r) * outputs + first, sums[r], (size_t)count * sizeof *out);
        }
    }
}

/* One step of four inputs; `rows` x `tiles` accumulators: both are constants once inlined. */
AVX512 ALWAYS void gemm_vnni_step(__m512i sums[6][4], const int8_t *weights, Py_ssize_t depth,
                                  const uint32_t *words, const int rows, const int tiles) {
    __m512i cells[4];
    for (int t = 0; t < tiles; t++)
        cells[t] = _mm512_loadu_si512(weights + t * depth * OUTS * DEPTH);
    for (int r = 0; r < rows; r++)
        for (int t = 0; t < tiles; t++)
            /* the intrinsic makes gcc copy every accumulator once a step, at half the speed */
            __asm__("vpdpbusd %2, %1, %0"
                    : "+v"(sums[r][t])
                    : "v"(_mm512_set1_epi32((int)words[r])), "v"(cells[t]));
}

AVX512 ALWAYS void gemm_vnni_block(const uint8_t *u, const int8_t *weights, int32_t *out,
                                   Py_ssize_t inputs, Py_ssize_t outputs, Py_ssize_t left,
                                   const int rows, const int tiles) {
    const Py_ssize_t depth = (inputs + DEPTH - 1) / DEPTH, whole = inputs / DEPTH;
    __m512i sums[6][4];
    uint32_t words[6];
    for (int r = 0; r < rows; r++)
        for (int t = 0; t < tiles; t++) sums[r][t] = _mm512_setzero_si512();
    for (Py_ssize_t step = 0; step < whole; step++) {
        for (int r = 0; r < rows; r++) memcpy(&words[r], u + r * inputs + step * DEPTH, DEPTH);
        gemm_vnni_step(sums, weights + step * OUTS * DEPTH, depth, words, rows, tiles);
    }
    if (whole < depth) {
        for (int r = 0; r < rows; r++) words[r] = four_inputs(u + r * inputs, whole, inputs);
        gemm_vnni_step(sums, weights + whole * OUTS * DEPTH, depth, words, rows, tiles);
    }
    for (int r = 0; r < rows; r++)
        for (int t = 0; t < tiles; t++) {
            const Py_ssize_t count = left - t * OUTS;
            const __mmask16 mask = count >= OUTS ? 0xffff : (__mmask16)((1u << count) - 1);
            _mm512_mask_storeu_epi32(out + r * outputs + t * OUTS, mask, sums[r][t]);
        }
}

AVX512 ALWAYS void gemm_vnni_panel(const uint8_t *u, const int8_t *weights, int32_t *out,
                                   Py_ssize_t windows, Py_ssize_t inputs, Py_ssize_t outputs,
                                   Py_ssize_t left, const int tiles) {
    Py_ssize_t w = 0;
    for (; w + 6 <= windows; w += 6)
        gemm_vnni_block(u + w * inputs, weights, out + w * outputs, inputs, outputs, left, 6,
                        tiles);
    for (; w + 3 <= windows; w += 3)
        gemm_vnni_block(u + w * inputs, weights, out + w * outputs, inputs, outputs, left, 3,
                        tiles);
    for (; w < windows; w++)
        gemm_vnni_block(u + w * inputs, weights, out + w * outputs, inputs, outputs, left, 1,
                        tiles);
}

AVX512 static void gemm_avx512(const uint8_t *u, const int8_t *weights, int32_t *out,
                               Py_ssize_t windows, Py_ssize_t inputs, Py_ssize_t outputs) {
    const Py_ssize_t depth = (inputs + DEPTH - 1) / DEPTH;
    for (Py_ssize_t first = 0; first < outputs;) {
        const int8_t *panel = weights + first * depth * DEPTH;
        const Py_ssize_t left = outputs - first, tiles = (left + OUTS - 1) / OUTS;
        if (tiles >= 4) {
            gemm_vnni_panel(u, panel, out + first, windows, inputs, outputs, left, 4);
            first += 4 * OUTS;
        } else if (tiles >= 2) {
            gemm_vnni_panel(u, panel, out + first, windows, inputs, outputs, left, 2);
            first += 2 * OUTS;
        } else {
            gemm_vnni_panel(u, panel, out + first, windows, inputs, outputs, left, 1);
            first += OUTS;
        }
    }
}
#endif

gemm_fn *gemm_of(int level) {
#if X86
    if (level >= 2) return gemm_avx512;
    if (level >= 1) return gemm_avx2;
#endif
    (void)level;
    return gemm_portable;
}
