/* A static device's differences listed, by pattern and by column; see _device_sparse.h. */
#include "_device_sparse.h"

/* One column for all patterns: delta[q], and 1 in full[q] where it saturates. Returns whether any
 * of them is set. `lines`: those of the group in use, at the start. */
ALWAYS int column_body(const sparse *p, const int16_t *cells, const int16_t *ideal, int lines,
                       int uniform, int32_t *restrict sums, int32_t *restrict whole,
                       int32_t *restrict delta, int32_t *restrict full) {
    const int patterns = 1 << lines, limit = p->codes;
    int32_t found = 0;
    sums[0] = p->bias, whole[0] = 0;
    for (int line = 0; line < lines; line++) {
        const int half = 1 << line;
        for (int q = 0; q < half; q++) sums[half + q] = sums[q] + cells[line];
        for (int q = 0; q < half; q++) whole[half + q] = whole[q] + ideal[line];
    }
    if (uniform) {
        for (int q = 0; q < patterns; q++) {
            const int32_t code = sums[q] >> p->fraction;
            delta[q] = (code < 0 ? 0 : code > limit ? limit : code) - whole[q];
        }
    } else {
        for (int q = 0; q < patterns; q++) delta[q] = -whole[q];
        for (int k = 0; k < limit; k++)
            for (int q = 0; q < patterns; q++) delta[q] += sums[q] >= p->thresholds[k];
    }
    for (int q = 0; q < patterns; q++) {
        full[q] = sums[q] >= p->top;
        found |= delta[q] | full[q];
    }
    return found != 0;
}

typedef int column_fn(const sparse *, const int16_t *, const int16_t *, int, int, int32_t *,
                      int32_t *, int32_t *, int32_t *);

static int column_portable(const sparse *p, const int16_t *cells, const int16_t *ideal, int lines,
                           int uniform, int32_t *sums, int32_t *whole, int32_t *delta,
                           int32_t *full) {
    return column_body(p, cells, ideal, lines, uniform, sums, whole, delta, full);
}
#if X86
AVX2 static int column_avx2(const sparse *p, const int16_t *cells, const int16_t *ideal, int lines,
                            int uniform, int32_t *sums, int32_t *whole, int32_t *delta,
                            int32_t *full) {
    return column_body(p, cells, ideal, lines, uniform, sums, whole, delta, full);
}
AVX512 static int column_avx512(const sparse *p, const int16_t *cells, const int16_t *ideal,
                                int lines, int uniform, int32_t *sums, int32_t *whole,
                                int32_t *delta, int32_t *full) {
    return column_body(p, cells, ideal, lines, uniform, sums, whole, delta, full);
}
static column_fn *const COLUMN[] = {column_portable, column_avx2, column_avx512};
#else
static column_fn *const COLUMN[] = {column_portable};
#endif

/* Room for one column and for what is found in one group, before it is sorted by pattern. */
typedef struct {
    int32_t sums[MAX_PATTERNS], whole[MAX_PATTERNS], delta[MAX_PATTERNS], full[MAX_PATTERNS];
    int32_t saturated[MAX_PATTERNS]; /* columns by pattern */
    int64_t place[MAX_PATTERNS + 1];
    int32_t *pattern;
    difference *found;
    Py_ssize_t count, pattern_room, room;
    /* of the plan */
    Py_ssize_t hits, hit_room, differences, difference_room, listed_room, steps, step_room;
} workspace;

/* Make room for `count` more items of `size` bytes; -1: no memory. */
static int grow(void **array, Py_ssize_t used, Py_ssize_t count, Py_ssize_t *room, size_t size) {
    if (used + count <= *room) return 0;
    const Py_ssize_t wanted = 2 * (used + count) + 1024;
    void *grown = realloc(*array, (size_t)wanted * size);
    if (!grown) return -1;
    *array = grown, *room = wanted;
    return 0;
}

static int collect(workspace *s, int32_t pattern, int32_t column, int32_t delta) {
    if (grow((void **)&s->pattern, s->count, 1, &s->pattern_room, sizeof *s->pattern) < 0 ||
        grow((void **)&s->found, s->count, 1, &s->room, sizeof *s->found) < 0)
        return -1;
    s->pattern[s->count] = pattern;
    s->found[s->count++] = (difference){(uint16_t)column, (int16_t)delta};
    return 0;
}

/* The columns' differences once more, a step for each column and delta; `found` is by column. */
static int append_steps(sparse *p, workspace *s) {
    int64_t listed = s->differences;
    if (grow((void **)&p->steps, s->steps, s->count + 1, &s->step_room, sizeof *p->steps) < 0 ||
        grow((void **)&p->pattern, listed, s->count, &s->listed_room, sizeof *p->pattern) < 0)
        return -1;
    for (Py_ssize_t from = 0, to; from < s->count; from = to) {
        const int32_t column = s->found[from].column;
        int32_t low = s->found[from].delta, high = low;
        for (to = from; to < s->count && s->found[to].column == column; to++) {
            if (s->found[to].delta < low) low = s->found[to].delta;
            if (s->found[to].delta > high) high = s->found[to].delta;
        }
        for (int32_t delta = low; delta <= high; delta++) {
            const int64_t start = listed;
            for (Py_ssize_t i = from; i < to; i++)
                if (s->found[i].delta == delta) p->pattern[listed++] = (uint16_t)s->pattern[i];
            if (listed > start) p->steps[s->steps++] = (step){start, column, delta};
        }
        if (-low > p->largest) p->largest = -low;
        if (high > p->largest) p->largest = high;
    }
    p->steps[s->steps] = (step){listed, 0, 0};
    return 0;
}

/* List what was found in a group behind the groups before it, by pattern. */
static int append(sparse *p, Py_ssize_t group, workspace *s) {
    const uint64_t *any = p->any + group * p->words;
    if (grow((void **)&p->hits, s->hits, p->patterns + 1, &s->hit_room, sizeof *p->hits) < 0 ||
        grow((void **)&p->differences, s->differences, s->count, &s->difference_room,
             sizeof *p->differences) < 0 ||
        append_steps(p, s) < 0)
        return -1;
    p->group_steps[group + 1] = s->steps;
    memset(s->place, 0, sizeof s->place);
    for (Py_ssize_t i = 0; i < s->count; i++) s->place[s->pattern[i] + 1]++;
    s->place[0] = s->differences;
    for (Py_ssize_t q = 0; q < p->patterns; q++) {
        s->place[q + 1] += s->place[q];
        if (q % 64 == 0) p->rank[group * p->words + q / 64] = s->hits;
        if (any[q / 64] >> q % 64 & 1)
            p->hits[s->hits++] = (hit){s->place[q], (int32_t)q, s->saturated[q]};
    }
    for (Py_ssize_t i = 0; i < s->count; i++)
        p->differences[s->place[s->pattern[i]]++] = s->found[i];
    s->differences += s->count;
    p->rank[(group + 1) * p->words] = s->hits;
    p->hits[s->hits] = (hit){s->differences, 0, 0};
    return 0;
}

/* One row group: every column, every pattern. -1: no memory. */
static int group_fill(sparse *p, Py_ssize_t group, int64_t columns, const int16_t *cells,
                      const int16_t *ideal, int uniform, int level, workspace *s) {
    const int32_t *rows = p->rows + group * p->lines;
    int lines = 0;
    while (lines < p->lines && rows[lines] < p->inputs) lines++;
    s->count = 0;
    memset(s->saturated, 0, sizeof s->saturated);
    for (int64_t c = 0; c < columns; c++) {
        const Py_ssize_t at = (Py_ssize_t)(p->first[group] + c) * p->lines;
        if (!COLUMN[level](p, cells + at, ideal + at, lines, uniform, s->sums, s->whole, s->delta,
                           s->full))
            continue;
        for (int q = 0; q < 1 << lines; q++) {
            if (!(s->full[q] | s->delta[q])) continue;
            s->saturated[q] += s->full[q];
            p->any[group * p->words + q / 64] |= (uint64_t)1 << q % 64;
            if (s->delta[q] && collect(s, q, (int32_t)c, s->delta[q]) < 0) return -1;
        }
    }
    return append(p, group, s);
}

int sparse_fill(sparse *p, const int16_t *cells, const int16_t *ideal, int uniform, int level,
                int64_t most) {
    workspace *s = calloc(1, sizeof *s);
    int status = s ? 1 : -1;
    for (Py_ssize_t list = 0; list < p->lists; list++)
        for (Py_ssize_t g = p->list_groups[list]; g < p->list_groups[list + 1]; g++) {
            if (status != 1) break;
            status = group_fill(p, g, p->list_columns[list], cells, ideal, uniform, level, s);
            status = status < 0 ? -1 : s->differences <= most;
        }
    if (s) free(s->pattern), free(s->found);
    free(s);
    return status;
}

/* What a list's differences reach, output by output. used, start: room for the columns of a list
 * and for the outputs. */
static void reach_list(sparse *p, Py_ssize_t list, uint8_t *used, int64_t *start) {
    const int64_t *slots = p->route_start + p->list_slots[list];
    const int64_t columns = p->list_columns[list];
    memset(used, 0, (size_t)columns);
    memset(start, 0, (size_t)(p->outputs + 2) * sizeof *start);
    const int64_t from = p->group_steps[p->list_groups[list]];
    const int64_t to = p->group_steps[p->list_groups[list + 1]];
    for (int64_t s = from; s < to; s++) used[p->steps[s].column] = 1;
    for (int64_t c = 0; c < columns; c++)
        for (int64_t n = slots[c]; used[c] && n < slots[c + 1]; n++) start[p->output[n] + 2]++;
    int64_t e = p->list_outputs[list], routes = p->reach[e];
    for (Py_ssize_t o = 0; o < p->outputs; o++) {
        const int64_t count = start[o + 2];
        start[o + 2] = start[o + 1] + count; /* place of the next output's first route, below */
        if (count == 0) continue;
        p->reached[e] = (int32_t)o;
        p->reach[e + 1] = p->reach[e] + count;
        e++;
    }
    for (int64_t c = 0; c < columns; c++)
        for (int64_t n = slots[c]; used[c] && n < slots[c + 1]; n++) {
            const int64_t place = routes + start[p->output[n] + 1]++;
            p->slot[place] = (int32_t)c;
            p->slot_factor[place] = p->factor[n];
        }
    p->list_outputs[list + 1] = e;
}

int sparse_reach(sparse *p, int64_t routes) {
    uint8_t *used = malloc((size_t)p->most_columns + 1);
    int64_t *start = malloc((size_t)(p->outputs + 2) * sizeof *start);
    p->reached = malloc((size_t)routes * sizeof *p->reached + 1);
    p->reach = calloc((size_t)routes + 1, sizeof *p->reach);
    p->slot = malloc((size_t)routes * sizeof *p->slot + 1);
    p->slot_factor = malloc((size_t)routes * sizeof *p->slot_factor + 1);
    const int made = used && start && p->reached && p->reach && p->slot && p->slot_factor;
    for (Py_ssize_t list = 0; made && list < p->lists; list++) reach_list(p, list, used, start);
    free(used), free(start);
    return made ? 0 : -1;
}
