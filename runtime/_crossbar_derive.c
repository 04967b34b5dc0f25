/* What the methods need besides the plan itself: masks of the table, columns that can clip. */
#include "_crossbar.h"

/* Estimated cycles of SLICE windows, measured on Zen 4 with AVX-512. */
enum { WORK_SLICED_ENTRY = 8, WORK_SLICED_DANGER = 18, WORK_SLICED_ROUTE = 20 };

/* Cut the word lines in parts of nearly equal height, each with a table of 2^lines rows. */
static void plan_parts(plan *p) {
    const int parts = (int)((p->lines + PART_LINES - 1) / PART_LINES);
    p->parts = parts;
    p->table_rows = 0;
    for (int i = 0, line = 0; i < parts; i++) {
        const int lines = (int)(p->lines - line + parts - i - 1) / (parts - i);
        p->part_first[i] = line;
        p->part_lines[i] = lines;
        p->part_row[i] = p->table_rows;
        p->table_rows += 1 << lines;
        line += lines;
    }
    /* sums of a chunk: bytes before the bits are joined, 16 bits after */
    int chunk = 65535 / 255 / p->adc_max;
    if (chunk > 255 / (p->adc_max + 1)) chunk = 255 / (p->adc_max + 1);
    const int cached = (96 << 10) / (p->table_rows * TILE);
    if (chunk > cached) chunk = cached;
    p->chunk = chunk < 1 ? 1 : chunk > MAX_CHUNK ? MAX_CHUNK : chunk;
    p->table_work = 0;
    for (Py_ssize_t list = 0; list < p->lists; list++) {
        const double groups = (double)(p->list_groups[list + 1] - p->list_groups[list]);
        const double tiles = (double)tiles_of(p->list_columns[list]);
        p->table_work += groups * (24 + 8 * (1.5 + parts) * tiles);
    }
}

/* Turn the cells by 90 degrees: one 64-bit word holds a word line of a tile of columns. */
static int plan_masks(plan *p) {
    Py_ssize_t words = 0;
    p->lanes = malloc((size_t)(p->groups * p->parts * 8 + 1) * sizeof *p->lanes);
    p->mask_first = malloc((size_t)(p->groups + 1) * sizeof *p->mask_first);
    if (!p->lanes || !p->mask_first) return -1;
    for (Py_ssize_t list = 0; list < p->lists; list++)
        for (Py_ssize_t g = p->list_groups[list]; g < p->list_groups[list + 1]; g++) {
            p->mask_first[g] = words;
            words += tiles_of(p->list_columns[list]) * p->lines * p->planes;
        }
    p->masks = calloc((size_t)words + 1, sizeof *p->masks);
    if (!p->masks) return -1;
    for (Py_ssize_t g = 0; g < p->groups; g++)
        for (int i = 0; i < p->parts; i++)
            for (int lane = 0; lane < 8; lane++) {
                const int used = lane < p->part_lines[i];
                p->lanes[(g * p->parts + i) * 8 + lane] =
                    used ? p->rows[g * p->lines + p->part_first[i] + lane] : (int32_t)p->inputs;
            }
    for (Py_ssize_t list = 0; list < p->lists; list++)
        for (Py_ssize_t g = p->list_groups[list]; g < p->list_groups[list + 1]; g++)
            for (int64_t c = 0; c < p->list_columns[list]; c++) {
                const uint8_t *cell = p->cells + (p->first[g] + c) * p->planes * p->bytes;
                uint64_t *tile = p->masks + p->mask_first[g] +
                                 (c / TILE) * p->lines * p->planes;
                for (Py_ssize_t b = 0; b < p->planes; b++)
                    for (Py_ssize_t r = 0; r < p->lines; r++)
                        if (cell[b * p->bytes + r / 8] >> (r % 8) & 1)
                            tile[r * p->planes + b] |= (uint64_t)1 << (c % TILE);
            }
    return 0;
}

static int64_t cell_sum(const plan *p, int64_t column) {
    int64_t sum = 0;
    const uint8_t *cell = p->cells + column * p->planes * p->bytes;
    for (Py_ssize_t b = 0; b < p->planes; b++)
        for (Py_ssize_t i = 0; i < p->bytes; i++)
            sum += (int64_t)__builtin_popcount(cell[b * p->bytes + i]) << b;
    return sum;
}

/* Routes of a list by column instead of by output; start has columns + 2 places. */
static void routes_by_column(const plan *p, Py_ssize_t list, int64_t *start, int32_t *output,
                             int32_t *factor) {
    const int64_t columns = p->list_columns[list];
    memset(start, 0, (size_t)(columns + 2) * sizeof *start);
    const int64_t from = p->list_outputs[list], to = p->list_outputs[list + 1];
    for (int64_t n = p->entry[from]; n < p->entry[to]; n++) start[p->slot[n] + 2]++;
    for (int64_t c = 2; c <= columns + 1; c++) start[c] += start[c - 1];
    for (int64_t e = from; e < to; e++)
        for (int64_t n = p->entry[e]; n < p->entry[e + 1]; n++) {
            const int64_t place = start[p->slot[n] + 1]++;
            output[place] = p->output[e];
            factor[place] = p->factor[n];
        }
}

/* Note one dangerous column of group g, the `index`-th of all. */
static void danger_store(plan *p, Py_ssize_t g, int64_t index, int64_t column) {
    const uint8_t *cell = p->cells + column * p->planes * p->bytes;
    if (is_short(p)) {
        p->danger_short[index] = (uint16_t)cell_word(cell, p->bytes);
        return;
    }
    const int64_t first = p->danger_first[g], count = p->danger_first[g + 1] - first;
    const Py_ssize_t layers = p->planes * p->words;
    uint64_t *words = p->danger_words + first * layers + (index - first);
    for (Py_ssize_t b = 0; b < p->planes; b++)
        for (Py_ssize_t i = 0; i < p->words; i++)
            words[(b * p->words + i) * count] =
                cell_word(cell + b * p->bytes + i * 8, p->bytes - i * 8);
}

/* Find the groups of up to 16 lines whose inputs are neighbours. -1: out of memory. */
static int plan_runs(plan *p) {
    p->run_first = malloc((size_t)(p->groups + 1) * sizeof *p->run_first);
    p->run_mask = calloc((size_t)(2 * p->groups + 1), sizeof *p->run_mask);
    if (!p->run_first || !p->run_mask) return -1;
    for (Py_ssize_t g = 0; g < p->groups; g++) {
        const int32_t *rows = p->rows + g * p->lines;
        Py_ssize_t used = 0;
        while (used < p->lines && rows[used] == rows[0] + used && rows[used] < p->inputs) used++;
        int neighbours = used > 0 && p->lines <= 16;
        for (Py_ssize_t r = used; r < p->lines; r++) neighbours &= rows[r] == p->inputs;
        p->run_first[g] = neighbours ? rows[0] : -1;
        for (Py_ssize_t r = 0; neighbours && r < used; r++)
            p->run_mask[2 * g + r / 8] |= (uint64_t)0xff << (8 * (r % 8));
    }
    return 0;
}

/* Collect the columns that can clip, and their routes. -1: out of memory. */
static int plan_dangers(plan *p) {
    int64_t dangers = 0, routes = 0, most_columns = 0, most_routes = 0;
    p->words = (p->lines + 63) / 64;
    const double per_column = is_short(p) ? 1 : 10.0 * (double)(p->planes * p->words);
    p->danger_first = calloc((size_t)p->groups + 1, sizeof *p->danger_first);
    if (!p->danger_first) return -1;
    for (Py_ssize_t list = 0; list < p->lists; list++) {
        if (is_empty(p, list)) continue;
        const int64_t count = p->entry[p->list_outputs[list + 1]] - p->entry[p->list_outputs[list]];
        if (p->list_columns[list] > most_columns) most_columns = p->list_columns[list];
        if (count > most_routes) most_routes = count;
        p->popcount_work += (double)count + (double)p->list_columns[list] * per_column *
                            (double)(p->list_groups[list + 1] - p->list_groups[list]);
        for (Py_ssize_t g = p->list_groups[list]; g < p->list_groups[list + 1]; g++) {
            for (int64_t c = 0; c < p->list_columns[list]; c++)
                dangers += cell_sum(p, p->first[g] + c) > p->adc_max;
            p->danger_first[g + 1] = dangers;
        }
    }
    int64_t *start = malloc((size_t)(most_columns + 2) * sizeof *start);
    int32_t *output = malloc((size_t)most_routes * 4 + 4);
    int32_t *factor = malloc((size_t)most_routes * 4 + 4);
    p->danger_route = malloc((size_t)(dangers + 1) * sizeof *p->danger_route);
    p->danger_slot = malloc((size_t)(dangers + 1) * sizeof *p->danger_slot);
    if (is_short(p)) p->danger_short = malloc((size_t)(dangers + 32) * sizeof *p->danger_short);
    else p->danger_words = malloc((size_t)(dangers * p->planes * p->words + 1) * sizeof(uint64_t));
    const int have = p->danger_short || p->danger_words;
    int status = start && output && factor && p->danger_route && p->danger_slot && have ? 0 : -1;
    for (int fill = 0; fill < 2 && status == 0; fill++) { /* first count the routes, then copy */
        if (fill) {
            p->danger_output = malloc((size_t)routes * 4 + 4);
            p->danger_factor = malloc((size_t)routes * 4 + 4);
            if (!p->danger_output || !p->danger_factor) status = -1;
        }
        int64_t index = 0, route = 0;
        for (Py_ssize_t list = 0; list < p->lists && status == 0; list++) {
            if (is_empty(p, list)) continue;
            routes_by_column(p, list, start, output, factor);
            for (Py_ssize_t g = p->list_groups[list]; g < p->list_groups[list + 1]; g++)
                for (int64_t c = 0; c < p->list_columns[list]; c++) {
                    if (cell_sum(p, p->first[g] + c) <= p->adc_max) continue;
                    const int64_t count = start[c + 1] - start[c];
                    if (fill) {
                        danger_store(p, g, index, p->first[g] + c);
                        p->danger_slot[index] = (int32_t)c;
                        p->danger_route[index] = route;
                        memcpy(p->danger_output + route, output + start[c], (size_t)count * 4);
                        memcpy(p->danger_factor + route, factor + start[c], (size_t)count * 4);
                    }
                    index++;
                    route += count;
                }
        }
        routes = route;
        if (fill && status == 0) p->danger_route[index] = route;
    }
    free(start), free(output), free(factor);
    return status;
}

static int bits_of(int value) {
    int bits = 0;
    while (value >> bits) bits++;
    return bits;
}

/* Sizes and work of the sliced method; without a column that can clip they mean nothing. */
static void plan_slices(plan *p) {
    const int lines = (int)p->lines;
    p->sliced = is_short(p) && lines <= MAX_SLICE_LINES;
    if (!p->sliced || p->adc_max >= lines) return;
    int bits = bits_of(p->adc_max); /* 2^bits exceeds adc_max and is not below the largest excess */
    while (1 << bits < lines - p->adc_max) bits++;
    p->slice_bits = bits;
    p->slice_bias = (1 << bits) - 1 - p->adc_max;
    p->slice_lines = (lines + 1) / 2;
    p->slice_first = bits_of(p->slice_bias + p->slice_lines);
    p->slice_second = bits_of(lines - p->slice_lines);
    p->slice_excess = bits_of(lines - p->adc_max - 1);
    p->slice_groups = 65535 / 255 / (lines - p->adc_max);
    const int entries = (1 << p->slice_lines) + (1 << (lines - p->slice_lines));
    p->sliced_work = (double)p->inputs * SLICE + (double)p->outputs * SLICE;
    for (Py_ssize_t list = 0; list < p->lists; list++) {
        const Py_ssize_t from = p->list_groups[list], to = p->list_groups[list + 1];
        if (from == to || p->danger_first[from] == p->danger_first[to]) continue;
        p->sliced_work += WORK_SLICED_ROUTE * (double)(p->entry[p->list_outputs[list + 1]] -
                                                       p->entry[p->list_outputs[list]]);
        for (Py_ssize_t g = from; g < to; g++) {
            const double dangers = (double)(p->danger_first[g + 1] - p->danger_first[g]);
            if (dangers > 0) p->sliced_work += WORK_SLICED_ENTRY * entries;
            p->sliced_work += WORK_SLICED_DANGER * dangers;
        }
    }
}

int plan_derive(plan *p) {
    /* bytes hold the sums of a group and of a chunk; otherwise only popcount can do it */
    p->table = p->lines * ((1 << p->planes) - 1) <= 255 && p->adc_max <= 254 &&
               p->lines <= 32 * PART_LINES;
    if (p->table) {
        plan_parts(p);
        if (plan_masks(p) < 0) return -1;
    }
    if (plan_dangers(p) < 0 || plan_runs(p) < 0) return -1;
    plan_slices(p);
    return 0;
}
