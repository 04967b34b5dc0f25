/* One call of the device's kernel: blocks of windows through tables, then along the routes. */
#include "_device_scan.h"

enum { WHOLE_WINDOWS = 96, /* for so many a table of all word lines pays */
       ROW_END = 16 };     /* zeros behind the inputs of a window */

/* Cut the word lines in parts of nearly equal height, or each word of 16 in one. */
static void cut_lines(const plan *p, int whole, cut *c) {
    c->count = c->rows = 0;
    for (int word = 0; word < (int)p->lines; word += 16) {
        const int left = (int)p->lines - word < 16 ? (int)p->lines - word : 16;
        const int parts = whole ? 1 : (left + PART_LINES - 1) / PART_LINES;
        for (int i = 0, line = 0; i < parts; i++) {
            const int lines = (left - line + parts - i - 1) / (parts - i);
            c->first[c->count] = word + line;
            c->lines[c->count] = lines;
            c->row[c->count++] = c->rows;
            c->rows += 1 << lines;
            line += lines;
        }
    }
}

/* index[window][8][words]: the word lines of a group that input bit t drives.
 * u: windows of inputs and ROW_END zeros. */
static void line_bits(const plan *p, const uint8_t *u, Py_ssize_t windows, Py_ssize_t group,
                      uint16_t *index) {
    const int32_t *rows = p->rows + group * p->lines;
    for (Py_ssize_t w = 0; w < windows; w++, index += 8 * p->words, u += p->inputs + ROW_END)
        for (Py_ssize_t word = 0; word < p->words; word++) {
            const int left = (int)(p->lines - word * 16);
            uint16_t bits[8];
            device_bits(u, rows + word * 16, left < 16 ? left : 16, bits);
            for (int t = 0; t < 8; t++) index[t * p->words + word] = bits[t];
        }
}

/* What one call needs besides its arguments. */
typedef struct {
    void *memory;
    uint8_t *u, *codes, *saturated; /* u: [BLOCK][inputs + ROW_END] */
    uint16_t *index, *sums, *turned; /* [chunk][BLOCK][8][words]; [BLOCK][TILE]; [TILE][LANES] */
    int16_t *table;
    int32_t *variance;
    uint32_t *drawn, *out; /* [4][BLOCK]; [BLOCK / LANES][outputs][LANES] */
    uint32_t *image, *window; /* [BLOCK] the places of the windows */
    runs *runs; /* [chunk], or NULL */
} scratch;

static int scratch_make(const plan *p, const cut *c, int coded, int sorted, Py_ssize_t windows,
                        scratch *s) {
    const size_t block = windows < BLOCK ? (size_t)windows : BLOCK;
    const size_t lanes = (block + LANES - 1) / LANES * LANES;
    const size_t rows = (size_t)c->rows, drawn = p->noisy ? BLOCK : 0;
    const size_t sizes[] = {block * ((size_t)p->inputs + ROW_END),
                            coded ? rows * TILE : 0,
                            coded ? rows : 0,
                            (size_t)p->chunk * block * 8 * (size_t)p->words * sizeof *s->index,
                            lanes * TILE * sizeof *s->sums,
                            TILE * LANES * sizeof *s->turned,
                            rows * TILE * sizeof *s->table,
                            p->variance ? rows * TILE * sizeof *s->variance : 0,
                            4 * drawn * sizeof *s->drawn,
                            lanes * (size_t)p->outputs * sizeof *s->out,
                            drawn * sizeof *s->image,
                            drawn * sizeof *s->window,
                            sorted ? (size_t)p->chunk * sizeof *s->runs : 0};
    enum { PIECES = sizeof sizes / sizeof *sizes };
    uint8_t *pieces[PIECES];
    size_t total = 64;
    for (int i = 0; i < PIECES; i++) total += (sizes[i] + 63) / 64 * 64;
    s->memory = calloc(total, 1);
    if (!s->memory) return -1;
    uint8_t *next = (uint8_t *)(((uintptr_t)s->memory + 63) / 64 * 64);
    for (int i = 0; i < PIECES; i++) pieces[i] = next, next += (sizes[i] + 63) / 64 * 64;
    s->u = pieces[0], s->codes = pieces[1], s->saturated = pieces[2];
    s->index = (uint16_t *)pieces[3], s->sums = (uint16_t *)pieces[4];
    s->turned = (uint16_t *)pieces[5], s->table = (int16_t *)pieces[6];
    s->variance = (int32_t *)pieces[7], s->drawn = (uint32_t *)pieces[8];
    s->out = (uint32_t *)pieces[9];
    s->image = (uint32_t *)pieces[10], s->window = (uint32_t *)pieces[11];
    s->runs = sorted ? (runs *)pieces[12] : NULL;
    return 0;
}

/* Whether a conversion without a driven line is sure to give code 0, so that none is needed. */
static int is_silent(const plan *p) {
    const int32_t first = p->thresholds ? p->thresholds[0] : 1 << p->fraction;
    return p->bias < first && p->bias < p->top;
}

/* The windows by the input bits that drive any line, so that the scan finds long runs alike. */
static void sort_windows(const plan *p, const uint16_t *index, Py_ssize_t windows, const scratch *s,
                         runs *r) {
    uint8_t mask[BLOCK];
    uint16_t place[257] = {0};
    const int silent = is_silent(p);
    for (Py_ssize_t w = 0; w < windows; w++) {
        unsigned bits = 0;
        for (int t = 0; t < 8; t++) bits |= (unsigned)(index[w * 8 + t] != 0) << t;
        mask[w] = silent ? (uint8_t)bits : 0xff;
        place[mask[w] + 1]++;
    }
    for (int m = 0; m < 256; m++) {
        r->start[m] = place[m];
        place[m + 1] = (uint16_t)(place[m + 1] + place[m]);
    }
    r->start[256] = place[256];
    for (Py_ssize_t w = 0; w < windows; w++) r->window[place[mask[w]]++] = (uint16_t)w;
    for (Py_ssize_t i = r->start[1]; i < windows; i++) {
        r->at_image[i - r->start[1]] = s->image[r->window[i]];
        r->at_window[i - r->start[1]] = s->window[r->window[i]];
    }
}

/* One unit: its tables, then all windows of the block. */
static uint64_t unit_run(const plan *p, const level_functions *f, const scratch *s, const cut *c,
                         int coded, Py_ssize_t group, Py_ssize_t tile, scan_job *job) {
    const Py_ssize_t unit = p->unit_first[group] + tile;
    f->sums(p, unit, c, s->table);
    if (coded) {
        f->codes(p, s->table, c->rows, job->valid, s->codes, s->saturated);
        return f->scan_codes(job);
    }
    if (p->variance) device_build_variance(p, unit, c, s->variance);
    if (p->noisy) {
        const runs *r = job->runs;
        const places at = {r ? r->at_image : s->image, r ? r->at_window : s->window};
        f->draw(p, (uint32_t)p->group[group], (uint32_t)tile, &at,
                job->windows - (r ? r->start[1] : 0), s->drawn);
    }
    return f->scan(job);
}

/* BLOCK windows at most: all chunks of groups of all lists, then the outputs. */
static uint64_t block_run(const plan *p, int level, const scratch *s, const cut *c, int coded,
                          const uint8_t *u, Py_ssize_t windows, int32_t *out) {
    const level_functions *f = &DEVICE_LEVELS[level];
    const Py_ssize_t lanes = (windows + LANES - 1) / LANES;
    const Py_ssize_t stride = windows * 8 * p->words;
    uint64_t saturated = 0;
    for (Py_ssize_t w = 0; w < windows; w++) /* the zeros behind were there from the start */
        memcpy(s->u + w * (p->inputs + ROW_END), u + w * p->inputs, (size_t)p->inputs);
    memset(s->out, 0, (size_t)(lanes * p->outputs * LANES) * sizeof *s->out);
    for (Py_ssize_t list = 0; list < p->lists; list++)
        for (Py_ssize_t g = p->list_groups[list]; g < p->list_groups[list + 1]; g += p->chunk) {
            const Py_ssize_t left = p->list_groups[list + 1] - g;
            const Py_ssize_t groups = left < p->chunk ? left : p->chunk;
            for (Py_ssize_t i = 0; i < groups; i++)
                line_bits(p, s->u, windows, g + i, s->index + i * stride);
            for (Py_ssize_t i = 0; s->runs && i < groups; i++)
                sort_windows(p, s->index + i * stride, windows, s, s->runs + i);
            for (Py_ssize_t tile = 0; tile < tiles_of(p->list_columns[list]); tile++) {
                const int64_t rest = p->list_columns[list] - tile * TILE;
                scan_job job = {p, c, s->table, p->variance ? s->variance : NULL, s->codes,
                                s->saturated, s->index, s->drawn, s->runs, windows,
                                rest < TILE ? (int)rest : TILE, s->sums};
                memset(s->sums, 0, (size_t)(windows * TILE) * sizeof *s->sums);
                for (Py_ssize_t i = 0; i < groups; i++, job.index += stride) {
                    saturated += unit_run(p, f, s, c, coded, g + i, tile, &job);
                    if (job.runs) job.runs++;
                }
                for (Py_ssize_t l = 0; l < lanes; l++) {
                    const Py_ssize_t last = windows - l * LANES;
                    device_turn(s->sums + l * LANES * TILE, last < LANES ? last : LANES, s->turned);
                    DEVICE_ROUTE[level](p, p->list_tiles[list] + tile, s->turned,
                                        s->out + l * p->outputs * LANES);
                }
            }
        }
    for (Py_ssize_t w = 0; w < windows; w++)
        for (Py_ssize_t o = 0; o < p->outputs; o++)
            out[w * p->outputs + o] =
                (int32_t)s->out[((w / LANES) * p->outputs + o) * LANES + w % LANES];
    return saturated;
}

/* Where a product stands: see runtime/analog.py:Place. */
typedef struct {
    uint32_t image, window, windows;
} origin;

/* The loops of one call; *saturated gets the conversions that clipped. -1: out of memory. */
static int product_run(const plan *p, int level, const uint8_t *u, Py_ssize_t windows,
                       const origin *from, int32_t *out, uint64_t *saturated) {
    const int whole = p->lines <= WHOLE_LINES && windows >= WHOLE_WINDOWS;
    const int coded = whole && !p->noisy;
#if X86
    const int sorted = whole && level >= 2 && device_scans_runs(p);
#else
    const int sorted = 0;
#endif
    cut c;
    scratch s;
    *saturated = 0;
    cut_lines(p, whole, &c);
    if (scratch_make(p, &c, coded, sorted, windows, &s) < 0) return -1;
    for (Py_ssize_t w = 0; w < windows; w += BLOCK) {
        const Py_ssize_t block = windows - w < BLOCK ? windows - w : BLOCK;
        for (Py_ssize_t i = 0; p->noisy && i < block; i++) {
            s.image[i] = from->image + (uint32_t)((w + i) / from->windows);
            s.window[i] = from->window + (uint32_t)((w + i) % from->windows);
        }
        *saturated += block_run(p, level, &s, &c, coded, u + w * p->inputs, block,
                                out + w * p->outputs);
    }
    free(s.memory);
    return 0;
}

const char device_product_doc[] =
    "product(plan, u, out, image, window, windows, level)\n--\n\n"
    "The non-ideal product in codes; returns the number of saturated conversions.";

PyObject *device_product(PyObject *self, PyObject *args) {
    PyObject *capsule, *objects[2], *result = NULL;
    Py_buffer u, out;
    unsigned long long image, window, windows;
    int level;
    (void)self;
    if (!PyArg_ParseTuple(args, "OOOKKKi:product", &capsule, &objects[0], &objects[1], &image,
                          &window, &windows, &level))
        return NULL;
    const plan *p = device_plan_of(capsule);
    if (!p) return NULL;
    if (level < 0 || level >= LEVEL_COUNT || windows < 1 || windows > UINT32_MAX) {
        PyErr_Format(PyExc_ValueError, "product: level %d, %llu windows", level, windows);
        return NULL;
    }
    if (PyObject_GetBuffer(objects[0], &u, PyBUF_C_CONTIGUOUS) < 0) return NULL;
    const Py_ssize_t count = u.len / p->inputs;
    if (u.itemsize != 1 || count * p->inputs != u.len) {
        PyErr_Format(PyExc_ValueError, "u: %zd bytes are no windows of %zd inputs", u.len,
                     p->inputs);
    } else if (device_take(objects[1], &out, "out", count * p->outputs, 4, 1) == 0) {
        uint64_t saturated;
        int status;
        const origin from = {(uint32_t)image, (uint32_t)window, (uint32_t)windows};
        Py_BEGIN_ALLOW_THREADS
        status = product_run(p, level, u.buf, count, &from, out.buf, &saturated);
        Py_END_ALLOW_THREADS
        result = status < 0 ? PyErr_NoMemory() : PyLong_FromUnsignedLongLong(saturated);
        PyBuffer_Release(&out);
    }
    PyBuffer_Release(&u);
    return result;
}
