/* The product of a static device: the linear product, which is in `out` already, plus the listed
 * differences; see _device_sparse.h.
 *
 * One window at a time, a bit a pattern says whether there is anything to look up. 64 windows at a
 * time, a byte of an input is eight lanes, one an input bit, and a vector of 64 bytes is a word
 * line in 64 windows; a pattern is met in the lanes where the lines it names are set and the
 * others are not. Lane t weighs 2^t, so such a vector, read as bytes, is joined over the input
 * bits already.
 */
#include "_device_sparse.h"

typedef uint64_t planes __attribute__((vector_size(SLICE)));
typedef uint16_t shorts __attribute__((vector_size(SLICE)));
typedef int16_t eight_shorts __attribute__((vector_size(16)));
typedef uint32_t eight_words __attribute__((vector_size(32)));

enum { EVEN = 0x00ff }; /* windows 0, 2, ... of a vector of bytes seen as shorts */

uint64_t sparse_window(const sparse *p, const uint8_t *row, uint32_t *out) {
    uint64_t saturated = 0;
    for (Py_ssize_t list = 0; list < p->lists; list++)
        for (Py_ssize_t g = p->list_groups[list]; g < p->list_groups[list + 1]; g++) {
            const uint64_t *any = p->any + g * p->words;
            uint16_t bits[8];
            device_bits(row, p->rows + g * p->lines, (int)p->lines, bits);
            for (int t = 0; t < 8; t++) {
                const unsigned word = bits[t] / 64u, bit = bits[t] % 64u;
                if (!(any[word] >> bit & 1)) continue;
                const uint64_t below = any[word] & (((uint64_t)1 << bit) - 1);
                const hit *found =
                    p->hits + p->rank[g * p->words + word] + __builtin_popcountll(below);
                saturated += (uint64_t)found->saturated;
                for (int64_t i = found[0].start; i < found[1].start; i++) {
                    const int64_t slot = p->list_slots[list] + p->differences[i].column;
                    const uint32_t delta = (uint32_t)p->differences[i].delta << t;
                    for (int64_t n = p->route_start[slot]; n < p->route_start[slot + 1]; n++)
                        out[p->output[n]] += delta * (uint32_t)p->factor[n];
                }
            }
        }
    return saturated;
}

/* ------------------------------------------------------------------------------ 64 windows */

int slice_make(const sparse *p, slice_scratch *s) {
    const size_t entries = ((size_t)1 << p->half) + ((size_t)1 << (p->lines - p->half));
    const size_t sizes[] = {entries * SLICE, (size_t)p->most_columns * 2 * SLICE,
                            (size_t)(p->inputs + 1) * SLICE, (size_t)p->outputs * SLICE * 4};
    s->memory = calloc(sizes[0] + sizes[1] + sizes[2] + sizes[3] + SLICE, 1);
    if (!s->memory) return -1;
    uint8_t *next = (uint8_t *)(((uintptr_t)s->memory + SLICE - 1) / SLICE * SLICE);
    s->match = next, s->sums = next + sizes[0];
    s->turned = (uint8_t *)s->sums + sizes[1];
    s->out = (uint32_t *)(s->turned + sizes[2]);
    return 0;
}

/* turned[input][SLICE]: an input of all windows side by side, then one of zeros */
static void slice_turn(const sparse *p, const uint8_t *u, Py_ssize_t windows, uint8_t *turned) {
    memset(turned + p->inputs * SLICE, 0, SLICE);
    if (windows < SLICE) memset(turned, 0, (size_t)p->inputs * SLICE);
    Py_ssize_t w = 0;
    for (; w + 8 <= windows; w += 8)
        for (Py_ssize_t i = 0; i < p->inputs; i++) {
            const uint8_t *from = u + w * p->inputs + i;
            uint64_t eight = 0;
            for (int k = 0; k < 8; k++) eight |= (uint64_t)from[k * p->inputs] << (8 * k);
            memcpy(turned + i * SLICE + w, &eight, sizeof eight);
        }
    for (; w < windows; w++)
        for (Py_ssize_t i = 0; i < p->inputs; i++) turned[i * SLICE + w] = u[w * p->inputs + i];
}

/* match[pattern]: where the lines that the pattern names are set, among those of match[0] */
ALWAYS void slice_match(const int32_t *rows, int lines, const uint8_t *turned, planes *match) {
    for (int line = 0; line < lines; line++) {
        const planes input = *(const planes *)(turned + (Py_ssize_t)rows[line] * SLICE);
        planes *with = match + ((Py_ssize_t)1 << line);
        for (int q = 0; q < 1 << line; q++) {
            with[q] = match[q] & input;
            match[q] &= ~input;
        }
    }
}

/* sums[column][2]: += the differences of one group, of even and of odd windows */
ALWAYS uint64_t slice_group(const sparse *p, Py_ssize_t g, const planes *match, shorts *sums) {
    const int half = p->half;
    const planes *second = match + ((Py_ssize_t)1 << half);
    const unsigned low = (1u << half) - 1;
    for (const step *s = p->steps + p->group_steps[g]; s < p->steps + p->group_steps[g + 1]; s++) {
        planes found = {0};
        for (int64_t i = s[0].start; i < s[1].start; i++)
            found |= match[p->pattern[i] & low] & second[p->pattern[i] >> half];
        shorts *to = sums + 2 * (Py_ssize_t)s->column;
        to[0] += ((shorts)found & EVEN) * (uint16_t)s->delta;
        to[1] += ((shorts)found >> 8) * (uint16_t)s->delta;
    }
    planes counts = {0};
    for (int64_t h = p->rank[g * p->words]; h < p->rank[(g + 1) * p->words]; h++) {
        const hit *at = p->hits + h;
        if (at->saturated == 0) continue;
        const planes found = match[at->pattern & low] & second[at->pattern >> half];
        for (int k = 0; k < SLICE / 8; k++)
            counts[k] += (uint64_t)__builtin_popcountll(found[k]) * (uint64_t)at->saturated;
    }
    uint64_t saturated = 0;
    for (int k = 0; k < SLICE / 8; k++) saturated += counts[k];
    return saturated;
}

/* out[output][SLICE] += factor * sums[column] over the routes of a list; clears the sums */
ALWAYS void slice_route(const sparse *p, Py_ssize_t list, shorts *sums, uint32_t *out) {
    for (int64_t e = p->list_outputs[list]; e < p->list_outputs[list + 1]; e++) {
        uint32_t *row = out + (Py_ssize_t)p->reached[e] * SLICE;
        eight_words total[SLICE / 8];
        memcpy(total, row, sizeof total);
        for (int64_t n = p->reach[e]; n < p->reach[e + 1]; n++) {
            const int16_t *column = (const int16_t *)(sums + 2 * (Py_ssize_t)p->slot[n]);
            const uint32_t factor = (uint32_t)p->slot_factor[n]; /* wraps as the accumulators do */
            for (int i = 0; i < SLICE / 8; i++) {
                eight_shorts eight;
                memcpy(&eight, column + i * 8, sizeof eight);
                total[i] += __builtin_convertvector(eight, eight_words) * factor;
            }
        }
        memcpy(row, total, sizeof total);
    }
    memset(sums, 0, (size_t)p->list_columns[list] * 2 * sizeof *sums);
}

ALWAYS uint64_t slice_body(const sparse *p, const slice_scratch *s, Py_ssize_t windows) {
    const int most = p->largest ? 32767 / 255 / p->largest : 1; /* groups whose sums fit 16 bits */
    planes *match = s->match, valid;
    memset(&valid, 0, sizeof valid);
    memset(&valid, 0xff, (size_t)windows);
    uint64_t saturated = 0;
    for (Py_ssize_t list = 0; list < p->lists; list++) {
        int pending = 0;
        for (Py_ssize_t g = p->list_groups[list]; g < p->list_groups[list + 1]; g++) {
            if (p->rank[g * p->words] == p->rank[(g + 1) * p->words]) continue;
            const int32_t *rows = p->rows + g * p->lines;
            match[0] = valid;
            match[(Py_ssize_t)1 << p->half] = ~(planes){0};
            slice_match(rows, p->half, s->turned, match);
            slice_match(rows + p->half, (int)p->lines - p->half, s->turned,
                        match + ((Py_ssize_t)1 << p->half));
            saturated += slice_group(p, g, match, s->sums);
            if (++pending < most) continue;
            slice_route(p, list, s->sums, s->out);
            pending = 0;
        }
        if (pending) slice_route(p, list, s->sums, s->out);
    }
    return saturated;
}

typedef uint64_t slice_fn(const sparse *, const slice_scratch *, Py_ssize_t);
static uint64_t slice_portable(const sparse *p, const slice_scratch *s, Py_ssize_t windows) {
    return slice_body(p, s, windows);
}
#if X86
AVX2 static uint64_t slice_avx2(const sparse *p, const slice_scratch *s, Py_ssize_t windows) {
    return slice_body(p, s, windows);
}
AVX512 static uint64_t slice_avx512(const sparse *p, const slice_scratch *s, Py_ssize_t windows) {
    return slice_body(p, s, windows);
}
#endif

static slice_fn *const LEVELS[] = {
    slice_portable,
#if X86
    slice_avx2, slice_avx512,
#endif
};

uint64_t sparse_slice(const sparse *p, int level, const slice_scratch *s, const uint8_t *u,
                      Py_ssize_t windows, uint32_t *out) {
    slice_turn(p, u, windows, s->turned);
    memset(s->out, 0, (size_t)(p->outputs * SLICE) * sizeof *s->out);
    const uint64_t saturated = LEVELS[level](p, s, windows);
    for (Py_ssize_t w = 0; w < windows; w++)
        for (Py_ssize_t o = 0; o < p->outputs; o++)
            out[w * p->outputs + o] += s->out[o * SLICE + w / 2 + w % 2 * SLICE / 2];
    return saturated;
}
