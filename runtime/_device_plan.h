/* A matrix of the device on the grid of integers, as runtime/analog.py:AnalogMatrix has it. */
#ifndef PIM_DEVICE_PLAN_H
#define PIM_DEVICE_PLAN_H
#include "_device.h"

enum { TILE = 64,         /* stored columns side by side; share one offset into the pool */
       WHOLE_LINES = 10,  /* up to here a table of all word lines may pay */
       MAX_LINES = 1024,
       MAX_CHUNK = 16,    /* groups whose input bits are held at once */
       POOL = 1 << 16, POOL_SHIFT = 15 };

/* In the order of execution; all arrays are owned and were checked. */
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
    int16_t *std;          /* [lines + 1] by driven lines, else NULL */
    int32_t *thresholds;   /* [codes] where they are not multiples of the LSB, else NULL */
    int16_t *pool;         /* [POOL + TILE]: the end repeats the start */
} plan;

/* NULL with an exception where the capsule is another */
const plan *device_plan_of(PyObject *capsule);

ALWAYS Py_ssize_t tiles_of(int64_t columns) { return (Py_ssize_t)((columns + TILE - 1) / TILE); }
#endif
