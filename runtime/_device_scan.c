/* The scan of a unit in plain C, compiled for each level; AVX-512 has its own for usual cases. */
#include "_device_scan.h"

#include <math.h>

/* table[rows][TILE]: for each pattern of the lines of a part, the sum of their cells. */
ALWAYS void build_sums(const plan *p, Py_ssize_t unit, const cut *c, int16_t *restrict table) {
    const int16_t *cells = p->cells + unit * p->lines * TILE;
    for (int i = 0; i < c->count; i++) {
        int16_t *part = table + (Py_ssize_t)c->row[i] * TILE;
        for (int k = 0; k < TILE; k++) part[k] = (int16_t)(i ? 0 : p->bias);
        for (int line = 0; line < c->lines[i]; line++) {
            const int16_t *cell = cells + (c->first[i] + line) * TILE;
            int16_t *to = part + ((Py_ssize_t)TILE << line);
            for (Py_ssize_t q = 0; q < 1 << line; q++)
                for (int k = 0; k < TILE; k++)
                    to[q * TILE + k] = (int16_t)(part[q * TILE + k] + cell[k]);
        }
    }
}

void device_build_variance(const plan *p, Py_ssize_t unit, const cut *c, int32_t *table) {
    const int32_t *cells = p->variance + unit * p->lines * TILE;
    for (int i = 0; i < c->count; i++) {
        int32_t *part = table + (Py_ssize_t)c->row[i] * TILE;
        memset(part, 0, TILE * sizeof *part);
        for (int line = 0; line < c->lines[i]; line++) {
            const int32_t *cell = cells + (c->first[i] + line) * TILE;
            int32_t *to = part + ((Py_ssize_t)TILE << line);
            for (Py_ssize_t q = 0; q < 1 << line; q++)
                for (int k = 0; k < TILE; k++)
                    to[q * TILE + k] = part[q * TILE + k] + cell[k];
        }
    }
}

/* The codes of 64 sums; returns how many of the first `valid` are saturated. */
ALWAYS int encode(const plan *p, const int16_t *restrict sums, int valid, uint8_t *restrict code) {
    const int limit = p->codes;
    int saturated = 0;
    if (p->thresholds) {
        uint8_t count[TILE] = {0};
        for (int k = 0; k < limit; k++) {
            if (p->thresholds[k] > 32767) break; /* they rise */
            const int16_t threshold = (int16_t)p->thresholds[k];
            for (int i = 0; i < TILE; i++) count[i] = (uint8_t)(count[i] + (sums[i] >= threshold));
        }
        memcpy(code, count, TILE);
    } else {
        for (int i = 0; i < TILE; i++) {
            const int value = sums[i] >> p->fraction;
            code[i] = (uint8_t)(value < 0 ? 0 : value > limit ? limit : value);
        }
    }
    for (int i = 0; i < valid; i++) saturated += sums[i] >= p->top;
    return saturated;
}

/* Turn a table of the sums of all lines into codes, and the saturations of each pattern. */
ALWAYS void build_codes(const plan *p, const int16_t *table, int rows, int valid, uint8_t *codes,
                        uint8_t *saturated) {
    for (int q = 0; q < rows; q++)
        saturated[q] = (uint8_t)encode(p, table + q * TILE, valid, codes + q * TILE);
}

/* offsets[window][8]: Philox4x32-10 of (group, tile, window, image), a 16-bit half an input bit. */
ALWAYS void draw_body(const plan *p, uint32_t group, uint32_t tile, const places *at,
                      Py_ssize_t windows, uint32_t *restrict drawn) {
    for (Py_ssize_t w = 0; w < windows; w++) {
        uint32_t c0 = group, c1 = tile, c2 = at->window[w], c3 = at->image[w];
        uint32_t k0 = p->key[0], k1 = p->key[1];
        for (int round = 0; round < 10; round++) {
            const uint64_t p0 = (uint64_t)c0 * 0xD2511F53u, p1 = (uint64_t)c2 * 0xCD9E8D57u;
            c0 = (uint32_t)(p1 >> 32) ^ c1 ^ k0, c1 = (uint32_t)p1;
            c2 = (uint32_t)(p0 >> 32) ^ c3 ^ k1, c3 = (uint32_t)p0;
            k0 += 0x9E3779B9u, k1 += 0xBB67AE85u;
        }
        drawn[w] = c0, drawn[BLOCK + w] = c1, drawn[2 * BLOCK + w] = c2, drawn[3 * BLOCK + w] = c3;
    }
}

/* The slow and general way: any number of parts, any noise, any transfer. */
ALWAYS uint64_t scan_body(const scan_job *j) {
    const plan *p = j->p;
    uint64_t saturated = 0;
    for (Py_ssize_t w = 0; w < j->windows; w++) {
        uint16_t total[TILE] = {0};
        for (int t = 7; t >= 0; t--) {
            const uint16_t *words = j->index + (w * 8 + t) * p->words;
            int16_t sum[TILE];
            uint8_t code[TILE];
            memcpy(sum, j->table + row_of(j->parts, 0, words), sizeof sum);
            for (int i = 1; i < j->parts->count; i++) {
                const int16_t *row = j->table + row_of(j->parts, i, words);
                for (int k = 0; k < TILE; k++) sum[k] = (int16_t)(sum[k] + row[k]);
            }
            if (p->noisy) {
                const int16_t *drawn = p->pool + offset_of(j, w, t);
                int32_t std[TILE];
                if (j->variance) {
                    int32_t squares[TILE] = {0};
                    for (int i = 0; i < j->parts->count; i++) {
                        const int32_t *row = j->variance + row_of(j->parts, i, words);
                        for (int k = 0; k < TILE; k++) squares[k] += row[k];
                    }
                    /* an integer's root is no half: rounding has no ties */
                    for (int k = 0; k < TILE; k++) std[k] = (int32_t)(sqrt(squares[k]) + 0.5);
                } else {
                    int lines = 0;
                    for (Py_ssize_t i = 0; i < p->words; i++)
                        lines += __builtin_popcount(words[i]);
                    for (int k = 0; k < TILE; k++) std[k] = p->std[lines];
                }
                for (int k = 0; k < TILE; k++)
                    sum[k] = (int16_t)(sum[k] + ((drawn[k] * std[k] + (1 << (POOL_SHIFT - 1))) >>
                                                 POOL_SHIFT));
            }
            saturated += (uint64_t)encode(p, sum, j->valid, code);
            for (int k = 0; k < TILE; k++) total[k] = (uint16_t)(2 * total[k] + code[k]);
        }
        for (int k = 0; k < TILE; k++) j->sums[w * TILE + k] += total[k];
    }
    return saturated;
}

/* Codes from the table, without noise. */
ALWAYS uint64_t codes_body(const scan_job *j) {
    uint64_t saturated = 0;
    for (Py_ssize_t w = 0; w < j->windows; w++) {
        const uint16_t *patterns = j->index + w * 8;
        uint16_t total[TILE] = {0};
        for (int t = 7; t >= 0; t--) {
            const uint8_t *code = j->codes + (Py_ssize_t)patterns[t] * TILE;
            saturated += j->saturated[patterns[t]];
            for (int k = 0; k < TILE; k++) total[k] = (uint16_t)(2 * total[k] + code[k]);
        }
        for (int k = 0; k < TILE; k++) j->sums[w * TILE + k] += total[k];
    }
    return saturated;
}

static void build_sums_portable(const plan *p, Py_ssize_t unit, const cut *c, int16_t *table) {
    build_sums(p, unit, c, table);
}
static void build_codes_portable(const plan *p, const int16_t *table, int rows, int valid,
                                 uint8_t *codes, uint8_t *saturated) {
    build_codes(p, table, rows, valid, codes, saturated);
}
static void draw_portable(const plan *p, uint32_t group, uint32_t tile, const places *at,
                          Py_ssize_t windows, uint32_t *drawn) {
    draw_body(p, group, tile, at, windows, drawn);
}
static uint64_t scan_portable(const scan_job *j) { return scan_body(j); }
static uint64_t codes_portable(const scan_job *j) { return codes_body(j); }

#if X86
AVX2 static void build_sums_avx2(const plan *p, Py_ssize_t unit, const cut *c, int16_t *table) {
    build_sums(p, unit, c, table);
}
AVX2 static void build_codes_avx2(const plan *p, const int16_t *table, int rows, int valid,
                                  uint8_t *codes, uint8_t *saturated) {
    build_codes(p, table, rows, valid, codes, saturated);
}
AVX2 static void draw_avx2(const plan *p, uint32_t group, uint32_t tile, const places *at,
                           Py_ssize_t windows, uint32_t *drawn) {
    draw_body(p, group, tile, at, windows, drawn);
}
AVX2 static uint64_t scan_avx2(const scan_job *j) { return scan_body(j); }
AVX2 static uint64_t codes_avx2(const scan_job *j) { return codes_body(j); }

AVX512 static void build_sums_avx512(const plan *p, Py_ssize_t unit, const cut *c,
                                     int16_t *table) {
    build_sums(p, unit, c, table);
}
AVX512 static void draw_avx512(const plan *p, uint32_t group, uint32_t tile, const places *at,
                               Py_ssize_t windows, uint32_t *drawn) {
    draw_body(p, group, tile, at, windows, drawn);
}
AVX512 static void build_codes_avx512(const plan *p, const int16_t *table, int rows, int valid,
                                      uint8_t *codes, uint8_t *saturated) {
    if (!device_codes_avx512(p, table, rows, valid, codes, saturated))
        build_codes(p, table, rows, valid, codes, saturated);
}
AVX512 static uint64_t scan_avx512(const scan_job *j) {
    uint64_t saturated;
    return device_scan_avx512(j, &saturated) ? saturated : scan_body(j);
}
AVX512 static uint64_t codes_avx512(const scan_job *j) {
    uint64_t saturated;
    return device_scan_codes_avx512(j, &saturated) ? saturated : codes_body(j);
}
#endif

const level_functions DEVICE_LEVELS[LEVEL_COUNT] = {
    {build_sums_portable, build_codes_portable, draw_portable, scan_portable, codes_portable},
#if X86
    {build_sums_avx2, build_codes_avx2, draw_avx2, scan_avx2, codes_avx2},
    {build_sums_avx512, build_codes_avx512, draw_avx512, scan_avx512, codes_avx512},
#endif
};
