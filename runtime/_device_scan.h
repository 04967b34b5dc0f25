/* From tables of sums to codes: what a block of windows goes through for each unit, by level. */
#ifndef PIM_DEVICE_SCAN_H
#define PIM_DEVICE_SCAN_H
#include "_device_plan.h"

enum { BLOCK = 1024,      /* windows between two builds of the same table */
       LANES = 32,        /* windows that are routed side by side */
       PART_LINES = 6,    /* word lines of one partial table */
       MAX_PARTS = MAX_LINES / 16 * 3 };

/* How the word lines are cut: part i has `lines` lines from `first` on, within one 16-bit word. */
typedef struct {
    int count, first[MAX_PARTS], lines[MAX_PARTS], row[MAX_PARTS], rows;
} cut;

/* Which windows a block holds: what their noise depends on. */
typedef struct {
    const uint32_t *image, *window; /* [BLOCK] */
} places;

/* The windows of a block in the order of the input bits that drive any line of a group: those from
 * start[m] to start[m + 1] have just the bits of m. The first ones drive none and give code 0. */
typedef struct {
    uint16_t start[257], window[BLOCK];
    uint32_t at_image[BLOCK], at_window[BLOCK]; /* from start[1] on: the places of these windows */
} runs;

/* All windows of a block through one unit; sums[window][TILE] grows by 2^t times the codes. */
typedef struct {
    const plan *p;
    const cut *parts;
    const int16_t *table;
    const int32_t *variance; /* a table like `table`, or NULL */
    const uint8_t *codes, *saturated;
    const uint16_t *index;
    const uint32_t *drawn; /* [4][BLOCK] */
    const runs *runs;      /* or NULL: then all windows in their order */
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

/* A level of vector instructions. */
typedef struct {
    void (*sums)(const plan *, Py_ssize_t, const cut *, int16_t *);
    void (*codes)(const plan *, const int16_t *, int, int, uint8_t *, uint8_t *);
    void (*draw)(const plan *, uint32_t, uint32_t, const places *, Py_ssize_t, uint32_t *);
    uint64_t (*scan)(const scan_job *);
    uint64_t (*scan_codes)(const scan_job *);
} level_functions;

enum { LEVEL_COUNT = 1 + 2 * X86 };
extern const level_functions DEVICE_LEVELS[LEVEL_COUNT];

/* sums [windows][TILE] -> turned [TILE][LANES] */
void device_turn(const uint16_t *sums, Py_ssize_t windows, uint16_t *turned);
/* out[output][LANES] += factor * turned[slot][LANES] of a tile; wraps as the accumulators do. */
typedef void route_fn(const plan *p, Py_ssize_t tile, const uint16_t *turned, uint32_t *out);
extern route_fn *const DEVICE_ROUTE[LEVEL_COUNT];

void device_build_variance(const plan *p, Py_ssize_t unit, const cut *c, int32_t *table);

#if X86
/* _device_avx512.c: the usual cases; 0 where they are not, and the general way must do it */
int device_codes_avx512(const plan *p, const int16_t *table, int rows, int valid, uint8_t *codes,
                        uint8_t *saturated);
int device_scan_codes_avx512(const scan_job *j, uint64_t *saturated);
int device_scan_avx512(const scan_job *j, uint64_t *saturated);
int device_scans_runs(const plan *p); /* whether that takes runs, of a table of all word lines */
#endif
#endif
