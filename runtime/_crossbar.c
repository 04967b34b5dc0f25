/* The crossbar kernel: exact integer products, with and without the clip of the ADC.
 *
 * gemm    u8 [windows, inputs] x s8 weights: the linear path, where no conversion can clip.
 * serial  the bit-serial path of the block form, every conversion clipped. Three methods, one
 *         answer: "table" adds tabulated column sums, "popcount" counts bits, and "excess" takes
 *         the linear product that is in `out` already and subtracts what the ADC cuts off,
 *         looking only where enough inputs and cells are set for a clip to be possible.
 * NumPy's runtime/crossbar.py:block_product is the oracle.
 *
 * No state, no threads, no allocation inside a loop, the GIL released. All sizes are checked
 * before the first loop; what a plan holds is checked once, when it is made, and copied, so that
 * nobody can change it afterwards. Vector instructions are chosen at run time: level 0 is
 * portable C, 1 is AVX2, 2 is AVX-512 with VNNI and BITALG.
 */
#define PY_SSIZE_T_CLEAN
#include <Python.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#if defined(__x86_64__) && defined(__GNUC__)
#define X86 1
#include <immintrin.h>
#define AVX2 __attribute__((target("avx2,popcnt")))
#define AVX512 \
    __attribute__((target("avx512f,avx512bw,avx512vl,avx512dq,avx512vnni,avx512bitalg," \
                          "avx512vpopcntdq,popcnt")))
#else
#define X86 0
#endif
#define ALWAYS static inline __attribute__((always_inline))

#ifndef PIM_SOURCE_SHA256
#define PIM_SOURCE_SHA256 "unknown"
#endif

enum { TILE = 64,      /* stored columns that the table method handles side by side */
       LANES = 32,     /* windows that are routed side by side */
       BLOCK = 128,    /* windows between two builds of the same table */
       PART_LINES = 6, /* word lines of one partial table: 2^6 rows at most */
       MAX_CHUNK = 31, /* groups summed in bytes: 8 bits x 31 saturations < 256 */
       MAX_INPUTS = 65536, /* 65536 x 255 x 128 < 2^31: no gemm sum overflows */
       OUTS = 16, DEPTH = 4 /* a weight tile of gemm: [16 outputs][4 inputs] */ };

/* ------------------------------------------------------------------------------ CPU levels */

static int best_level(void) {
#if X86
    __builtin_cpu_init();
    if (__builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
        __builtin_cpu_supports("avx512vl") && __builtin_cpu_supports("avx512dq") &&
        __builtin_cpu_supports("avx512vnni") && __builtin_cpu_supports("avx512bitalg") &&
        __builtin_cpu_supports("avx512vpopcntdq"))
        return 2;
    if (__builtin_cpu_supports("avx2") && __builtin_cpu_supports("popcnt")) return 1;
#endif
    return 0;
}

/* ------------------------------------------------------------------------------ gemm */

/* rows x tiles products of one pass over the inputs; u rows are `inputs` bytes apart.
 * weights: [tiles][depth][OUTS][DEPTH] int8, zero beyond the inputs. */
typedef void gemm_fn(const uint8_t *u, const int8_t *weights, int32_t *out, Py_ssize_t windows,
                     Py_ssize_t inputs, Py_ssize_t outputs);

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
        gemm_vnni_block(u + w * inputs, weights, out + w * outputs, inputs, outputs, left, 6, tiles);
    for (; w + 3 <= windows; w += 3)
        gemm_vnni_block(u + w * inputs, weights, out + w * outputs, inputs, outputs, left, 3, tiles);
    for (; w < windows; w++)
        gemm_vnni_block(u + w * inputs, weights, out + w * outputs, inputs, outputs, left, 1, tiles);
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

/* ------------------------------------------------------------------------------ the plan */

/* A block matrix in the order of execution; all arrays are owned and were checked. */
typedef struct {
    Py_ssize_t inputs, outputs, groups, lines, planes, bytes, lists, columns;
    int32_t adc_max;
    int table;            /* whether the table method can represent it */
    int32_t *rows;        /* [groups][lines], `inputs` where unused: a zero stands there */
    int64_t *first;       /* [groups] first stored column */
    uint8_t *cells;       /* [columns][planes][bytes] */
    int64_t *list_groups; /* [lists + 1] the groups of each route list */
    int64_t *list_columns; /* [lists] stored columns of each group of the list */
    int64_t *list_outputs; /* [lists + 1] -> entries */
    int32_t *output;      /* [entries] */
    int64_t *entry;       /* [entries + 1] -> routes */
    int32_t *slot;        /* [routes] column within the group */
    int32_t *factor;      /* [routes] */
    /* table method */
    int parts, part_first[32], part_lines[32], part_row[32], table_rows, chunk;
    int32_t *lanes;       /* [groups][parts * 8] input, or `inputs` for none */
    int64_t *mask_first;  /* [groups] */
    uint64_t *masks;      /* per group [tiles][lines][planes]: bit c is column c of the tile */
    double table_work;    /* estimated cycles of one window */
    /* excess method: the columns that can clip, i.e. whose cells sum beyond adc_max */
    Py_ssize_t words;       /* 64-bit words of a plane */
    int64_t *danger_first;  /* [groups + 1] */
    uint16_t *danger_short; /* [dangers] cells of up to 16 lines in one plane, else: */
    uint64_t *danger_words; /* per group [planes][words][its dangers] */
    int64_t *danger_route;  /* [dangers + 1] -> */
    int32_t *danger_output, *danger_factor;
    int32_t *run_first; /* [groups] first input where all lines drive neighbours, else -1 */
    uint64_t *run_mask; /* [groups][2] 0xff for each used line of such a group */
    double popcount_work;
} plan;

static void plan_free(plan *p) {
    if (!p) return;
    void *owned[] = {p->rows, p->first, p->cells, p->list_groups, p->list_columns,
                     p->list_outputs, p->output, p->entry, p->slot, p->factor, p->lanes,
                     p->mask_first, p->masks, p->danger_first, p->danger_short, p->danger_words,
                     p->danger_route, p->danger_output, p->danger_factor, p->run_first,
                     p->run_mask};
    for (size_t i = 0; i < sizeof owned / sizeof *owned; i++) free(owned[i]);
    free(p);
}

static Py_ssize_t tiles_of(int64_t columns) { return (Py_ssize_t)((columns + TILE - 1) / TILE); }

/* Cut the word lines in parts of nearly equal height, each with a table of 2^lines rows. */
static void plan_parts(plan *p) {
    const int parts = (int)((p->lines + PART_LINES - 1) / PART_LINES);
    p->parts = parts;
    p->table_rows = 0;
    for (int i = 0, line = 0; i < parts; i++) {
        const int lines = (int)(p->lines - line + parts - i - 1) / (parts - i);
        p->part_first[i] = line;
        p->part_lines[i] = lines;
        p->part_row[i] = p->table_rows;
        p->table_rows += 1 << lines;
        line += lines;
    }
    /* sums of a chunk: bytes before the bits are joined, 16 bits after */
    int chunk = 65535 / 255 / p->adc_max;
    if (chunk > 255 / (p->adc_max + 1)) chunk = 255 / (p->adc_max + 1);
    const int cached = (96 << 10) / (p->table_rows * TILE);
    if (chunk > cached) chunk = cached;
    p->chunk = chunk < 1 ? 1 : chunk > MAX_CHUNK ? MAX_CHUNK : chunk;
    p->table_work = 0;
    for (Py_ssize_t list = 0; list < p->lists; list++) {
        const double groups = (double)(p->list_groups[list + 1] - p->list_groups[list]);
        p->table_work += groups * (24 + 8 * (1.5 + parts) * (double)tiles_of(p->list_columns[list]));
    }
}

/* Turn the cells by 90 degrees: one 64-bit word holds a word line of a tile of columns. */
static int plan_masks(plan *p) {
    Py_ssize_t words = 0;
    p->lanes = malloc((size_t)(p->groups * p->parts * 8 + 1) * sizeof *p->lanes);
    p->mask_first = malloc((size_t)(p->groups + 1) * sizeof *p->mask_first);
    if (!p->lanes || !p->mask_first) return -1;
    for (Py_ssize_t list = 0; list < p->lists; list++)
        for (Py_ssize_t g = p->list_groups[list]; g < p->list_groups[list + 1]; g++) {
            p->mask_first[g] = words;
            words += tiles_of(p->list_columns[list]) * p->lines * p->planes;
        }
    p->masks = calloc((size_t)words + 1, sizeof *p->masks);
    if (!p->masks) return -1;
    for (Py_ssize_t g = 0; g < p->groups; g++)
        for (int i = 0; i < p->parts; i++)
            for (int lane = 0; lane < 8; lane++) {
                const int used = lane < p->part_lines[i];
                p->lanes[(g * p->parts + i) * 8 + lane] =
                    used ? p->rows[g * p->lines + p->part_first[i] + lane] : (int32_t)p->inputs;
            }
    for (Py_ssize_t list = 0; list < p->lists; list++)
        for (Py_ssize_t g = p->list_groups[list]; g < p->list_groups[list + 1]; g++)
            for (int64_t c = 0; c < p->list_columns[list]; c++) {
                const uint8_t *cell = p->cells + (p->first[g] + c) * p->planes * p->bytes;
                uint64_t *tile = p->masks + p->mask_first[g] +
                                 (c / TILE) * p->lines * p->planes;
                for (Py_ssize_t b = 0; b < p->planes; b++)
                    for (Py_ssize_t r = 0; r < p->lines; r++)
                        if (cell[b * p->bytes + r / 8] >> (r % 8) & 1)
                            tile[r * p->planes + b] |= (uint64_t)1 << (c % TILE);
            }
    return 0;
}

/* ------------------------------------------------------------------------------ input bits */

/* Eight inputs as one word, lane i in byte i: wide loads right behind byte stores would stall. */
ALWAYS uint64_t eight_lanes(const uint8_t *row, const int32_t *lanes, int count) {
    uint64_t word = 0;
    for (int i = 0; i < count; i++) word |= (uint64_t)row[lanes[i]] << (8 * i);
    return word;
}

/* bits[t]: bit t of 16 lanes */
ALWAYS void sixteen_bits(uint64_t low, uint64_t high, uint16_t bits[8]) {
#if X86
    __m128i v = _mm_set_epi64x((long long)high, (long long)low);
    for (int t = 7; t >= 0; t--, v = _mm_add_epi8(v, v)) bits[t] = (uint16_t)_mm_movemask_epi8(v);
#else
    const uint64_t ones = 0x0101010101010101u, gather = 0x0102040810204080u;
    for (int t = 0; t < 8; t++) /* a carry-free product brings eight scattered bits together */
        bits[t] = (uint16_t)(((low >> t & ones) * gather >> 56) |
                             ((high >> t & ones) * gather >> 56) << 8);
#endif
}

/* ------------------------------------------------------------------------------ table method */

/* Bits of the inputs, one byte a part: index[(window * 8 + t) * stride + group * parts + part].
 * rows: u padded by one zero byte at [inputs], which unused lanes read. */
static void table_index(const plan *p, const uint8_t *u, Py_ssize_t windows, Py_ssize_t group,
                        Py_ssize_t groups, Py_ssize_t stride, uint8_t *row, uint8_t *index) {
    const int32_t *lanes = p->lanes + group * p->parts * 8;
    const Py_ssize_t bytes = groups * p->parts;
    row[p->inputs] = 0;
    for (Py_ssize_t w = 0; w < windows; w++) {
        memcpy(row, u + w * p->inputs, (size_t)p->inputs);
        uint8_t *at = index + w * 8 * stride;
        for (Py_ssize_t b = 0; b < bytes; b += 2) {
            uint16_t bits[8];
            const uint64_t low = eight_lanes(row, lanes + b * 8, 8);
            sixteen_bits(low, bytes - b < 2 ? 0 : eight_lanes(row, lanes + b * 8 + 8, 8), bits);
            for (int t = 0; t < 8; t++) { /* stride is even: the second byte has a place */
                at[t * stride + b] = (uint8_t)bits[t];
                at[t * stride + b + 1] = (uint8_t)(bits[t] >> 8);
            }
        }
    }
}

/* tables[group][table_rows][TILE]: row q of part i is the column sums of the lines in q. */
ALWAYS void build_body(const plan *p, Py_ssize_t group, Py_ssize_t groups, Py_ssize_t tile,
                       uint8_t *tables) {
    for (Py_ssize_t g = group; g < group + groups; g++) {
        const uint64_t *masks = p->masks + p->mask_first[g] + tile * p->lines * p->planes;
        for (int i = 0; i < p->parts; i++) {
            uint8_t *table = tables + ((g - group) * p->table_rows + p->part_row[i]) * TILE;
            memset(table, 0, TILE);
            for (int line = 0; line < p->part_lines[i]; line++) {
                uint64_t cells[8] = {0}; /* the line's cells, one byte a column */
                for (Py_ssize_t b = 0; b < p->planes; b++) {
                    const uint64_t mask = masks[(p->part_first[i] + line) * p->planes + b];
                    for (int k = 0; k < 8; k++) { /* spread eight bits to eight bytes */
                        const uint64_t eight = (mask >> (8 * k) & 0xff) * 0x0101010101010101u;
                        const uint64_t set = (eight & 0x8040201008040201u) + 0x7f7f7f7f7f7f7f7fu;
                        cells[k] += (set >> 7 & 0x0101010101010101u) << b;
                    }
                }
                uint64_t *from = (uint64_t *)table, *to = from + ((size_t)8 << line);
                for (int q = 0; q < 1 << line; q++, from += 8, to += 8)
                    for (int k = 0; k < 8; k++) to[k] = from[k] + cells[k]; /* no byte overflows */
            }
        }
    }
}

/* sums[window][TILE]: sum over the groups and bits, even columns first, then odd ones.
 * Returns the conversions above the limit. */
typedef struct {
    const uint8_t *tables, *index;
    Py_ssize_t windows, groups, stride;
    uint16_t *sums;
} scan_job;

static uint64_t scan_portable(const plan *p, const scan_job *job) {
    const int limit = p->adc_max;
    uint64_t saturated = 0;
    for (Py_ssize_t w = 0; w < job->windows; w++) {
        uint16_t *sums = job->sums + w * TILE;
        memset(sums, 0, TILE * sizeof *sums);
        for (int t = 7; t >= 0; t--) {
            const uint8_t *at = job->index + (w * 8 + t) * job->stride;
            for (int c = 0; c < TILE; c++) sums[c] = (uint16_t)(sums[c] * 2);
            for (Py_ssize_t g = 0; g < job->groups; g++, at += p->parts) {
                const uint8_t *table = job->tables + g * p->table_rows * TILE;
                uint8_t sum[TILE] = {0};
                for (int i = 0; i < p->parts; i++) {
                    const uint8_t *row = table + (p->part_row[i] + at[i]) * TILE;
                    for (int c = 0; c < TILE; c++) sum[c] = (uint8_t)(sum[c] + row[c]);
                }
                for (int c = 0; c < TILE; c++) {
                    const int above = sum[c] > limit;
                    saturated += (uint64_t)above;
                    sums[c / 2 + c % 2 * (TILE / 2)] += (uint16_t)(above ? limit : sum[c]);
                }
            }
        }
    }
    return saturated;
}

static void build_portable(const plan *p, Py_ssize_t group, Py_ssize_t groups, Py_ssize_t tile,
                           uint8_t *tables) {
    build_body(p, group, groups, tile, tables);
}

#if X86
AVX2 static void build_avx2(const plan *p, Py_ssize_t group, Py_ssize_t groups, Py_ssize_t tile,
                            uint8_t *tables) {
    build_body(p, group, groups, tile, tables);
}

AVX512 static void build_avx512(const plan *p, Py_ssize_t group, Py_ssize_t groups,
                                Py_ssize_t tile, uint8_t *tables) {
    build_body(p, group, groups, tile, tables);
}

/* The sums up to `limit` and those up to `limit + 1` differ by one for each saturation. */
AVX2 ALWAYS uint64_t scan_avx2_body(const plan *p, const scan_job *job, const int parts) {
    const __m256i limit = _mm256_set1_epi8((char)p->adc_max);
    const __m256i above = _mm256_set1_epi8((char)(p->adc_max + 1));
    const __m256i low = _mm256_set1_epi16(0xff), zero = _mm256_setzero_si256();
    const Py_ssize_t table_bytes = (Py_ssize_t)p->table_rows * TILE;
    __m256i saturated = zero;
    for (Py_ssize_t w = 0; w < job->windows; w++)
        for (int half = 0; half < 2; half++) {
            __m256i even = zero, odd = zero;
            for (int t = 7; t >= 0; t--) {
                const uint8_t *at = job->index + (w * 8 + t) * job->stride;
                const uint8_t *table = job->tables + half * 32;
                __m256i clipped = zero, bounded = zero;
                for (Py_ssize_t g = 0; g < job->groups; g++, at += parts, table += table_bytes) {
                    __m256i sum = _mm256_load_si256((const __m256i *)(table + at[0] * TILE));
                    for (int i = 1; i < parts; i++)
                        sum = _mm256_add_epi8(
                            sum, _mm256_load_si256((const __m256i *)(
                                     table + (p->part_row[i] + at[i]) * TILE)));
                    clipped = _mm256_add_epi8(clipped, _mm256_min_epu8(sum, limit));
                    bounded = _mm256_add_epi8(bounded, _mm256_min_epu8(sum, above));
                }
                saturated = _mm256_add_epi64(
                    saturated, _mm256_sad_epu8(_mm256_sub_epi8(bounded, clipped), zero));
                even = _mm256_add_epi16(_mm256_add_epi16(even, even),
                                        _mm256_and_si256(clipped, low));
                odd = _mm256_add_epi16(_mm256_add_epi16(odd, odd), _mm256_srli_epi16(clipped, 8));
            }
            uint16_t *sums = job->sums + w * TILE + half * 16;
            _mm256_storeu_si256((__m256i *)sums, even);
            _mm256_storeu_si256((__m256i *)(sums + TILE / 2), odd);
        }
    uint64_t parts_of[4];
    _mm256_storeu_si256((__m256i *)parts_of, saturated);
    return parts_of[0] + parts_of[1] + parts_of[2] + parts_of[3];
}

AVX2 static uint64_t scan_avx2(const plan *p, const scan_job *job) {
    if (p->parts == 1) return scan_avx2_body(p, job, 1);
    if (p->parts == 2) return scan_avx2_body(p, job, 2);
    return scan_avx2_body(p, job, p->parts);
}

AVX512 ALWAYS uint64_t scan_avx512_body(const plan *p, const scan_job *job, const int parts) {
    const __m512i limit = _mm512_set1_epi8((char)p->adc_max);
    const __m512i above = _mm512_set1_epi8((char)(p->adc_max + 1));
    const __m512i low = _mm512_set1_epi16(0xff), zero = _mm512_setzero_si512();
    const Py_ssize_t table_bytes = (Py_ssize_t)p->table_rows * TILE;
    const Py_ssize_t second = (Py_ssize_t)p->part_row[1] * TILE;
    __m512i saturated = zero;
    for (Py_ssize_t w = 0; w < job->windows; w++) {
        __m512i even = zero, odd = zero, excess = zero;
        for (int t = 7; t >= 0; t--) {
            const uint8_t *at = job->index + (w * 8 + t) * job->stride;
            const uint8_t *table = job->tables;
            __m512i clipped = zero, bounded = zero;
            for (Py_ssize_t g = 0; g < job->groups; g++, at += parts, table += table_bytes) {
                __m512i sum = _mm512_load_si512(table + at[0] * TILE);
                if (parts == 2)
                    sum = _mm512_add_epi8(sum, _mm512_load_si512(table + second + at[1] * TILE));
                else
                    for (int i = 1; i < parts; i++)
                        sum = _mm512_add_epi8(
                            sum, _mm512_load_si512(table + (p->part_row[i] + at[i]) * TILE));
                clipped = _mm512_add_epi8(clipped, _mm512_min_epu8(sum, limit));
                bounded = _mm512_add_epi8(bounded, _mm512_min_epu8(sum, above));
            }
            excess = _mm512_add_epi8(excess, _mm512_sub_epi8(bounded, clipped)); /* <= 8 * 31 */
            even = _mm512_add_epi16(_mm512_add_epi16(even, even), _mm512_and_si512(clipped, low));
            odd = _mm512_add_epi16(_mm512_add_epi16(odd, odd), _mm512_srli_epi16(clipped, 8));
        }
        _mm512_storeu_si512(job->sums + w * TILE, even);
        _mm512_storeu_si512(job->sums + w * TILE + TILE / 2, odd);
        saturated = _mm512_add_epi64(saturated, _mm512_sad_epu8(excess, zero));
    }
    return (uint64_t)_mm512_reduce_add_epi64(saturated);
}

AVX512 static uint64_t scan_avx512(const plan *p, const scan_job *job) {
    if (p->parts == 1) return scan_avx512_body(p, job, 1);
    if (p->parts == 2) return scan_avx512_body(p, job, 2);
    return scan_avx512_body(p, job, p->parts);
}
#endif

/* column sums [windows][TILE] -> turned[TILE][LANES] for LANES windows from `sums` on */
static void turn(const uint16_t *sums, Py_ssize_t windows, uint16_t *turned) {
#if X86
    if (windows == LANES) {
        for (int w = 0; w < LANES; w += 8)
            for (int c = 0; c < TILE; c += 8) {
                __m128i a[8], b[8];
                for (int i = 0; i < 8; i++)
                    a[i] = _mm_loadu_si128((const __m128i *)(sums + (w + i) * TILE + c));
                for (int i = 0; i < 4; i++) {
                    b[2 * i] = _mm_unpacklo_epi16(a[i], a[i + 4]);
                    b[2 * i + 1] = _mm_unpackhi_epi16(a[i], a[i + 4]);
                }
                for (int i = 0; i < 4; i++) {
                    a[2 * i] = _mm_unpacklo_epi16(b[i], b[i + 4]);
                    a[2 * i + 1] = _mm_unpackhi_epi16(b[i], b[i + 4]);
                }
                for (int i = 0; i < 4; i++) {
                    b[2 * i] = _mm_unpacklo_epi16(a[i], a[i + 4]);
                    b[2 * i + 1] = _mm_unpackhi_epi16(a[i], a[i + 4]);
                }
                for (int i = 0; i < 8; i++)
                    _mm_storeu_si128((__m128i *)(turned + (c + i) * LANES + w), b[i]);
            }
        return;
    }
#endif
    for (int c = 0; c < TILE; c++)
        for (Py_ssize_t w = 0; w < windows; w++) turned[c * LANES + w] = sums[w * TILE + c];
}

/* Column c of a tile stands at this place after the scan: even columns first. */
ALWAYS Py_ssize_t place_of(int32_t column) {
    return (Py_ssize_t)(column / TILE) * TILE + column % TILE / 2 + column % 2 * (TILE / 2);
}

typedef uint32_t eight_words __attribute__((vector_size(32)));
typedef uint16_t eight_shorts __attribute__((vector_size(16)));

/* out[output][LANES] += factor * turned[slot][LANES] over the routes of a list */
ALWAYS void route_body(const plan *p, Py_ssize_t list, const uint16_t *turned, int32_t *out) {
    for (int64_t e = p->list_outputs[list]; e < p->list_outputs[list + 1]; e++) {
        int32_t *row = out + (Py_ssize_t)p->output[e] * LANES;
        eight_words sum[LANES / 8];
        memcpy(sum, row, sizeof sum);
        for (int64_t n = p->entry[e]; n < p->entry[e + 1]; n++) {
            const uint16_t *column = turned + place_of(p->slot[n]) * LANES;
            const uint32_t factor = (uint32_t)p->factor[n]; /* wraps as the accumulators do */
            for (int i = 0; i < LANES / 8; i++) {
                eight_shorts shorts;
                memcpy(&shorts, column + i * 8, sizeof shorts);
                sum[i] += __builtin_convertvector(shorts, eight_words) * factor;
            }
        }
        memcpy(row, sum, sizeof sum);
    }
}

static void route_portable(const plan *p, Py_ssize_t list, const uint16_t *turned, int32_t *out) {
    route_body(p, list, turned, out);
}

#if X86
AVX2 static void route_avx2(const plan *p, Py_ssize_t list, const uint16_t *turned, int32_t *out) {
    route_body(p, list, turned, out);
}
#endif

typedef struct {
    gemm_fn *gemm;
    void (*build)(const plan *, Py_ssize_t, Py_ssize_t, Py_ssize_t, uint8_t *);
    uint64_t (*scan)(const plan *, const scan_job *);
    void (*route)(const plan *, Py_ssize_t, const uint16_t *, int32_t *);
} level_functions;

static const level_functions LEVELS[] = {
    {gemm_portable, build_portable, scan_portable, route_portable},
#if X86
    {gemm_avx2, build_avx2, scan_avx2, route_avx2},
    {gemm_avx512, build_avx512, scan_avx512, route_avx2},
#endif
};

/* What one call of the table method needs besides its arguments. */
typedef struct {
    void *memory;
    uint8_t *row, *index, *tables;
    uint32_t *columns;       /* [slots] */
    uint16_t *sums, *turned; /* [BLOCK][TILE]; [BLOCK / LANES][slots][LANES] */
    int32_t *out;            /* [BLOCK / LANES][outputs][LANES] */
    Py_ssize_t stride, slots;
} scratch;

static int scratch_make(const plan *p, int table, scratch *s) {
    s->slots = 0;
    for (Py_ssize_t list = 0; list < p->lists; list++)
        if (tiles_of(p->list_columns[list]) * TILE > s->slots)
            s->slots = tiles_of(p->list_columns[list]) * TILE;
    s->stride = table ? ((Py_ssize_t)p->chunk * p->parts + 1) / 2 * 2 : 0;
    const size_t block = table ? BLOCK : 0;
    const size_t sizes[] = {(size_t)p->inputs + 16,
                            (size_t)s->slots * sizeof *s->columns,
                            (size_t)s->stride * block * 8,
                            table ? (size_t)p->chunk * (size_t)p->table_rows * TILE : 0,
                            block * TILE * sizeof *s->sums,
                            (size_t)s->slots * block * sizeof *s->turned,
                            (size_t)p->outputs * block * sizeof *s->out};
    uint8_t *parts[7];
    size_t total = 64;
    for (int i = 0; i < 7; i++) total += (sizes[i] + 63) / 64 * 64;
    s->memory = malloc(total);
    if (!s->memory) return -1;
    uint8_t *next = (uint8_t *)(((uintptr_t)s->memory + 63) / 64 * 64);
    for (int i = 0; i < 7; i++) {
        parts[i] = next;
        next += (sizes[i] + 63) / 64 * 64;
    }
    s->row = parts[0], s->columns = (uint32_t *)parts[1];
    s->index = parts[2], s->tables = parts[3], s->sums = (uint16_t *)parts[4];
    s->turned = (uint16_t *)parts[5], s->out = (int32_t *)parts[6];
    memset(s->turned, 0, sizes[5]); /* lanes beyond the last window are computed, never read */
    return 0;
}

/* BLOCK windows at most: all chunks of groups of all lists, then the outputs. */
static uint64_t table_block(const plan *p, const level_functions *f, const scratch *s,
                            const uint8_t *u, Py_ssize_t windows, int32_t *out) {
    const Py_ssize_t lanes = (windows + LANES - 1) / LANES;
    uint64_t saturated = 0;
    memset(s->out, 0, (size_t)(lanes * p->outputs * LANES) * sizeof *s->out);
    for (Py_ssize_t list = 0; list < p->lists; list++)
        for (Py_ssize_t g = p->list_groups[list]; g < p->list_groups[list + 1]; g += p->chunk) {
            const Py_ssize_t left = p->list_groups[list + 1] - g;
            const Py_ssize_t groups = left < p->chunk ? left : p->chunk;
            scan_job job = {s->tables, s->index, windows, groups, s->stride, s->sums};
            table_index(p, u, windows, g, groups, s->stride, s->row, s->index);
            for (Py_ssize_t tile = 0; tile < tiles_of(p->list_columns[list]); tile++) {
                f->build(p, g, groups, tile, s->tables);
                saturated += f->scan(p, &job);
                for (Py_ssize_t l = 0; l < lanes; l++)
                    turn(s->sums + l * LANES * TILE,
                         windows - l * LANES < LANES ? windows - l * LANES : LANES,
                         s->turned + (l * s->slots + tile * TILE) * LANES);
            }
            for (Py_ssize_t l = 0; l < lanes; l++)
                f->route(p, list, s->turned + l * s->slots * LANES,
                         s->out + l * p->outputs * LANES);
        }
    for (Py_ssize_t w = 0; w < windows; w++)
        for (Py_ssize_t o = 0; o < p->outputs; o++)
            out[w * p->outputs + o] =
                s->out[((w / LANES) * p->outputs + o) * LANES + w % LANES];
    return saturated;
}

/* ------------------------------------------------------------------------------ popcount method */

enum { WORDS = 64 }; /* 64-bit words of a selector: up to 4096 word lines */

/* bits[t][word]: bit t of the inputs on the word lines of a group, line r in bit r % 64.
 * row: the inputs of a window and a zero. */
static void line_bits(const plan *p, const uint8_t *row, Py_ssize_t group,
                      uint64_t bits[8][WORDS]) {
    const int32_t *rows = p->rows + group * p->lines;
    for (Py_ssize_t first = 0; first < p->lines; first += 16) {
        const int lines = p->lines - first < 16 ? (int)(p->lines - first) : 16;
        uint16_t sixteen[8];
        const uint64_t low = eight_lanes(row, rows + first, lines < 8 ? lines : 8);
        sixteen_bits(low, lines > 8 ? eight_lanes(row, rows + first + 8, lines - 8) : 0, sixteen);
        for (int t = 0; t < 8; t++) {
            if (first % 64 == 0) bits[t][first / 64] = sixteen[t];
            else bits[t][first / 64] |= (uint64_t)sixteen[t] << (first % 64);
        }
    }
}

/* Up to eight bytes of cells; spelled out, since a memcpy of unknown size is a call. */
ALWAYS uint64_t cell_word(const uint8_t *bytes, Py_ssize_t left) {
    uint64_t word = 0;
    if (left >= 8) memcpy(&word, bytes, 8);
    else
        for (Py_ssize_t i = 0; i < left; i++) word |= (uint64_t)bytes[i] << (8 * i);
    return word;
}

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

typedef uint64_t popcount_fn(const plan *, Py_ssize_t, int64_t, uint64_t[8][WORDS], uint32_t *);

/* One window at a time; sums: room for the columns of the longest list. */
static uint64_t popcount_window(const plan *p, popcount_fn *count, const uint8_t *row,
                                uint32_t *sums, uint32_t *out) {
    uint64_t bits[8][WORDS], saturated = 0;
    memset(out, 0, (size_t)p->outputs * sizeof *out);
    for (Py_ssize_t list = 0; list < p->lists; list++) {
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

static popcount_fn *popcount_of(const plan *p, int level) {
#if X86
    if (level >= 2 && p->planes == 1 && p->bytes <= 2) return popcount_short;
    if (level >= 1) return popcount_avx2;
#endif
    (void)level, (void)p;
    return popcount_portable;
}

/* ------------------------------------------------------------------------------ excess method */

static int is_short(const plan *p) { return p->planes == 1 && p->lines <= 16; }

static int64_t cell_sum(const plan *p, int64_t column) {
    int64_t sum = 0;
    const uint8_t *cell = p->cells + column * p->planes * p->bytes;
    for (Py_ssize_t b = 0; b < p->planes; b++)
        for (Py_ssize_t i = 0; i < p->bytes; i++)
            sum += (int64_t)__builtin_popcount(cell[b * p->bytes + i]) << b;
    return sum;
}

/* Routes of a list by column instead of by output; start has columns + 2 places. */
static void routes_by_column(const plan *p, Py_ssize_t list, int64_t *start, int32_t *output,
                             int32_t *factor) {
    const int64_t columns = p->list_columns[list];
    memset(start, 0, (size_t)(columns + 2) * sizeof *start);
    const int64_t from = p->list_outputs[list], to = p->list_outputs[list + 1];
    for (int64_t n = p->entry[from]; n < p->entry[to]; n++) start[p->slot[n] + 2]++;
    for (int64_t c = 2; c <= columns + 1; c++) start[c] += start[c - 1];
    for (int64_t e = from; e < to; e++)
        for (int64_t n = p->entry[e]; n < p->entry[e + 1]; n++) {
            const int64_t place = start[p->slot[n] + 1]++;
            output[place] = p->output[e];
            factor[place] = p->factor[n];
        }
}

/* Note one dangerous column of group g, the `index`-th of all. */
static void danger_store(plan *p, Py_ssize_t g, int64_t index, int64_t column) {
    const uint8_t *cell = p->cells + column * p->planes * p->bytes;
    if (is_short(p)) {
        p->danger_short[index] = (uint16_t)cell_word(cell, p->bytes);
        return;
    }
    const int64_t first = p->danger_first[g], count = p->danger_first[g + 1] - first;
    const Py_ssize_t layers = p->planes * p->words;
    uint64_t *words = p->danger_words + first * layers + (index - first);
    for (Py_ssize_t b = 0; b < p->planes; b++)
        for (Py_ssize_t i = 0; i < p->words; i++)
            words[(b * p->words + i) * count] =
                cell_word(cell + b * p->bytes + i * 8, p->bytes - i * 8);
}

/* Find the groups of up to 16 lines whose inputs are neighbours. -1: out of memory. */
static int plan_runs(plan *p) {
    p->run_first = malloc((size_t)(p->groups + 1) * sizeof *p->run_first);
    p->run_mask = calloc((size_t)(2 * p->groups + 1), sizeof *p->run_mask);
    if (!p->run_first || !p->run_mask) return -1;
    for (Py_ssize_t g = 0; g < p->groups; g++) {
        const int32_t *rows = p->rows + g * p->lines;
        Py_ssize_t used = 0;
        while (used < p->lines && rows[used] == rows[0] + used && rows[used] < p->inputs) used++;
        int neighbours = used > 0 && p->lines <= 16;
        for (Py_ssize_t r = used; r < p->lines; r++) neighbours &= rows[r] == p->inputs;
        p->run_first[g] = neighbours ? rows[0] : -1;
        for (Py_ssize_t r = 0; neighbours && r < used; r++)
            p->run_mask[2 * g + r / 8] |= (uint64_t)0xff << (8 * (r % 8));
    }
    return 0;
}

/* Collect the columns that can clip, and their routes. -1: out of memory. */
static int plan_dangers(plan *p) {
    int64_t dangers = 0, routes = 0, most_columns = 0, most_routes = 0;
    const double per_column = is_short(p) ? 1 : 10.0 * (double)(p->planes * p->words);
    p->words = (p->lines + 63) / 64;
    p->danger_first = calloc((size_t)p->groups + 1, sizeof *p->danger_first);
    if (!p->danger_first) return -1;
    for (Py_ssize_t list = 0; list < p->lists; list++) {
        const int64_t count = p->entry[p->list_outputs[list + 1]] - p->entry[p->list_outputs[list]];
        if (p->list_columns[list] > most_columns) most_columns = p->list_columns[list];
        if (count > most_routes) most_routes = count;
        p->popcount_work += (double)count + (double)p->list_columns[list] * per_column *
                            (double)(p->list_groups[list + 1] - p->list_groups[list]);
        for (Py_ssize_t g = p->list_groups[list]; g < p->list_groups[list + 1]; g++) {
            for (int64_t c = 0; c < p->list_columns[list]; c++)
                dangers += cell_sum(p, p->first[g] + c) > p->adc_max;
            p->danger_first[g + 1] = dangers;
        }
    }
    int64_t *start = malloc((size_t)(most_columns + 2) * sizeof *start);
    int32_t *output = malloc((size_t)most_routes * 4 + 4), *factor = malloc((size_t)most_routes * 4 + 4);
    p->danger_route = malloc((size_t)(dangers + 1) * sizeof *p->danger_route);
    if (is_short(p)) p->danger_short = malloc((size_t)(dangers + 32) * sizeof *p->danger_short);
    else p->danger_words = malloc((size_t)(dangers * p->planes * p->words + 1) * sizeof(uint64_t));
    int status = start && output && factor && p->danger_route && (p->danger_short || p->danger_words)
                     ? 0 : -1;
    for (int fill = 0; fill < 2 && status == 0; fill++) { /* first count the routes, then copy */
        if (fill) {
            p->danger_output = malloc((size_t)routes * 4 + 4);
            p->danger_factor = malloc((size_t)routes * 4 + 4);
            if (!p->danger_output || !p->danger_factor) status = -1;
        }
        int64_t index = 0, route = 0;
        for (Py_ssize_t list = 0; list < p->lists && status == 0; list++) {
            if (p->list_groups[list] == p->list_groups[list + 1]) continue;
            routes_by_column(p, list, start, output, factor);
            for (Py_ssize_t g = p->list_groups[list]; g < p->list_groups[list + 1]; g++)
                for (int64_t c = 0; c < p->list_columns[list]; c++) {
                    if (cell_sum(p, p->first[g] + c) <= p->adc_max) continue;
                    const int64_t count = start[c + 1] - start[c];
                    if (fill) {
                        danger_store(p, g, index, p->first[g] + c);
                        p->danger_route[index] = route;
                        memcpy(p->danger_output + route, output + start[c], (size_t)count * 4);
                        memcpy(p->danger_factor + route, factor + start[c], (size_t)count * 4);
                    }
                    index++;
                    route += count;
                }
        }
        routes = route;
        if (fill && status == 0) p->danger_route[index] = route;
    }
    free(start), free(output), free(factor);
    return status;
}

/* Estimated cycles, measured on Zen 4, that decide between excess and table; a wrong guess costs
 * time, never a result. */
enum { WORK_GROUP = 24, WORK_HIT = 8, WORK_COMPARE = 3, WORK_CLIP = 8, WORK_ROUTE = 2 };

typedef struct {
    uint64_t saturated, work, budget; /* a window stops when its work exceeds the budget */
} excess_result;

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
            result->work += WORK_GROUP;                                                          \
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

typedef int excess_fn(const plan *, const uint8_t *, uint32_t *, uint32_t *, excess_result *);

static excess_fn *excess_of(int level) {
#if X86
    if (level >= 2) return excess_avx512;
    if (level >= 1) return excess_avx2;
#endif
    (void)level;
    return excess_portable;
}

/* ------------------------------------------------------------------------------ Python */

/* A C-contiguous buffer of `dimensions` axes whose elements have one of the codes. */
static int take(PyObject *object, Py_buffer *view, const char *name, int dimensions,
                const char *codes, int writable) {
    const int flags = PyBUF_C_CONTIGUOUS | PyBUF_FORMAT | (writable ? PyBUF_WRITABLE : 0);
    if (PyObject_GetBuffer(object, view, flags) < 0) return -1;
    const char *format = view->format ? view->format : "B";
    if (*format == '<' || *format == '=' || *format == '@') format++;
    if (view->ndim != dimensions || !strchr(codes, *format) || format[1]) {
        PyErr_Format(PyExc_TypeError, "%s: expected %d axes of type '%s', found %d of type '%s'",
                     name, dimensions, codes, view->ndim, view->format ? view->format : "B");
        PyBuffer_Release(view);
        return -1;
    }
    return 0;
}

static int check_level(int level) {
    if (level >= 0 && level <= best_level()) return 0;
    PyErr_Format(PyExc_ValueError, "level %d: this CPU has levels 0..%d", level, best_level());
    return -1;
}

PyDoc_STRVAR(gemm_doc, "gemm(u, weights, out, level)\n--\n\nout = u @ weights, exactly.");

static PyObject *py_gemm(PyObject *self, PyObject *args) {
    PyObject *objects[3], *result = NULL;
    Py_buffer u, weights, out;
    int level;
    (void)self;
    if (!PyArg_ParseTuple(args, "OOOi:gemm", &objects[0], &objects[1], &objects[2], &level))
        return NULL;
    if (check_level(level) < 0 || take(objects[0], &u, "u", 2, "B", 0) < 0) return NULL;
    if (take(objects[1], &weights, "weights", 4, "b", 0) < 0) goto no_weights;
    if (take(objects[2], &out, "out", 2, "il", 1) < 0) goto no_out;
    const Py_ssize_t windows = u.shape[0], inputs = u.shape[1], outputs = out.shape[1];
    if (out.itemsize != 4) {
        PyErr_SetString(PyExc_TypeError, "out: expected 32-bit integers");
    } else if (out.shape[0] != windows || inputs > MAX_INPUTS) {
        PyErr_Format(PyExc_ValueError, "u is [%zd, %zd], out is [%zd, %zd], inputs are at most %d",
                     windows, inputs, out.shape[0], outputs, (int)MAX_INPUTS);
    } else if (weights.shape[2] != OUTS || weights.shape[3] != DEPTH ||
               weights.shape[1] != (inputs + DEPTH - 1) / DEPTH ||
               weights.shape[0] != (outputs + OUTS - 1) / OUTS) {
        PyErr_Format(PyExc_ValueError,
                     "weights: %zd inputs and %zd outputs need [%zd, %zd, %d, %d], found "
                     "[%zd, %zd, %zd, %zd]",
                     inputs, outputs, (outputs + OUTS - 1) / OUTS, (inputs + DEPTH - 1) / DEPTH,
                     (int)OUTS, (int)DEPTH, weights.shape[0], weights.shape[1], weights.shape[2],
                     weights.shape[3]);
    } else {
        Py_BEGIN_ALLOW_THREADS
        if (windows)
            LEVELS[level].gemm(u.buf, weights.buf, out.buf, windows, inputs, outputs);
        Py_END_ALLOW_THREADS
        result = Py_NewRef(Py_None);
    }
    PyBuffer_Release(&out);
no_out:
    PyBuffer_Release(&weights);
no_weights:
    PyBuffer_Release(&u);
    return result;
}

static const char PLAN[] = "runtime._crossbar.plan";

static void plan_release(PyObject *capsule) { plan_free(PyCapsule_GetPointer(capsule, PLAN)); }

/* Copy a one-axis buffer of `size`-byte integers; *count gets its length. */
static void *copy_of(PyObject *object, const char *name, int dimensions, size_t size,
                     Py_ssize_t *shape) {
    Py_buffer view;
    if (take(object, &view, name, dimensions, size == 1 ? "B" : size == 4 ? "il" : "lq", 0) < 0)
        return NULL;
    void *copy = NULL;
    if ((size_t)view.itemsize != size) {
        PyErr_Format(PyExc_TypeError, "%s: expected %zu-byte integers", name, size);
    } else if ((copy = malloc((size_t)view.len + 1)) == NULL) {
        PyErr_NoMemory();
    } else {
        memcpy(copy, view.buf, (size_t)view.len);
        for (int i = 0; i < dimensions; i++) shape[i] = view.shape[i];
    }
    PyBuffer_Release(&view);
    return copy;
}

/* offsets[0..count] must rise from 0 to `end`. */
static int rises(const int64_t *offsets, Py_ssize_t count, Py_ssize_t end, const char *name) {
    int wrong = offsets[0] != 0 || offsets[count] != end;
    for (Py_ssize_t i = 0; i < count; i++) wrong |= offsets[i] > offsets[i + 1];
    if (wrong) PyErr_Format(PyExc_ValueError, "%s: must rise from 0 to %zd", name, end);
    return wrong ? -1 : 0;
}

static int within(const int32_t *values, Py_ssize_t count, int32_t low, Py_ssize_t high,
                  const char *name) {
    for (Py_ssize_t i = 0; i < count; i++)
        if (values[i] < low || values[i] >= high) {
            PyErr_Format(PyExc_ValueError, "%s: %d is outside %d..%zd", name, values[i], low, high);
            return -1;
        }
    return 0;
}

typedef struct {
    Py_ssize_t rows[2], first, cells[3], list_groups, list_columns, list_outputs, output, entry,
        slot, factor;
} plan_shapes;

/* Everything that the loops rely on. */
static int plan_check(plan *p, const plan_shapes *s) {
    p->groups = s->rows[0], p->lines = s->rows[1];
    p->columns = s->cells[0], p->planes = s->cells[1], p->bytes = s->cells[2];
    p->lists = s->list_columns;
    if (s->first != p->groups || s->list_groups != p->lists + 1 ||
        s->list_outputs != p->lists + 1 || s->entry != s->output + 1 || s->factor != s->slot) {
        PyErr_Format(PyExc_ValueError,
                     "plan: %zd groups with %zd starts, %zd lists with %zd and %zd offsets, "
                     "%zd outputs with %zd offsets, %zd routes with %zd factors",
                     p->groups, s->first, p->lists, s->list_groups, s->list_outputs, s->output,
                     s->entry, s->slot, s->factor);
        return -1;
    }
    if (p->planes < 1 || p->planes > 8 || p->lines < 1 || p->lines > WORDS * 64 ||
        p->bytes != (p->lines + 7) / 8 || p->adc_max < 1 || p->adc_max > 65535) {
        PyErr_Format(PyExc_ValueError, "plan: %zd lines in %zd bytes, %zd planes, adc_max %d",
                     p->lines, p->bytes, p->planes, (int)p->adc_max);
        return -1;
    }
    if (rises(p->list_groups, p->lists, p->groups, "list_groups") < 0 ||
        rises(p->list_outputs, p->lists, s->output, "list_outputs") < 0 ||
        rises(p->entry, s->output, s->slot, "entry") < 0 ||
        within(p->rows, p->groups * p->lines, -1, p->inputs, "rows") < 0 ||
        within(p->output, s->output, 0, p->outputs, "output") < 0)
        return -1;
    for (Py_ssize_t i = 0; i < p->groups * p->lines; i++)
        if (p->rows[i] < 0) p->rows[i] = (int32_t)p->inputs;
    for (Py_ssize_t list = 0; list < p->lists; list++) {
        const int64_t columns = p->list_columns[list];
        for (Py_ssize_t g = p->list_groups[list]; g < p->list_groups[list + 1]; g++)
            if (columns < 0 || p->first[g] < 0 || p->first[g] > p->columns - columns) {
                PyErr_Format(PyExc_ValueError,
                             "plan: group %zd has columns %lld + %lld, the cells have %zd", g,
                             (long long)p->first[g], (long long)columns, p->columns);
                return -1;
            }
        const int64_t from = p->entry[p->list_outputs[list]];
        const int64_t to = p->entry[p->list_outputs[list + 1]];
        if (within(p->slot + from, (Py_ssize_t)(to - from), 0, (Py_ssize_t)columns, "slot") < 0)
            return -1;
    }
    return 0;
}

PyDoc_STRVAR(plan_doc,
             "plan(inputs, outputs, adc_max, rows, first, cells, list_groups, list_columns,\n"
             "     list_outputs, output, entry, slot, factor)\n--\n\n"
             "Check and copy a block matrix into the form that `serial` executes.");

static PyObject *py_plan(PyObject *self, PyObject *args) {
    PyObject *o[10];
    plan_shapes s;
    int adc_max;
    (void)self;
    plan *p = calloc(1, sizeof *p);
    if (!p) return PyErr_NoMemory();
    if (!PyArg_ParseTuple(args, "nniOOOOOOOOOO:plan", &p->inputs, &p->outputs, &adc_max, &o[0],
                          &o[1], &o[2], &o[3], &o[4], &o[5], &o[6], &o[7], &o[8], &o[9]))
        goto fail;
    p->adc_max = adc_max;
    if (!(p->rows = copy_of(o[0], "rows", 2, 4, s.rows)) ||
        !(p->first = copy_of(o[1], "first", 1, 8, &s.first)) ||
        !(p->cells = copy_of(o[2], "cells", 3, 1, s.cells)) ||
        !(p->list_groups = copy_of(o[3], "list_groups", 1, 8, &s.list_groups)) ||
        !(p->list_columns = copy_of(o[4], "list_columns", 1, 8, &s.list_columns)) ||
        !(p->list_outputs = copy_of(o[5], "list_outputs", 1, 8, &s.list_outputs)) ||
        !(p->output = copy_of(o[6], "output", 1, 4, &s.output)) ||
        !(p->entry = copy_of(o[7], "entry", 1, 8, &s.entry)) ||
        !(p->slot = copy_of(o[8], "slot", 1, 4, &s.slot)) ||
        !(p->factor = copy_of(o[9], "factor", 1, 4, &s.factor)) || plan_check(p, &s) < 0)
        goto fail;
    /* bytes hold the sums of a group and of a chunk; otherwise only popcount can do it */
    p->table = p->lines * ((1 << p->planes) - 1) <= 255 && p->adc_max <= 254 &&
               p->lines <= 32 * PART_LINES;
    if (p->table) {
        plan_parts(p);
        if (plan_masks(p) < 0) {
            PyErr_NoMemory();
            goto fail;
        }
    }
    if (plan_dangers(p) < 0 || plan_runs(p) < 0) {
        PyErr_NoMemory();
        goto fail;
    }
    PyObject *capsule = PyCapsule_New(p, PLAN, plan_release);
    if (capsule) return capsule;
fail:
    plan_free(p);
    return NULL;
}

enum { TABLE, POPCOUNT, EXCESS, AUTO, METHODS_COUNT };
enum { FEW = 8 }; /* up to here popcount beats the building of tables */
static const char *const METHOD_NAMES[] = {"table", "popcount", "excess", "auto"};

static void padded_row(const plan *p, const uint8_t *u, uint8_t *row) {
    memcpy(row, u, (size_t)p->inputs);
    memset(row + p->inputs, 0, 16);
}

/* Windows by excess until it proves slower than `other_work` a window; returns how many are done.
 * other_work 0: never stop. */
static Py_ssize_t excess_block(const plan *p, excess_fn *excess, double other_work,
                               const scratch *s, const uint8_t *u, Py_ssize_t windows,
                               int32_t *out, uint64_t *saturated) {
    const uint64_t never = (uint64_t)1 << 62;
    double total = 0;
    Py_ssize_t w = 0;
    for (; w < windows; w++) {
        if (other_work > 0 && w > 0 && total > other_work * (double)w) break;
        excess_result result = {0, 0, other_work > 0 ? (uint64_t)(2 * other_work) : never};
        padded_row(p, u + w * p->inputs, s->row);
        if (!excess(p, s->row, s->columns, (uint32_t *)out + w * p->outputs, &result)) break;
        *saturated += result.saturated;
        total += (double)result.work;
    }
    return w;
}

static uint64_t popcount_block(const plan *p, int level, const scratch *s, const uint8_t *u,
                               Py_ssize_t windows, int32_t *out) {
    popcount_fn *count = popcount_of(p, level);
    uint64_t saturated = 0;
    for (Py_ssize_t w = 0; w < windows; w++) {
        padded_row(p, u + w * p->inputs, s->row);
        saturated += popcount_window(p, count, s->row, s->columns,
                                     (uint32_t *)out + w * p->outputs);
    }
    return saturated;
}

/* The loops of one call; *saturated gets the conversions that clipped. -1: out of memory. */
static int serial_run(const plan *p, int method, int level, const uint8_t *u, Py_ssize_t windows,
                      int32_t *out, uint64_t *saturated) {
    const int table = p->table && (method == TABLE || (method == AUTO && windows > FEW));
    const double other_work = method != AUTO ? 0 : table ? p->table_work : p->popcount_work;
    scratch s;
    *saturated = 0;
    if (scratch_make(p, table, &s) < 0) return -1;
    for (Py_ssize_t w = 0; w < windows; w += BLOCK) {
        const Py_ssize_t block = windows - w < BLOCK ? windows - w : BLOCK;
        Py_ssize_t done = 0;
        if (method == EXCESS || method == AUTO)
            done = excess_block(p, excess_of(level), other_work, &s, u + w * p->inputs, block,
                                out + w * p->outputs, saturated);
        const uint8_t *from = u + (w + done) * p->inputs;
        int32_t *to = out + (w + done) * p->outputs;
        if (done == block) continue;
        *saturated += table ? table_block(p, &LEVELS[level], &s, from, block - done, to)
                            : popcount_block(p, level, &s, from, block - done, to);
    }
    free(s.memory);
    return 0;
}

PyDoc_STRVAR(serial_doc,
             "serial(plan, u, out, method, level)\n--\n\n"
             "Bit-serial product with the clip; returns the number of saturated conversions.\n"
             "Methods 'excess' and 'auto' expect the linear product in out.");

static PyObject *py_serial(PyObject *self, PyObject *args) {
    PyObject *capsule, *objects[2], *result = NULL;
    Py_buffer u, out;
    const char *method;
    int level;
    (void)self;
    if (!PyArg_ParseTuple(args, "OOOsi:serial", &capsule, &objects[0], &objects[1], &method, &level))
        return NULL;
    const plan *p = PyCapsule_GetPointer(capsule, PLAN);
    if (!p || check_level(level) < 0) return NULL;
    int chosen = 0;
    while (chosen < METHODS_COUNT && strcmp(method, METHOD_NAMES[chosen]) != 0) chosen++;
    if (chosen == METHODS_COUNT || (chosen == TABLE && !p->table)) {
        PyErr_Format(PyExc_ValueError, "method '%s' cannot do this plan", method);
        return NULL;
    }
    if (take(objects[0], &u, "u", 2, "B", 0) < 0) return NULL;
    if (take(objects[1], &out, "out", 2, "il", 1) < 0) goto no_out;
    if (out.itemsize != 4) {
        PyErr_SetString(PyExc_TypeError, "out: expected 32-bit integers");
    } else if (u.shape[1] != p->inputs || out.shape[1] != p->outputs || u.shape[0] != out.shape[0]) {
        PyErr_Format(PyExc_ValueError, "plan is [%zd, %zd], u is [%zd, %zd], out is [%zd, %zd]",
                     p->inputs, p->outputs, u.shape[0], u.shape[1], out.shape[0], out.shape[1]);
    } else {
        uint64_t saturated;
        int status;
        Py_BEGIN_ALLOW_THREADS
        status = serial_run(p, chosen, level, u.buf, u.shape[0], out.buf, &saturated);
        Py_END_ALLOW_THREADS
        result = status < 0 ? PyErr_NoMemory() : PyLong_FromUnsignedLongLong(saturated);
    }
    PyBuffer_Release(&out);
no_out:
    PyBuffer_Release(&u);
    return result;
}

PyDoc_STRVAR(can_table_doc, "can_table(plan)\n--\n\nWhether method 'table' can do the plan.");

static PyObject *py_can_table(PyObject *self, PyObject *capsule) {
    (void)self;
    const plan *p = PyCapsule_GetPointer(capsule, PLAN);
    return p ? PyBool_FromLong(p->table) : NULL;
}

PyDoc_STRVAR(level_doc, "best_level()\n--\n\nThe highest level of this CPU.");

static PyObject *py_best_level(PyObject *self, PyObject *unused) {
    (void)self, (void)unused;
    return PyLong_FromLong(best_level());
}

PyDoc_STRVAR(hash_doc, "source_hash()\n--\n\nThe sha256 of the source this was compiled from.");

static PyObject *py_source_hash(PyObject *self, PyObject *unused) {
    (void)self, (void)unused;
    return PyUnicode_FromString(PIM_SOURCE_SHA256);
}

static PyMethodDef METHODS[] = {
    {"gemm", py_gemm, METH_VARARGS, gemm_doc},
    {"plan", py_plan, METH_VARARGS, plan_doc},
    {"serial", py_serial, METH_VARARGS, serial_doc},
    {"can_table", py_can_table, METH_O, can_table_doc},
    {"best_level", py_best_level, METH_NOARGS, level_doc},
    {"source_hash", py_source_hash, METH_NOARGS, hash_doc},
    {NULL, NULL, 0, NULL},
};

static PyModuleDef_Slot SLOTS[] = {{0, NULL}};

static struct PyModuleDef MODULE = {
    PyModuleDef_HEAD_INIT, .m_name = "runtime._crossbar",
    .m_doc = "Exact crossbar products; see runtime/crossbar.py.",
    .m_methods = METHODS, .m_slots = SLOTS,
};

PyMODINIT_FUNC PyInit__crossbar(void) { return PyModuleDef_Init(&MODULE); }
