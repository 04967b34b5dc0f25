/* The scan of a unit by AVX-512, where the ADC's transitions are multiples of the LSB and all cells
 * have the same noise. */
#include "_device_scan.h"

#if X86
/* 64 sums to codes of up to 255, in the order of _mm512_packus_epi16. */
AVX512 ALWAYS __m512i pack_codes(__m512i low, __m512i high, __m512i fraction) {
    return _mm512_packus_epi16(_mm512_srav_epi16(low, fraction),
                               _mm512_srav_epi16(high, fraction));
}

/* Above this code a packed one would be cut to 255, so that no saturation could be seen. */
ALWAYS int is_packable(const plan *p) {
    return p->codes <= 254 || p->top > 32767;
}

AVX512 int device_codes_avx512(const plan *p, const int16_t *table, int rows, int valid,
                               uint8_t *codes, uint8_t *saturated) {
    if (p->thresholds || !is_packable(p)) return 0;
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
    return 1;
}

AVX512 ALWAYS void add_sums(uint16_t *sums, __m512i low, __m512i high) {
    _mm512_store_si512(sums, _mm512_add_epi16(low, _mm512_load_si512(sums)));
    _mm512_store_si512(sums + 32, _mm512_add_epi16(high, _mm512_load_si512(sums + 32)));
}

AVX512 int device_scan_codes_avx512(const scan_job *j, uint64_t *saturated) {
    if (j->p->codes > 17) return 0; /* 15 x 17 is a byte */
    *saturated = 0;
    for (Py_ssize_t w = 0; w < j->windows; w++) {
        const uint16_t *patterns = j->index + w * 8;
        __m512i half[2];
        for (int h = 0; h < 2; h++) {
            __m512i total = _mm512_setzero_si512();
            for (int t = 3; t >= 0; t--) {
                const Py_ssize_t pattern = patterns[4 * h + t];
                *saturated += j->saturated[pattern];
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
    return 1;
}

/* The sums of one conversion, table rows and noise of one deviation for all columns. */
AVX512 ALWAYS __m512i conversion(const scan_job *j, Py_ssize_t w, Py_ssize_t drawn_as, int t,
                                 const int whole, const int noisy, __m512i fraction) {
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
        const int16_t *drawn = p->pool + offset_of(j, drawn_as, t);
        low = _mm512_add_epi16(low, _mm512_mulhrs_epi16(_mm512_loadu_si512(drawn), std));
        high = _mm512_add_epi16(high, _mm512_mulhrs_epi16(_mm512_loadu_si512(drawn + 32), std));
    }
    return pack_codes(low, high, fraction);
}

/* What all conversions of a unit share. */
typedef struct {
    __m512i limit, one, fraction, used;
} ends;

AVX512 ALWAYS ends ends_of(const scan_job *j) {
    const int codes = j->p->codes;
    const __m512i packed_order = _mm512_set_epi64(7, 3, 6, 2, 5, 1, 4, 0);
    const uint64_t valid = j->valid == TILE ? ~(uint64_t)0 : ((uint64_t)1 << j->valid) - 1;
    return (ends){_mm512_set1_epi8((char)codes),
                  _mm512_set1_epi8(1),
                  _mm512_set1_epi16((short)j->p->fraction),
                  _mm512_permutexvar_epi64(packed_order, _mm512_movm_epi8(valid))};
}

/* One window: sums += 2^t times its codes, over the input bits of `driven`; returns how many of
 * each eight columns are saturated. 15 x 17 is a byte: with up to 17 codes four bits are joined in
 * bytes, else in 16 bits. */
AVX512 ALWAYS __m512i scan_window(const scan_job *j, const ends *e, Py_ssize_t w,
                                  Py_ssize_t drawn_as, int driven, const int whole,
                                  const int noisy, const int few) {
    const __m512i zero = _mm512_setzero_si512();
    __m512i low = zero, high = zero, excess = zero, half[2] = {zero, zero};
#pragma GCC unroll 8
    for (int t = 7; t >= 0; t--) {
        if (few) {
            half[t / 4] = _mm512_add_epi8(half[t / 4], half[t / 4]);
        } else {
            low = _mm512_add_epi16(low, low);
            high = _mm512_add_epi16(high, high);
        }
        if (!(driven >> t & 1)) continue;
        const __m512i packed = conversion(j, w, drawn_as, t, whole, noisy, e->fraction);
        const __m512i code = _mm512_min_epu8(packed, e->limit);
        excess = _mm512_mask_add_epi8(excess, _mm512_cmpgt_epu8_mask(packed, e->limit), excess,
                                      e->one); /* <= 8 */
        if (few) {
            half[t / 4] = _mm512_add_epi8(half[t / 4], code);
        } else {
            low = _mm512_add_epi16(low, _mm512_unpacklo_epi8(code, zero));
            high = _mm512_add_epi16(high, _mm512_unpackhi_epi8(code, zero));
        }
    }
    if (few) {
        low = _mm512_add_epi16(_mm512_unpacklo_epi8(half[0], zero),
                               _mm512_slli_epi16(_mm512_unpacklo_epi8(half[1], zero), 4));
        high = _mm512_add_epi16(_mm512_unpackhi_epi8(half[0], zero),
                                _mm512_slli_epi16(_mm512_unpackhi_epi8(half[1], zero), 4));
    }
    add_sums(j->sums + w * TILE, low, high);
    return _mm512_sad_epu8(_mm512_and_si512(excess, e->used), zero);
}

AVX512 ALWAYS uint64_t scan_all(const scan_job *j, const int noisy, const int few) {
    const ends e = ends_of(j);
    __m512i saturated = _mm512_setzero_si512();
    for (Py_ssize_t w = 0; w < j->windows; w++)
        saturated = _mm512_add_epi64(saturated,
                                     scan_window(j, &e, w, w, 0xff, 0, noisy, few));
    return (uint64_t)_mm512_reduce_add_epi64(saturated);
}

/* With noise and the table of all word lines, by runs: branches on the driven bits are foreseen. */
AVX512 ALWAYS uint64_t scan_runs(const scan_job *j, const int few) {
    const ends e = ends_of(j);
    const runs *r = j->runs;
    __m512i saturated = _mm512_setzero_si512();
    for (int m = 1; m < 255; m++)
        for (Py_ssize_t i = r->start[m]; i < r->start[m + 1]; i++)
            saturated = _mm512_add_epi64(
                saturated, scan_window(j, &e, r->window[i], i - r->start[1], m, 1, 1, few));
    for (Py_ssize_t i = r->start[255]; i < r->start[256]; i++)
        saturated = _mm512_add_epi64(
            saturated, scan_window(j, &e, r->window[i], i - r->start[1], 0xff, 1, 1, few));
    return (uint64_t)_mm512_reduce_add_epi64(saturated);
}

#define SCAN(name, noisy, few) \
    AVX512 static uint64_t name(const scan_job *j) { return scan_all(j, noisy, few); }
SCAN(scan_noisy_few, 1, 1)
SCAN(scan_noisy_many, 1, 0)
SCAN(scan_quiet_few, 0, 1)
SCAN(scan_quiet_many, 0, 0)
AVX512 static uint64_t scan_runs_few(const scan_job *j) { return scan_runs(j, 1); }
AVX512 static uint64_t scan_runs_many(const scan_job *j) { return scan_runs(j, 0); }

static int is_usual(const plan *p) { return !p->thresholds && !p->variance && is_packable(p); }

int device_scans_runs(const plan *p) { return p->noisy && p->words == 1 && is_usual(p); }

int device_scan_avx512(const scan_job *j, uint64_t *saturated) {
    const plan *p = j->p;
    const int few = p->codes <= 17;
    if (!is_usual(p)) return 0;
    if (j->runs) *saturated = few ? scan_runs_few(j) : scan_runs_many(j);
    else if (p->noisy) *saturated = few ? scan_noisy_few(j) : scan_noisy_many(j);
    else *saturated = few ? scan_quiet_few(j) : scan_quiet_many(j);
    return 1;
}
#endif
