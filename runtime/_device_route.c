/* From the sums of 64 columns to the outputs they are routed to, 32 windows side by side. */
#include "_device_scan.h"

void device_turn(const uint16_t *sums, Py_ssize_t windows, uint16_t *turned) {
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
AVX512 static void route_avx512(const plan *p, Py_ssize_t tile, const uint16_t *turned,
                                uint32_t *out) {
    route_body(p, tile, turned, out);
}
#endif

route_fn *const DEVICE_ROUTE[LEVEL_COUNT] = {
    route_portable,
#if X86
    route_avx2, route_avx512,
#endif
};
