/* A static device as the integers plus what it changes: where a code is not the sum of the cells.
 *
 * A programmed column gives the right code for most patterns of its word lines. The others are
 * listed once (_device_list.c), and a product is the linear one plus the listed differences of the
 * patterns that the inputs show (_device_differ.c).
 */
#ifndef PIM_DEVICE_SPARSE_H
#define PIM_DEVICE_SPARSE_H
#include "_device.h"

enum { SPARSE_LEVELS = 1 + 2 * X86,
       SPARSE_LINES = 12, MAX_PATTERNS = 1 << SPARSE_LINES,
       SLICE = 64, /* windows of the sliced product */
       MAX_SLICE_DELTA = 128 }; /* 255 x 128 fits 16 bits with a sign */

/* The code of a column is `delta` more than the sum of its cells. */
typedef struct {
    uint16_t column;
    int16_t delta;
} difference;

/* A pattern of a group that must be looked up. */
typedef struct {
    int64_t start;              /* -> differences, up to the start of the next hit */
    int32_t pattern, saturated; /* saturated: columns */
} hit;

/* The same list by column: the patterns with which one column differs by `delta`. */
typedef struct {
    int64_t start; /* -> pattern, up to the start of the next step */
    int32_t column, delta;
} step;

typedef struct {
    Py_ssize_t inputs, outputs, groups, lines, lists, patterns, words;
    int codes, fraction, bias;
    int32_t top;
    int32_t *rows;         /* [groups][lines], `inputs` where unused */
    int64_t *first;        /* [groups] first stored column */
    int64_t *list_groups;  /* [lists + 1] */
    int64_t *list_columns; /* [lists] */
    int64_t *list_slots;   /* [lists] first slot: column c of the list has slot list_slots + c */
    int64_t *route_start;  /* [slots + 1] */
    int32_t *output, *factor;
    int32_t *thresholds;   /* [codes] */
    /* by pattern, for one window at a time */
    uint64_t *any;         /* [groups][words] bit q: pattern q changes something or saturates */
    int64_t *rank;         /* [groups + 1][words] -> hits, of the lowest bit of the word */
    hit *hits;             /* [set bits of `any` + 1] */
    difference *differences;
    /* by column, for SLICE windows at a time */
    int64_t *group_steps;  /* [groups + 1] */
    step *steps;
    uint16_t *pattern;
    int half;              /* lines of the first half of a pattern */
    int32_t largest;       /* delta; 0 where nothing differs */
    int64_t most_columns;  /* of a list */
    int64_t *list_outputs; /* [lists + 1] -> the outputs that a list's differences reach */
    int32_t *reached;      /* output */
    int64_t *reach;        /* -> routes to it */
    int32_t *slot, *slot_factor; /* column of a route, and its factor */
} sparse;

/* 1: listed. 0: more than `most` differences, so that another way is quicker. -1: no memory. */
int sparse_fill(sparse *p, const int16_t *cells, const int16_t *ideal, int uniform, int level,
                int64_t most);
/* The routes of the columns that differ, of `routes` in all, for the sliced product. -1: no
 * memory. */
int sparse_reach(sparse *p, int64_t routes);

/* One window: its inputs and 16 zeros; out: its linear product, to be changed. */
uint64_t sparse_window(const sparse *p, const uint8_t *row, uint32_t *out);

/* What the sliced product of one call needs. */
typedef struct {
    void *memory, *match, *sums;
    uint8_t *turned;
    uint32_t *out;
} slice_scratch;

int slice_make(const sparse *p, slice_scratch *s); /* -1: out of memory */
/* Up to SLICE windows; out: their linear product, to be changed. */
uint64_t sparse_slice(const sparse *p, int level, const slice_scratch *s, const uint8_t *u,
                      Py_ssize_t windows, uint32_t *out);
#endif
