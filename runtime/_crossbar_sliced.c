/* The sliced method: what the ADC cuts off, for the 8 bits of 64 inputs at a time.
 *
 * A byte of an input is eight lanes, one a bit; a vector is one word line in 64 windows. A column
 * sum is a stack of such vectors, its bit planes, added as a carry-save adder does. Lane t weighs
 * 2^t, so a plane of the excess, read as bytes again, is already joined over the input bits.
 *
 * The lines of a group are halved; the sums of all patterns of a half are made once for the 64
 * windows, `slice_bias` included, so that a sum clips where it reaches 2^slice_bits:
 * sum + bias = 2^bits + excess - 1. Expects the linear product in out, as the excess method.
 */
#include "_crossbar.h"

typedef uint64_t planes __attribute__((vector_size(SLICE)));
typedef uint16_t shorts __attribute__((vector_size(SLICE)));
typedef uint32_t eight_words __attribute__((vector_size(32)));
typedef uint16_t eight_shorts __attribute__((vector_size(16)));

enum { EVEN = 0x00ff }; /* windows 0, 2, ... of a vector of bytes seen as shorts */

/* turned[input][SLICE]: an input of all windows side by side, then one of zeros */
static void slice_turn(const plan *p, const uint8_t *u, Py_ssize_t windows, uint8_t *turned) {
    memset(turned, 0, (size_t)(p->inputs + 1) * SLICE);
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

/* table[pattern][count]: bias plus the inputs on the lines that the pattern names */
ALWAYS void slice_table(const int32_t *rows, int lines, const uint8_t *turned, int bias,
                        planes *table, int count) {
    for (int i = 0; i < count; i++) table[i] = (planes){0} - (uint64_t)(bias >> i & 1);
    for (int line = 0; line < lines; line++) {
        const planes input = *(const planes *)(turned + (Py_ssize_t)rows[line] * SLICE);
        const planes *from = table;
        planes *to = table + ((Py_ssize_t)count << line);
        for (int q = 0; q < 1 << line; q++, from += count, to += count) {
            planes carry = input;
            for (int i = 0; i < count; i++) {
                to[i] = from[i] ^ carry;
                carry &= from[i];
            }
        }
    }
}

/* The sizes of a plan that the inner loop is compiled for. */
typedef struct {
    int first, second, bits, excess;
} slice_shape;

/* sums[slot][2]: += excess of one group's columns, of even and of odd windows */
ALWAYS uint64_t slice_group(const plan *p, Py_ssize_t g, const planes *tables, shorts *sums,
                            const slice_shape shape) {
    const planes *second = tables + ((Py_ssize_t)shape.first << p->slice_lines);
    const uint32_t low = (1u << p->slice_lines) - 1;
    const uint32_t high = (1u << (p->lines - p->slice_lines)) - 1;
    planes counts = {0};
    for (int64_t d = p->danger_first[g]; d < p->danger_first[g + 1]; d++) {
        const uint32_t cells = p->danger_short[d];
        const planes *a = tables + (Py_ssize_t)(cells & low) * shape.first;
        const planes *b = second + (Py_ssize_t)(cells >> p->slice_lines & high) * shape.second;
        planes sum[MAX_SLICE_BITS + 1], carry = {0};
        for (int i = 0; i <= shape.bits; i++) {
            const planes x = i < shape.first ? a[i] : (planes){0};
            const planes y = i < shape.second ? b[i] : (planes){0};
            sum[i] = x ^ y ^ carry;
            carry = (x & y) | (carry & (x ^ y));
        }
        const planes clips = sum[shape.bits];
        shorts *to = sums + 2 * (Py_ssize_t)p->danger_slot[d];
        shorts even = (shorts)clips & EVEN, odd = (shorts)clips >> 8;
        for (int i = 0; i < shape.excess; i++) {
            const shorts more = (shorts)(sum[i] & clips);
            even += (more & EVEN) << i;
            odd += (more >> 8) << i;
        }
        to[0] += even;
        to[1] += odd;
        for (int k = 0; k < SLICE / 8; k++) counts[k] += (uint64_t)__builtin_popcountll(clips[k]);
    }
    uint64_t saturated = 0;
    for (int k = 0; k < SLICE / 8; k++) saturated += counts[k];
    return saturated;
}

/* out[output][SLICE] += factor * sums[slot] over the routes of a list; clears the sums */
ALWAYS void slice_route(const plan *p, Py_ssize_t list, shorts *sums, int32_t *out) {
    for (int64_t e = p->list_outputs[list]; e < p->list_outputs[list + 1]; e++) {
        int32_t *row = out + (Py_ssize_t)p->output[e] * SLICE;
        eight_words total[SLICE / 8];
        memcpy(total, row, sizeof total);
        for (int64_t n = p->entry[e]; n < p->entry[e + 1]; n++) {
            const uint16_t *column = (const uint16_t *)(sums + 2 * (Py_ssize_t)p->slot[n]);
            const uint32_t factor = (uint32_t)p->factor[n]; /* wraps as the accumulators do */
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

/* SLICE windows at most, of all groups. */
ALWAYS uint64_t slice_body(const plan *p, const scratch *s) {
    const slice_shape shape = {p->slice_first, p->slice_second, p->slice_bits, p->slice_excess};
    const slice_shape nine_lines_three_bits = {3, 3, 3, 1};
    const int is_usual = memcmp(&shape, &nine_lines_three_bits, sizeof shape) == 0;
    planes *tables = (planes *)s->tables;
    shorts *sums = (shorts *)s->turned;
    uint64_t saturated = 0;
    for (Py_ssize_t list = 0; list < p->lists; list++) {
        int pending = 0;
        for (Py_ssize_t g = p->list_groups[list]; g < p->list_groups[list + 1]; g++) {
            if (p->danger_first[g] == p->danger_first[g + 1]) continue;
            const int32_t *rows = p->rows + g * p->lines;
            slice_table(rows, p->slice_lines, s->index, p->slice_bias, tables, shape.first);
            slice_table(rows + p->slice_lines, (int)p->lines - p->slice_lines, s->index, 0,
                        tables + ((Py_ssize_t)shape.first << p->slice_lines), shape.second);
            saturated += is_usual ? slice_group(p, g, tables, sums, nine_lines_three_bits)
                                  : slice_group(p, g, tables, sums, shape);
            if (++pending < p->slice_groups) continue;
            slice_route(p, list, sums, s->out);
            pending = 0;
        }
        if (pending) slice_route(p, list, sums, s->out);
    }
    return saturated;
}

typedef uint64_t slice_fn(const plan *, const scratch *);
static uint64_t slice_portable(const plan *p, const scratch *s) { return slice_body(p, s); }
#if X86
AVX2 static uint64_t slice_avx2(const plan *p, const scratch *s) { return slice_body(p, s); }
AVX512 static uint64_t slice_avx512(const plan *p, const scratch *s) { return slice_body(p, s); }
#endif

static slice_fn *const LEVELS[] = {
    slice_portable,
#if X86
    slice_avx2, slice_avx512,
#endif
};

uint64_t sliced_block(const plan *p, int level, const scratch *s, const uint8_t *u,
                      Py_ssize_t windows, int32_t *out) {
    uint64_t saturated = 0;
    for (Py_ssize_t first = 0; first < windows; first += SLICE) {
        const Py_ssize_t count = windows - first < SLICE ? windows - first : SLICE;
        slice_turn(p, u + first * p->inputs, count, s->index);
        memset(s->out, 0, (size_t)(p->outputs * SLICE) * sizeof *s->out);
        saturated += LEVELS[level](p, s);
        uint32_t *to = (uint32_t *)out + first * p->outputs;
        for (Py_ssize_t w = 0; w < count; w++)
            for (Py_ssize_t o = 0; o < p->outputs; o++)
                to[w * p->outputs + o] -= (uint32_t)s->out[o * SLICE + w / 2 + w % 2 * SLICE / 2];
    }
    return saturated;
}
