/* The crossbar kernel's own header: what its C files share. Nobody else includes it.
 *
 * _crossbar.c         the Python functions    _crossbar_plan.c    a matrix, checked and copied
 * _crossbar_gemm.c    the linear product      _crossbar_derive.c  what its methods need besides
 * _crossbar_serial.c  one call, bit by bit
 * _crossbar_{table,popcount,excess,sliced}.c  its methods
 * _crossbar_stream.h  streams of instructions, and the files that execute them
 *
 * Vector instructions are chosen at run time: level 0 is portable C, 1 is AVX2, 2 is AVX-512 with
 * VNNI and BITALG.
 */
#ifndef PIM_CROSSBAR_H
#define PIM_CROSSBAR_H
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

enum { TILE = 64,      /* stored columns that the table method handles side by side */
       LANES = 32,     /* windows that are routed side by side */
       BLOCK = 128,    /* windows between two builds of the same table */
       PART_LINES = 6, /* word lines of one partial table: 2^6 rows at most */
       MAX_CHUNK = 31, /* groups summed in bytes: 8 bits x 31 saturations < 256 */
       SLICE = 64,     /* windows that the sliced method handles side by side */
       MAX_SLICE_LINES = 12, MAX_SLICE_BITS = 4,
       MAX_INPUTS = 65536, /* 65536 x 255 x 128 < 2^31: no gemm sum overflows */
       OUTS = 16, DEPTH = 4 /* a weight tile of gemm: [16 outputs][4 inputs] */ };

enum { MAX_SIDE = 1 << 24 }; /* inputs, outputs or columns of a list */
enum { WORDS = 64 }; /* 64-bit words of a selector: up to 4096 word lines */

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
    /* sliced method, on the same columns: see _crossbar_sliced.c */
    int sliced;           /* whether the method can do it */
    int32_t *danger_slot; /* [dangers] column within the group */
    int slice_lines, slice_first, slice_second; /* lines of the first half; planes of both sums */
    int slice_bits, slice_bias, slice_excess;   /* planes below the clip; planes of excess - 1 */
    int slice_groups;     /* groups whose excess 16 bits hold */
    double sliced_work;   /* estimated cycles of SLICE windows */
} plan;

/* What one call of the table method needs besides its arguments. */
typedef struct {
    void *memory;
    uint8_t *row, *index, *tables;
    uint32_t *columns;       /* [slots] */
    int32_t *kept;           /* [outputs] linear product of the window at hand */
    uint16_t *sums, *turned; /* [BLOCK][TILE]; [BLOCK / LANES][slots][LANES] */
    int32_t *out;            /* [BLOCK / LANES][outputs][LANES] */
    Py_ssize_t stride, slots;
} scratch;

/* rows x tiles products of one pass over the inputs; u rows are `inputs` bytes apart.
 * weights: [tiles][depth][OUTS][DEPTH] int8, zero beyond the inputs. */
typedef void gemm_fn(const uint8_t *u, const int8_t *weights, int32_t *out, Py_ssize_t windows,
                     Py_ssize_t inputs, Py_ssize_t outputs);
typedef uint64_t popcount_fn(const plan *, Py_ssize_t, int64_t, uint64_t[8][WORDS], uint32_t *);
typedef struct {
    uint64_t saturated, work, budget; /* a window stops when its work exceeds the budget */
} excess_result;
typedef int excess_fn(const plan *, const uint8_t *, uint32_t *, uint32_t *, excess_result *);

/* _crossbar.c */
int best_level(void);

/* _crossbar_gemm.c */
gemm_fn *gemm_of(int level);

/* _crossbar_plan.c */
PyObject *py_plan(PyObject *self, PyObject *args);
const plan *plan_of(PyObject *capsule); /* NULL with an exception */
int take(PyObject *object, Py_buffer *view, const char *name, int dimensions, const char *codes,
         int writable);

/* _crossbar_derive.c: what a checked plan needs for its methods. -1: out of memory. */
int plan_derive(plan *p);

/* _crossbar_serial.c */
int method_of(const char *name); /* -1: no such method */
int method_can(const plan *p, int method);
/* The loops of one call; *saturated gets the conversions that clipped. -1: out of memory. */
int serial_run(const plan *p, int method, int level, const uint8_t *u, Py_ssize_t windows,
               int32_t *out, uint64_t *saturated);

/* _crossbar_table.c: BLOCK windows at most: all chunks of groups of all lists, then the outputs. */
uint64_t table_block(const plan *p, int level, const scratch *s, const uint8_t *u,
                     Py_ssize_t windows, int32_t *out);

/* _crossbar_sliced.c: out holds the linear product; s->index, tables, turned and out are used. */
uint64_t sliced_block(const plan *p, int level, const scratch *s, const uint8_t *u,
                      Py_ssize_t windows, int32_t *out);

/* _crossbar_popcount.c: one window at a time; sums: room for the columns of the longest list. */
popcount_fn *popcount_of(const plan *p, int level);
uint64_t popcount_window(const plan *p, popcount_fn *count, const uint8_t *row, uint32_t *sums,
                         uint32_t *out);

/* _crossbar_excess.c */
excess_fn *excess_of(int level);

ALWAYS Py_ssize_t tiles_of(int64_t columns) { return (Py_ssize_t)((columns + TILE - 1) / TILE); }

/* Whether no group uses a route list: then its columns and routes mean nothing. */
ALWAYS int is_empty(const plan *p, Py_ssize_t list) {
    return p->list_groups[list] == p->list_groups[list + 1];
}

ALWAYS int is_short(const plan *p) { return p->planes == 1 && p->lines <= 16; }

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

/* bits[t][word]: bit t of the inputs on the word lines of a group, line r in bit r % 64.
 * row: the inputs of a window and a zero. */
ALWAYS void line_bits(const plan *p, const uint8_t *row, Py_ssize_t group,
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

#endif
