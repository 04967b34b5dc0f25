/* One call of the bit-serial path: the windows in blocks, each by its method. */
#include "_crossbar.h"

enum { TABLE, POPCOUNT, EXCESS, SLICED, AUTO, METHODS_COUNT };
enum { FEW = 8 }; /* up to here popcount beats the building of tables */
static const char *const METHOD_NAMES[] = {"table", "popcount", "excess", "sliced",
                                           "auto"};

int method_of(const char *name) {
    for (int method = 0; method < METHODS_COUNT; method++)
        if (strcmp(name, METHOD_NAMES[method]) == 0) return method;
    return -1;
}

int method_can(const plan *p, int method) {
    return method >= 0 && (method != TABLE || p->table) && (method != SLICED || p->sliced);
}

/* What takes over where excess proves slow, and its estimated cycles a window. */
static int other_method(const plan *p, Py_ssize_t windows, double *work) {
    const int other = p->table && windows > FEW ? TABLE : POPCOUNT;
    *work = other == TABLE ? p->table_work : p->popcount_work;
    const Py_ssize_t slices = (windows + SLICE - 1) / SLICE;
    const double sliced = windows ? p->sliced_work * (double)slices / (double)windows : 0;
    if (!p->sliced || sliced >= *work) return other;
    *work = sliced;
    return SLICED;
}

static int scratch_make(const plan *p, int method, scratch *s) {
    const int table = method == TABLE, sliced = method == SLICED;
    s->slots = 0;
    for (Py_ssize_t list = 0; list < p->lists; list++)
        if (!is_empty(p, list) && tiles_of(p->list_columns[list]) * TILE > s->slots)
            s->slots = tiles_of(p->list_columns[list]) * TILE;
    s->stride = table ? ((Py_ssize_t)p->chunk * p->parts + 1) / 2 * 2 : 0;
    const size_t block = table ? BLOCK : 0;
    const size_t slots = (size_t)s->slots, slice = sliced ? SLICE : 0;
    const size_t entries = sliced ? ((size_t)p->slice_first << p->slice_lines) +
                                        ((size_t)p->slice_second << (p->lines - p->slice_lines))
                                  : 0;
    const size_t sizes[] = {
        (size_t)p->inputs + 16,
        slots * sizeof *s->columns,
        sliced ? slice * ((size_t)p->inputs + 1) : (size_t)s->stride * block * 8,
        sliced ? slice * entries : table ? (size_t)p->chunk * (size_t)p->table_rows * TILE : 0,
        block * TILE * sizeof *s->sums,
        slots * (block + slice) * sizeof *s->turned,
        (size_t)p->outputs * (block + slice) * sizeof *s->out,
        (size_t)p->outputs * sizeof *s->kept,
    };
    enum { COUNT = sizeof sizes / sizeof *sizes };
    uint8_t *parts[COUNT];
    size_t total = 64;
    for (int i = 0; i < COUNT; i++) total += (sizes[i] + 63) / 64 * 64;
    s->memory = malloc(total);
    if (!s->memory) return -1;
    uint8_t *next = (uint8_t *)(((uintptr_t)s->memory + 63) / 64 * 64);
    for (int i = 0; i < COUNT; i++) {
        parts[i] = next;
        next += (sizes[i] + 63) / 64 * 64;
    }
    s->row = parts[0], s->columns = (uint32_t *)parts[1];
    s->index = parts[2], s->tables = parts[3], s->sums = (uint16_t *)parts[4];
    s->turned = (uint16_t *)parts[5], s->out = (int32_t *)parts[6], s->kept = (int32_t *)parts[7];
    memset(s->turned, 0, sizes[5]); /* lanes beyond the last window are computed, never read */
    return 0;
}

static void padded_row(const plan *p, const uint8_t *u, uint8_t *row) {
    memcpy(row, u, (size_t)p->inputs);
    memset(row + p->inputs, 0, 16);
}

/* Windows by excess until it proves slower than `other_work` a window; returns how many are done,
 * and leaves the linear product of the others. other_work 0: never stop. */
static Py_ssize_t excess_block(const plan *p, excess_fn *excess, double other_work,
                               const scratch *s, const uint8_t *u, Py_ssize_t windows,
                               int32_t *out, uint64_t *saturated) {
    const uint64_t never = (uint64_t)1 << 62;
    const size_t bytes = (size_t)p->outputs * sizeof *out;
    double total = 0;
    Py_ssize_t w = 0;
    for (; w < windows; w++) {
        int32_t *row = out + w * p->outputs;
        if (other_work > 0 && w > 0 && total > other_work * (double)w) break;
        excess_result result = {0, 0, other_work > 0 ? (uint64_t)(2 * other_work) : never};
        padded_row(p, u + w * p->inputs, s->row);
        memcpy(s->kept, row, bytes);
        if (!excess(p, s->row, s->columns, (uint32_t *)row, &result)) {
            memcpy(row, s->kept, bytes);
            break;
        }
        *saturated += result.saturated;
        total += (double)result.work;
    }
    return w;
}

static uint64_t popcount_block(const plan *p, int level, const scratch *s, const uint8_t *u,
                               Py_ssize_t windows, int32_t *out) {
    popcount_fn *count = popcount_of(p, level);
    uint64_t saturated = 0;
    for (Py_ssize_t w = 0; w < windows; w++) {
        padded_row(p, u + w * p->inputs, s->row);
        saturated += popcount_window(p, count, s->row, s->columns,
                                     (uint32_t *)out + w * p->outputs);
    }
    return saturated;
}

int serial_run(const plan *p, int method, int level, const uint8_t *u, Py_ssize_t windows,
               int32_t *out, uint64_t *saturated) {
    double other_work = 0;
    const int other = method == AUTO ? other_method(p, windows, &other_work) : method;
    scratch s;
    *saturated = 0;
    if (scratch_make(p, other, &s) < 0) return -1;
    for (Py_ssize_t w = 0; w < windows; w += BLOCK) {
        const Py_ssize_t block = windows - w < BLOCK ? windows - w : BLOCK;
        Py_ssize_t done = 0;
        if (method == EXCESS || method == AUTO)
            done = excess_block(p, excess_of(level), other_work, &s, u + w * p->inputs, block,
                                out + w * p->outputs, saturated);
        const uint8_t *from = u + (w + done) * p->inputs;
        int32_t *to = out + (w + done) * p->outputs;
        const Py_ssize_t left = block - done;
        if (left == 0) continue;
        *saturated += other == TABLE    ? table_block(p, level, &s, from, left, to)
                      : other == SLICED ? sliced_block(p, level, &s, from, left, to)
                                        : popcount_block(p, level, &s, from, left, to);
    }
    free(s.memory);
    return 0;
}
