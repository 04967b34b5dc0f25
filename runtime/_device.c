/* The crossbar kernel of a non-ideal device: sums on a grid of integers, read noise, ADC codes.
 *
 * product  what runtime/analog.py:analog_product defines, bit for bit, for matrices whose sums fit
 *          16 bits and ADCs of up to 8 bits.
 *
 * A unit is a row group times a tile of 64 stored columns. Its sums for all patterns of a few word
 * lines stand in a table, so that a conversion is one or more table rows added, its noise, and a
 * shift. Without noise the table of all word lines holds the codes themselves.
 *
 * No state, no threads, no allocation inside a loop, the GIL released. All sizes are checked
 * before the first loop; a plan is checked once, when it is made, and copied. Vector instructions
 * are chosen at run time: level 0 is portable C, 1 is AVX2, 2 is AVX-512.
 */
#include "_device.h"

#include <math.h>

#ifndef PIM_SOURCE_SHA256
#define PIM_SOURCE_SHA256 "unknown"
#endif

enum { TILE = 64,         /* stored columns side by side; share one offset into the pool */
       LANES = 32,        /* windows that are routed side by side */
       BLOCK = 1024,      /* windows between two builds of the same table */
       PART_LINES = 6,    /* word lines of one partial table */
       WHOLE_LINES = 10,  /* up to here a table of all word lines pays ... */
       WHOLE_WINDOWS = 96, /* ... for this many windows */
       MAX_LINES = 1024, MAX_PARTS = MAX_LINES / 16 * 3,
       MAX_CHUNK = 16,    /* groups whose input bits are held at once */
       POOL = 1 << 16, POOL_SHIFT = 15 };

/* A matrix on the grid, in the order of execution; all arrays are owned and were checked. */
typedef struct {
    Py_ssize_t inputs, outputs, groups, lines, lists, units, words;
    int codes, fraction, bias, noisy;
    int32_t top;
    uint32_t key[2];
    Py_ssize_t chunk;
    int32_t *rows;         /* [groups][lines], `inputs` where unused: a zero stands there */
    int32_t *group;        /* [groups] number of the group in the matrix: it names its noise */
    int64_t *list_groups;  /* [lists + 1] the groups of each route list */
    int64_t *list_columns; /* [lists] */
    int64_t *list_tiles;   /* [lists + 1] tiles of each list */
    int64_t *tile_outputs; /* [tiles + 1] -> entries */
    int32_t *output;       /* [entries] */
    int64_t *entry;        /* [entries + 1] -> routes */
    int32_t *slot;         /* [routes] column within the tile */
    int32_t *factor;       /* [routes] */
    int64_t *unit_first;   /* [groups] first unit of the group */
    int16_t *cells;        /* [units][lines][TILE] */
    int32_t *variance;     /* the same, where it differs from cell to cell; else NULL */
    int16_t *std;          /* [lines + 1] by driven lines, else */
    int32_t *thresholds;   /* [codes] where they are not multiples of the LSB, else NULL */
    int16_t *pool;         /* [POOL + TILE]: the end repeats the start */
} plan;

static void plan_free(plan *p) {
    if (!p) return;
    void *owned[] = {p->rows, p->group, p->list_groups, p->list_columns, p->list_tiles,
                     p->tile_outputs, p->output, p->entry, p->slot, p->factor, p->unit_first,
                     p->cells, p->variance, p->std, p->thresholds, p->pool};
    for (size_t i = 0; i < sizeof owned / sizeof *owned; i++) free(owned[i]);
    free(p);
}

static Py_ssize_t tiles_of(int64_t columns) { return (Py_ssize_t)((columns + TILE - 1) / TILE); }

/* ------------------------------------------------------------------------------ tables */

/* How the word lines are cut: part i has `lines` lines from `first` on, within one 16-bit word. */
typedef struct {
    int count, first[MAX_PARTS], lines[MAX_PARTS], row[MAX_PARTS], rows;
} cut;

static void cut_lines(const plan *p, int whole, cut *c) {
    c->count = c->rows = 0;
    for (int word = 0; word < (int)p->lines; word += 16) {
        const int left = (int)p->lines - word < 16 ? (int)p->lines - word : 16;
        const int parts = whole ? 1 : (left + PART_LINES - 1) / PART_LINES;
        for (int i = 0, line = 0; i < parts; i++) {
            const int lines = (left - line + parts - i - 1) / (parts - i);
            c->first[c->count] = word + line;
            c->lines[c->count] = lines;
            c->row[c->count++] = c->rows;
            c->rows += 1 << lines;
            line += lines;
        }
    }
}

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

ALWAYS void build_variance(const plan *p, Py_ssize_t unit, const cut *c, int32_t *restrict table) {
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

/* ------------------------------------------------------------------------------ input bits */

/* index[window][8][words]: the word lines of a group that input bit t drives. */
static void line_bits(const plan *p, const uint8_t *u, Py_ssize_t windows, Py_ssize_t group,
                      uint8_t *row, uint16_t *index) {
    const int32_t *rows = p->rows + group * p->lines;
    row[p->inputs] = 0;
    for (Py_ssize_t w = 0; w < windows; w++, index += 8 * p->words) {
        const uint8_t *inputs = u + w * p->inputs;
        memcpy(row, inputs, (size_t)p->inputs);
        for (Py_ssize_t word = 0; word < p->words; word++) {
            const int left = (int)(p->lines - word * 16);
            uint16_t bits[8];
            device_bits(row, rows + word * 16, left < 16 ? left : 16, bits);
            for (int t = 0; t < 8; t++) index[t * p->words + word] = bits[t];
        }
    }
}

/* ------------------------------------------------------------------------------ noise */

/* Which windows a block holds. */
typedef struct {
    uint32_t *image, *window; /* [BLOCK] */
} places;

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

/* ------------------------------------------------------------------------------ the scan */

/* All windows of a block through one unit; sums[window][TILE] grows by 2^t times the codes. */
typedef struct {
    const plan *p;
    const cut *parts;
    const int16_t *table;
    const int32_t *variance; /* a table like `table`, or NULL */
    const uint8_t *codes, *saturated;
    const uint16_t *index;
    const uint32_t *drawn; /* [4][BLOCK] */
    Py_ssize_t windows;
    int valid;
    uint16_t *sums;
} scan_job;

ALWAYS uint32_t offset_of(const scan_job *j, Py_ssize_t w, int t) {
    return j->drawn[t / 2 * BLOCK + w] >> (16 * (t % 2)) & 0xffff;
}

ALWAYS Py_ssize_t row_of(const cut *c, int part, const uint16_t *words) {
    const int first = c->first[part];
    const int pattern = words[first / 16] >> (first % 16) & ((1 << c->lines[part]) - 1);
    return (Py_ssize_t)(c->row[part] + pattern) * TILE;
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
AVX512 static uint64_t scan_general_avx512(const scan_job *j) { return scan_body(j); }

/* 64 sums to codes of up to 255, in the order of _mm512_packus_epi16. */
AVX512 ALWAYS __m512i pack_codes(__m512i low, __m512i high, __m512i fraction) {
    return _mm512_packus_epi16(_mm512_srav_epi16(low, fraction),
                               _mm512_srav_epi16(high, fraction));
}

/* Above this code a packed one would be cut to 255, so that no saturation could be seen. */
ALWAYS int is_packable(const plan *p) {
    return p->codes <= 254 || p->top > 32767;
}

AVX512 static void build_codes_avx512(const plan *p, const int16_t *table, int rows, int valid,
                                      uint8_t *codes, uint8_t *saturated) {
    if (p->thresholds || !is_packable(p)) {
        build_codes(p, table, rows, valid, codes, saturated);
        return;
    }
    const __m512i limit = _mm512_set1_epi8((char)p->codes);
    const __m512i fraction = _mm512_set1_epi16((short)p->fraction);
    const __m512i natural = _mm512_set_epi64(7, 5, 3, 1, 6, 4, 2, 0);
    const uint64_t used = valid == TILE ? ~(uint64_t)0 : ((uint64_t)1 << valid) - 1;
    for (int q = 0; q < rows; q++, table += TILE) {
        const __m512i packed =
            pack_codes(_mm512_load_si512(table), _mm512_load_si512(table + 32), fraction);
        const __m512i code = _mm512_permutexvar_epi64(natural, packed);
        saturated[q] = (uint8_t)__builtin_popcountll(_mm512_cmpgt_epu8_mask(code, limit) & used);
        _mm512_store_si512(codes + q * TILE, _mm512_min_epu8(code, limit));
    }
}

AVX512 ALWAYS void add_sums(uint16_t *sums, __m512i low, __m512i high) {
    _mm512_store_si512(sums, _mm512_add_epi16(low, _mm512_load_si512(sums)));
    _mm512_store_si512(sums + 32, _mm512_add_epi16(high, _mm512_load_si512(sums + 32)));
}

AVX512 static uint64_t codes_avx512(const scan_job *j) {
    if (j->p->codes > 17) return codes_body(j); /* 15 x 17 is a byte */
    uint64_t saturated = 0;
    for (Py_ssize_t w = 0; w < j->windows; w++) {
        const uint16_t *patterns = j->index + w * 8;
        __m512i half[2];
        for (int h = 0; h < 2; h++) {
            __m512i total = _mm512_setzero_si512();
            for (int t = 3; t >= 0; t--) {
                const Py_ssize_t pattern = patterns[4 * h + t];
                saturated += j->saturated[pattern];
                total = _mm512_add_epi8(_mm512_add_epi8(total, total),
                                        _mm512_load_si512(j->codes + pattern * TILE));
            }
            half[h] = total;
        }
        __m512i wide[2];
        for (int i = 0; i < 2; i++) {
            const __m512i low = _mm512_cvtepu8_epi16(
                i ? _mm512_extracti64x4_epi64(half[0], 1) : _mm512_castsi512_si256(half[0]));
            const __m512i high = _mm512_cvtepu8_epi16(
                i ? _mm512_extracti64x4_epi64(half[1], 1) : _mm512_castsi512_si256(half[1]));
            wide[i] = _mm512_add_epi16(low, _mm512_slli_epi16(high, 4));
        }
        add_sums(j->sums + w * TILE, wide[0], wide[1]);
    }
    return saturated;
}

/* The sums of one conversion, table rows and noise of one deviation for all columns. */
AVX512 ALWAYS __m512i conversion(const scan_job *j, Py_ssize_t w, int t, const int whole,
                                 const int noisy, __m512i fraction) {
    const plan *p = j->p;
    const uint16_t *words = j->index + (w * 8 + t) * (whole ? 1 : p->words);
    const int16_t *row = j->table + (whole ? (Py_ssize_t)words[0] * TILE
                                           : row_of(j->parts, 0, words));
    __m512i low = _mm512_load_si512(row), high = _mm512_load_si512(row + 32);
    for (int i = 1; !whole && i < j->parts->count; i++) {
        row = j->table + row_of(j->parts, i, words);
        low = _mm512_add_epi16(low, _mm512_load_si512(row));
        high = _mm512_add_epi16(high, _mm512_load_si512(row + 32));
    }
    if (noisy) {
        int lines = __builtin_popcount(words[0]);
        for (Py_ssize_t i = 1; !whole && i < p->words; i++) lines += __builtin_popcount(words[i]);
        const __m512i std = _mm512_set1_epi16(p->std[lines]);
        const int16_t *drawn = p->pool + offset_of(j, w, t);
        low = _mm512_add_epi16(low, _mm512_mulhrs_epi16(_mm512_loadu_si512(drawn), std));
        high = _mm512_add_epi16(high, _mm512_mulhrs_epi16(_mm512_loadu_si512(drawn + 32), std));
    }
    return pack_codes(low, high, fraction);
}

/* 15 x 17 is a byte: with up to 17 codes four bits are joined in bytes, else in 16 bits. */
AVX512 ALWAYS uint64_t scan_avx512_body(const scan_job *j, const int whole, const int noisy,
                                        const int few) {
    const plan *p = j->p;
    const __m512i limit = _mm512_set1_epi8((char)p->codes), zero = _mm512_setzero_si512();
    const __m512i above = _mm512_set1_epi8((char)(p->codes < 255 ? p->codes + 1 : 255));
    const __m512i fraction = _mm512_set1_epi16((short)p->fraction);
    const __m512i packed_order = _mm512_set_epi64(7, 3, 6, 2, 5, 1, 4, 0);
    const uint64_t valid = j->valid == TILE ? ~(uint64_t)0 : ((uint64_t)1 << j->valid) - 1;
    const __m512i used = _mm512_permutexvar_epi64(packed_order, _mm512_movm_epi8(valid));
    __m512i saturated = zero;
    for (Py_ssize_t w = 0; w < j->windows; w++) {
        __m512i low = zero, high = zero, excess = zero, half[2] = {zero, zero};
#pragma GCC unroll 8
        for (int t = 7; t >= 0; t--) {
            const __m512i packed = conversion(j, w, t, whole, noisy, fraction);
            const __m512i code = _mm512_min_epu8(packed, limit);
            excess = _mm512_add_epi8(
                excess, _mm512_sub_epi8(_mm512_min_epu8(packed, above), code)); /* <= 8 */
            if (few) {
                half[t / 4] = _mm512_add_epi8(_mm512_add_epi8(half[t / 4], half[t / 4]), code);
            } else {
                low = _mm512_add_epi16(_mm512_add_epi16(low, low),
                                       _mm512_unpacklo_epi8(code, zero));
                high = _mm512_add_epi16(_mm512_add_epi16(high, high),
                                        _mm512_unpackhi_epi8(code, zero));
            }
        }
        if (few) {
            low = _mm512_add_epi16(_mm512_unpacklo_epi8(half[0], zero),
                                   _mm512_slli_epi16(_mm512_unpacklo_epi8(half[1], zero), 4));
            high = _mm512_add_epi16(_mm512_unpackhi_epi8(half[0], zero),
                                    _mm512_slli_epi16(_mm512_unpackhi_epi8(half[1], zero), 4));
        }
        add_sums(j->sums + w * TILE, low, high);
        saturated = _mm512_add_epi64(saturated,
                                     _mm512_sad_epu8(_mm512_and_si512(excess, used), zero));
    }
    return (uint64_t)_mm512_reduce_add_epi64(saturated);
}

#define SCAN(name, whole, noisy, few)                    \
    AVX512 static uint64_t name(const scan_job *j) {     \
        return scan_avx512_body(j, whole, noisy, few);   \
    }
SCAN(scan_whole_few, 1, 1, 1)
SCAN(scan_whole_many, 1, 1, 0)
SCAN(scan_parts_few, 0, 1, 1)
SCAN(scan_parts_many, 0, 1, 0)
SCAN(scan_quiet_few, 0, 0, 1)
SCAN(scan_quiet_many, 0, 0, 0)

AVX512 static uint64_t scan_avx512(const scan_job *j) {
    const plan *p = j->p;
    const int few = p->codes <= 17;
    if (p->thresholds || p->variance || !is_packable(p)) return scan_general_avx512(j);
    if (!p->noisy) return few ? scan_quiet_few(j) : scan_quiet_many(j);
    if (j->parts->count == 1 && p->words == 1) return few ? scan_whole_few(j) : scan_whole_many(j);
    return few ? scan_parts_few(j) : scan_parts_many(j);
}
#endif

/* ------------------------------------------------------------------------------ routes */

/* sums [windows][TILE] -> turned [TILE][LANES] */
static void turn(const uint16_t *sums, Py_ssize_t windows, uint16_t *turned) {
#if X86
    if (windows == LANES) {
        for (int w = 0; w < LANES; w += 8)
            for (int c = 0; c < TILE; c += 8) {
                __m128i a[8], b[8];
                for (int i = 0; i < 8; i++)
                    a[i] = _mm_load_si128((const __m128i *)(sums + (w + i) * TILE + c));
                for (int round = 0; round < 3; round++) {
                    for (int i = 0; i < 4; i++) {
                        b[2 * i] = _mm_unpacklo_epi16(a[i], a[i + 4]);
                        b[2 * i + 1] = _mm_unpackhi_epi16(a[i], a[i + 4]);
                    }
                    memcpy(a, b, sizeof a);
                }
                for (int i = 0; i < 8; i++)
                    _mm_store_si128((__m128i *)(turned + (c + i) * LANES + w), a[i]);
            }
        return;
    }
#endif
    for (int c = 0; c < TILE; c++)
        for (Py_ssize_t w = 0; w < windows; w++) turned[c * LANES + w] = sums[w * TILE + c];
}

/* out[output][LANES] += factor * turned[slot][LANES]; wraps as the accumulators do. */
ALWAYS void route_body(const plan *p, Py_ssize_t tile, const uint16_t *restrict turned,
                       uint32_t *restrict out) {
    for (int64_t e = p->tile_outputs[tile]; e < p->tile_outputs[tile + 1]; e++) {
        uint32_t *row = out + (Py_ssize_t)p->output[e] * LANES;
        uint32_t sum[LANES];
        memcpy(sum, row, sizeof sum);
        for (int64_t n = p->entry[e]; n < p->entry[e + 1]; n++) {
            const uint16_t *column = turned + p->slot[n] * LANES;
            const uint32_t factor = (uint32_t)p->factor[n];
            for (int i = 0; i < LANES; i++) sum[i] += column[i] * factor;
        }
        memcpy(row, sum, sizeof sum);
    }
}

static void route_portable(const plan *p, Py_ssize_t tile, const uint16_t *turned, uint32_t *out) {
    route_body(p, tile, turned, out);
}
#if X86
AVX2 static void route_avx2(const plan *p, Py_ssize_t tile, const uint16_t *turned,
                            uint32_t *out) {
    route_body(p, tile, turned, out);
}
#endif

typedef struct {
    void (*sums)(const plan *, Py_ssize_t, const cut *, int16_t *);
    void (*codes)(const plan *, const int16_t *, int, int, uint8_t *, uint8_t *);
    void (*draw)(const plan *, uint32_t, uint32_t, const places *, Py_ssize_t, uint32_t *);
    uint64_t (*scan)(const scan_job *);
    uint64_t (*scan_codes)(const scan_job *);
    void (*route)(const plan *, Py_ssize_t, const uint16_t *, uint32_t *);
} level_functions;

static const level_functions LEVELS[] = {
    {build_sums_portable, build_codes_portable, draw_portable, scan_portable, codes_portable,
     route_portable},
#if X86
    {build_sums_avx2, build_codes_avx2, draw_avx2, scan_avx2, codes_avx2, route_avx2},
    {build_sums_avx512, build_codes_avx512, draw_avx512, scan_avx512, codes_avx512, route_avx2},
#endif
};
enum { LEVEL_COUNT = sizeof LEVELS / sizeof *LEVELS };

/* ------------------------------------------------------------------------------ one call */

/* What one call needs besides its arguments. */
typedef struct {
    void *memory;
    uint8_t *row, *codes, *saturated;
    uint16_t *index, *sums, *turned; /* [chunk][BLOCK][8][words]; [BLOCK][TILE]; [TILE][LANES] */
    int16_t *table;
    int32_t *variance;
    uint32_t *drawn, *out; /* [4][BLOCK]; [BLOCK / LANES][outputs][LANES] */
    places at;
} scratch;

static int scratch_make(const plan *p, const cut *c, int coded, Py_ssize_t windows, scratch *s) {
    const size_t block = windows < BLOCK ? (size_t)windows : BLOCK;
    const size_t lanes = (block + LANES - 1) / LANES * LANES;
    const size_t rows = (size_t)c->rows, drawn = p->noisy ? BLOCK : 0;
    const size_t sizes[] = {(size_t)p->inputs + 16,
                            coded ? rows * TILE : 0,
                            coded ? rows : 0,
                            (size_t)p->chunk * block * 8 * (size_t)p->words * sizeof *s->index,
                            lanes * TILE * sizeof *s->sums,
                            TILE * LANES * sizeof *s->turned,
                            rows * TILE * sizeof *s->table,
                            p->variance ? rows * TILE * sizeof *s->variance : 0,
                            4 * drawn * sizeof *s->drawn,
                            lanes * (size_t)p->outputs * sizeof *s->out,
                            drawn * sizeof *s->at.image,
                            drawn * sizeof *s->at.window};
    enum { PIECES = sizeof sizes / sizeof *sizes };
    uint8_t *pieces[PIECES];
    size_t total = 64;
    for (int i = 0; i < PIECES; i++) total += (sizes[i] + 63) / 64 * 64;
    s->memory = calloc(total, 1);
    if (!s->memory) return -1;
    uint8_t *next = (uint8_t *)(((uintptr_t)s->memory + 63) / 64 * 64);
    for (int i = 0; i < PIECES; i++) pieces[i] = next, next += (sizes[i] + 63) / 64 * 64;
    s->row = pieces[0], s->codes = pieces[1], s->saturated = pieces[2];
    s->index = (uint16_t *)pieces[3], s->sums = (uint16_t *)pieces[4];
    s->turned = (uint16_t *)pieces[5], s->table = (int16_t *)pieces[6];
    s->variance = (int32_t *)pieces[7], s->drawn = (uint32_t *)pieces[8];
    s->out = (uint32_t *)pieces[9];
    s->at.image = (uint32_t *)pieces[10], s->at.window = (uint32_t *)pieces[11];
    return 0;
}

/* One unit: its tables, then all windows of the block. */
static uint64_t unit_run(const plan *p, const level_functions *f, const scratch *s, const cut *c,
                         int coded, Py_ssize_t group, Py_ssize_t tile, scan_job *job) {
    const Py_ssize_t unit = p->unit_first[group] + tile;
    f->sums(p, unit, c, s->table);
    if (coded) {
        f->codes(p, s->table, c->rows, job->valid, s->codes, s->saturated);
        return f->scan_codes(job);
    }
    if (p->variance) build_variance(p, unit, c, s->variance);
    if (p->noisy)
        f->draw(p, (uint32_t)p->group[group], (uint32_t)tile, &s->at, job->windows, s->drawn);
    return f->scan(job);
}

/* BLOCK windows at most: all chunks of groups of all lists, then the outputs. */
static uint64_t block_run(const plan *p, const level_functions *f, const scratch *s, const cut *c,
                          int coded, const uint8_t *u, Py_ssize_t windows, int32_t *out) {
    const Py_ssize_t lanes = (windows + LANES - 1) / LANES;
    const Py_ssize_t stride = windows * 8 * p->words;
    uint64_t saturated = 0;
    memset(s->out, 0, (size_t)(lanes * p->outputs * LANES) * sizeof *s->out);
    for (Py_ssize_t list = 0; list < p->lists; list++)
        for (Py_ssize_t g = p->list_groups[list]; g < p->list_groups[list + 1]; g += p->chunk) {
            const Py_ssize_t left = p->list_groups[list + 1] - g;
            const Py_ssize_t groups = left < p->chunk ? left : p->chunk;
            for (Py_ssize_t i = 0; i < groups; i++)
                line_bits(p, u, windows, g + i, s->row, s->index + i * stride);
            for (Py_ssize_t tile = 0; tile < tiles_of(p->list_columns[list]); tile++) {
                const int64_t rest = p->list_columns[list] - tile * TILE;
                scan_job job = {p, c, s->table, p->variance ? s->variance : NULL, s->codes,
                                s->saturated, s->index, s->drawn, windows,
                                rest < TILE ? (int)rest : TILE, s->sums};
                memset(s->sums, 0, (size_t)(windows * TILE) * sizeof *s->sums);
                for (Py_ssize_t i = 0; i < groups; i++, job.index += stride)
                    saturated += unit_run(p, f, s, c, coded, g + i, tile, &job);
                for (Py_ssize_t l = 0; l < lanes; l++) {
                    const Py_ssize_t last = windows - l * LANES;
                    turn(s->sums + l * LANES * TILE, last < LANES ? last : LANES, s->turned);
                    f->route(p, p->list_tiles[list] + tile, s->turned,
                             s->out + l * p->outputs * LANES);
                }
            }
        }
    for (Py_ssize_t w = 0; w < windows; w++)
        for (Py_ssize_t o = 0; o < p->outputs; o++)
            out[w * p->outputs + o] =
                (int32_t)s->out[((w / LANES) * p->outputs + o) * LANES + w % LANES];
    return saturated;
}

/* Where a product stands: see runtime/analog.py:Place. */
typedef struct {
    uint32_t image, window, windows;
} origin;

/* The loops of one call; *saturated gets the conversions that clipped. -1: out of memory. */
static int product_run(const plan *p, int level, const uint8_t *u, Py_ssize_t windows,
                       const origin *from, int32_t *out, uint64_t *saturated) {
    const int whole = p->lines <= WHOLE_LINES && windows >= WHOLE_WINDOWS;
    const int coded = whole && !p->noisy;
    cut c;
    scratch s;
    *saturated = 0;
    cut_lines(p, whole, &c);
    if (scratch_make(p, &c, coded, windows, &s) < 0) return -1;
    for (Py_ssize_t w = 0; w < windows; w += BLOCK) {
        const Py_ssize_t block = windows - w < BLOCK ? windows - w : BLOCK;
        for (Py_ssize_t i = 0; p->noisy && i < block; i++) {
            s.at.image[i] = from->image + (uint32_t)((w + i) / from->windows);
            s.at.window[i] = from->window + (uint32_t)((w + i) % from->windows);
        }
        *saturated += block_run(p, &LEVELS[level], &s, &c, coded, u + w * p->inputs, block,
                                out + w * p->outputs);
    }
    free(s.memory);
    return 0;
}

/* ------------------------------------------------------------------------------ Python */

static const char PLAN[] = "runtime._device.plan";

static void plan_release(PyObject *capsule) { plan_free(PyCapsule_GetPointer(capsule, PLAN)); }

/* A C-contiguous buffer of `items` elements of `size` bytes, or -1 with an error. */
int device_take(PyObject *object, Py_buffer *view, const char *name, Py_ssize_t items,
                Py_ssize_t size, int writable) {
    if (PyObject_GetBuffer(object, view, PyBUF_C_CONTIGUOUS | (writable ? PyBUF_WRITABLE : 0)) < 0)
        return -1;
    if (view->itemsize == size && view->len == items * size) return 0;
    PyErr_Format(PyExc_ValueError, "%s: expected %zd elements of %zd bytes, found %zd of %zd", name,
                 items, size, view->len / view->itemsize, view->itemsize);
    PyBuffer_Release(view);
    return -1;
}

void *device_copy(PyObject *object, const char *name, Py_ssize_t items, Py_ssize_t size) {
    Py_buffer view;
    if (items < 0 || device_take(object, &view, name, items, size, 0) < 0) return NULL;
    void *copy = malloc((size_t)(items * size) + 64);
    if (copy) memcpy(copy, view.buf, (size_t)(items * size));
    else PyErr_NoMemory();
    PyBuffer_Release(&view);
    return copy;
}

/* Bounds that rise from 0 to `last`. */
int device_rises(const int64_t *bounds, Py_ssize_t count, int64_t last, const char *name) {
    int sound = bounds[0] == 0 && bounds[count] == last;
    for (Py_ssize_t i = 0; i < count; i++) sound &= bounds[i] <= bounds[i + 1];
    if (!sound) PyErr_Format(PyExc_ValueError, "%s: must rise from 0 to %lld", name, (long long)last);
    return sound ? 0 : -1;
}

int device_within(const int32_t *values, Py_ssize_t count, int64_t low, int64_t high,
                  const char *name) {
    for (Py_ssize_t i = 0; i < count; i++)
        if (values[i] < low || values[i] >= high) {
            PyErr_Format(PyExc_ValueError, "%s: %d is outside %lld..%lld", name, (int)values[i],
                         (long long)low, (long long)high);
            return -1;
        }
    return 0;
}

/* Turn cells [columns][lines] into units [lines][TILE]; `size` bytes each, 2 or 4. */
static void *unit_cells(const plan *p, PyObject *object, const char *name, const int64_t *first,
                        Py_ssize_t columns, Py_ssize_t size) {
    Py_buffer view;
    if (device_take(object, &view, name, columns * p->lines, size, 0) < 0) return NULL;
    uint8_t *units = calloc((size_t)(p->units * p->lines * TILE + 1), (size_t)size);
    const uint8_t *from = view.buf;
    if (!units) PyErr_NoMemory();
    for (Py_ssize_t list = 0; units && list < p->lists; list++)
        for (Py_ssize_t g = p->list_groups[list]; g < p->list_groups[list + 1]; g++)
            for (int64_t c = 0; c < p->list_columns[list]; c++)
                for (Py_ssize_t line = 0; line < p->lines; line++)
                    memcpy(units + (((p->unit_first[g] + c / TILE) * p->lines + line) * TILE +
                                    c % TILE) * size,
                           from + ((first[g] + c) * p->lines + line) * size, (size_t)size);
    PyBuffer_Release(&view);
    return units;
}

/* Number the units; every group must own the columns of its list. */
static int plan_units(plan *p, const int64_t *first, Py_ssize_t columns) {
    p->unit_first = malloc((size_t)(p->groups + 1) * sizeof *p->unit_first);
    p->list_tiles = malloc((size_t)(p->lists + 1) * sizeof *p->list_tiles);
    if (!p->unit_first || !p->list_tiles) {
        PyErr_NoMemory();
        return -1;
    }
    p->units = 0;
    p->list_tiles[0] = 0;
    for (Py_ssize_t list = 0; list < p->lists; list++) {
        const int64_t count = p->list_columns[list];
        if (count < 0 || count > INT32_MAX) { /* a list without groups may be longer than all */
            PyErr_Format(PyExc_ValueError, "list_columns: %lld", (long long)count);
            return -1;
        }
        p->list_tiles[list + 1] = p->list_tiles[list] + tiles_of(count);
        for (Py_ssize_t g = p->list_groups[list]; g < p->list_groups[list + 1]; g++) {
            if (first[g] < 0 || first[g] > columns - count) {
                PyErr_Format(PyExc_ValueError, "first: group %zd has columns %lld + %lld of %zd", g,
                             (long long)first[g], (long long)count, columns);
                return -1;
            }
            p->unit_first[g] = p->units;
            p->units += tiles_of(count);
        }
    }
    return 0;
}

static int plan_limits(plan *p) {
    if (p->inputs < 1 || p->outputs < 1 || p->groups < 0 || p->lists < 0 || p->lines < 1 ||
        p->lines > MAX_LINES || p->codes < 1 || p->codes > 255 || p->fraction < 0 ||
        p->fraction > 14 || p->bias < -32768 || p->bias > 32767) {
        PyErr_Format(PyExc_ValueError, "plan: %zd lines, %d codes, fraction %d, bias %d", p->lines,
                     p->codes, p->fraction, p->bias);
        return -1;
    }
    p->words = (p->lines + 15) / 16;
    p->chunk = 65535 / 255 / p->codes; /* sums of a chunk fit 16 bits */
    if (p->chunk > MAX_CHUNK) p->chunk = MAX_CHUNK;
    return 0;
}

PyDoc_STRVAR(
    plan_doc,
    "plan(inputs, outputs, columns, (groups, lines, lists), (codes, fraction, bias, top),\n"
    "     (rows, group, first, list_groups, list_columns), cells,\n"
    "     (entries, routes, tile_outputs, output, entry, slot, factor),\n"
    "     thresholds, noise)\n--\n\n"
    "Check and copy a matrix on the grid; thresholds and noise may be None.\n"
    "noise: (key0, key1, pool, std, variance), one of the last two None.");

static int plan_noise(plan *p, PyObject *noise, const int64_t *first, Py_ssize_t columns) {
    PyObject *pool, *std, *variance;
    unsigned long long k0, k1;
    if (noise == Py_None) return 0;
    if (!PyArg_ParseTuple(noise, "KKOOO:noise", &k0, &k1, &pool, &std, &variance)) return -1;
    p->noisy = 1, p->key[0] = (uint32_t)k0, p->key[1] = (uint32_t)k1;
    if (!(p->pool = device_copy(pool, "pool", POOL + TILE, 2))) return -1;
    if (variance != Py_None)
        return (p->variance = unit_cells(p, variance, "variance", first, columns, 4)) ? 0 : -1;
    return (p->std = device_copy(std, "std", p->lines + 1, 2)) ? 0 : -1;
}

static int plan_routes(plan *p, PyObject *routes) {
    PyObject *o[5];
    Py_ssize_t entries, count;
    if (!PyArg_ParseTuple(routes, "nnOOOOO:routes", &entries, &count, &o[0], &o[1], &o[2], &o[3],
                          &o[4]))
        return -1;
    const Py_ssize_t tiles = (Py_ssize_t)p->list_tiles[p->lists];
    if (!(p->tile_outputs = device_copy(o[0], "tile_outputs", tiles + 1, 8)) ||
        !(p->output = device_copy(o[1], "output", entries, 4)) ||
        !(p->entry = device_copy(o[2], "entry", entries + 1, 8)) ||
        !(p->slot = device_copy(o[3], "slot", count, 4)) ||
        !(p->factor = device_copy(o[4], "factor", count, 4)))
        return -1;
    return device_rises(p->tile_outputs, tiles, entries, "tile_outputs") < 0 ||
                   device_rises(p->entry, entries, count, "entry") < 0 ||
                   device_within(p->output, entries, 0, p->outputs, "output") < 0 ||
                   device_within(p->slot, count, 0, TILE, "slot") < 0
               ? -1 : 0;
}

static PyObject *py_plan(PyObject *self, PyObject *args) {
    PyObject *layout, *cells, *routes, *thresholds, *noise, *o[5];
    Py_ssize_t columns;
    int64_t *first = NULL;
    (void)self;
    plan *p = calloc(1, sizeof *p);
    if (!p) return PyErr_NoMemory();
    if (!PyArg_ParseTuple(args, "nnn(nnn)(iiii)OOOOO:plan", &p->inputs, &p->outputs, &columns,
                          &p->groups, &p->lines, &p->lists, &p->codes, &p->fraction, &p->bias,
                          &p->top, &layout, &cells, &routes, &thresholds, &noise) ||
        plan_limits(p) < 0 ||
        !PyArg_ParseTuple(layout, "OOOOO:layout", &o[0], &o[1], &o[2], &o[3], &o[4]))
        goto fail;
    if (!(p->rows = device_copy(o[0], "rows", p->groups * p->lines, 4)) ||
        !(p->group = device_copy(o[1], "group", p->groups, 4)) ||
        !(first = device_copy(o[2], "first", p->groups, 8)) ||
        !(p->list_groups = device_copy(o[3], "list_groups", p->lists + 1, 8)) ||
        !(p->list_columns = device_copy(o[4], "list_columns", p->lists, 8)) ||
        device_rises(p->list_groups, p->lists, p->groups, "list_groups") < 0 ||
        device_within(p->rows, p->groups * p->lines, -1, p->inputs, "rows") < 0 ||
        plan_units(p, first, columns) < 0 || plan_routes(p, routes) < 0 ||
        !(p->cells = unit_cells(p, cells, "cells", first, columns, 2)) ||
        plan_noise(p, noise, first, columns) < 0)
        goto fail;
    if (thresholds != Py_None &&
        !(p->thresholds = device_copy(thresholds, "thresholds", p->codes, 4)))
        goto fail;
    for (Py_ssize_t i = 0; i < p->groups * p->lines; i++)
        if (p->rows[i] < 0) p->rows[i] = (int32_t)p->inputs;
    free(first);
    PyObject *capsule = PyCapsule_New(p, PLAN, plan_release);
    if (!capsule) plan_free(p);
    return capsule;
fail:
    free(first);
    plan_free(p);
    return NULL;
}

PyDoc_STRVAR(product_doc,
             "product(plan, u, out, image, window, windows, level)\n--\n\n"
             "The non-ideal product in codes; returns the number of saturated conversions.");

static PyObject *py_product(PyObject *self, PyObject *args) {
    PyObject *capsule, *objects[2], *result = NULL;
    Py_buffer u, out;
    unsigned long long image, window, windows;
    int level;
    (void)self;
    if (!PyArg_ParseTuple(args, "OOOKKKi:product", &capsule, &objects[0], &objects[1], &image,
                          &window, &windows, &level))
        return NULL;
    const plan *p = PyCapsule_GetPointer(capsule, PLAN);
    if (!p) return NULL;
    if (level < 0 || level >= LEVEL_COUNT || windows < 1 || windows > UINT32_MAX) {
        PyErr_Format(PyExc_ValueError, "product: level %d, %llu windows", level, windows);
        return NULL;
    }
    if (PyObject_GetBuffer(objects[0], &u, PyBUF_C_CONTIGUOUS) < 0) return NULL;
    const Py_ssize_t count = u.len / p->inputs;
    if (u.itemsize != 1 || count * p->inputs != u.len) {
        PyErr_Format(PyExc_ValueError, "u: %zd bytes are no windows of %zd inputs", u.len, p->inputs);
    } else if (device_take(objects[1], &out, "out", count * p->outputs, 4, 1) == 0) {
        uint64_t saturated;
        int status;
        const origin from = {(uint32_t)image, (uint32_t)window, (uint32_t)windows};
        Py_BEGIN_ALLOW_THREADS
        status = product_run(p, level, u.buf, count, &from, out.buf, &saturated);
        Py_END_ALLOW_THREADS
        result = status < 0 ? PyErr_NoMemory() : PyLong_FromUnsignedLongLong(saturated);
        PyBuffer_Release(&out);
    }
    PyBuffer_Release(&u);
    return result;
}

PyDoc_STRVAR(hash_doc, "source_hash()\n--\n\nThe sha256 of the source this was compiled from.");

static PyObject *py_source_hash(PyObject *self, PyObject *unused) {
    (void)self, (void)unused;
    return PyUnicode_FromString(PIM_SOURCE_SHA256);
}

static PyMethodDef METHODS[] = {
    {"plan", py_plan, METH_VARARGS, plan_doc},
    {"product", py_product, METH_VARARGS, product_doc},
    {"sparse_plan", device_sparse_plan, METH_VARARGS, device_sparse_plan_doc},
    {"sparse", device_sparse, METH_VARARGS, device_sparse_doc},
    {"source_hash", py_source_hash, METH_NOARGS, hash_doc},
    {NULL, NULL, 0, NULL},
};

static PyModuleDef_Slot SLOTS[] = {{0, NULL}};

static struct PyModuleDef MODULE = {
    PyModuleDef_HEAD_INIT, .m_name = "runtime._device",
    .m_doc = "Products of a non-ideal device; see runtime/analog.py.",
    .m_methods = METHODS, .m_slots = SLOTS,
};

PyMODINIT_FUNC PyInit__device(void) { return PyModuleDef_Init(&MODULE); }
