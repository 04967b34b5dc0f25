/* The table method: column sums of all patterns of a row group, made once, added per window. */
#include "_crossbar.h"

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
    void (*build)(const plan *, Py_ssize_t, Py_ssize_t, Py_ssize_t, uint8_t *);
    uint64_t (*scan)(const plan *, const scan_job *);
    void (*route)(const plan *, Py_ssize_t, const uint16_t *, int32_t *);
} level_functions;

static const level_functions LEVELS[] = {
    {build_portable, scan_portable, route_portable},
#if X86
    {build_avx2, scan_avx2, route_avx2},
    {build_avx512, scan_avx512, route_avx2},
#endif
};

uint64_t table_block(const plan *p, int level, const scratch *s, const uint8_t *u,
                     Py_ssize_t windows, int32_t *out) {
    const level_functions *f = &LEVELS[level];
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
