/* Streams of instructions in C: what the files of the engine share. Nobody else includes it.
 *
 * _crossbar_engine.c   made from arrays and checked once
 * _crossbar_run.c      a run of all streams
 * _crossbar_kinds.c    one table of what there is: checks and functions
 * _crossbar_control.c  loops, calls of Python, messages
 * _crossbar_elements.c copies, fills, arithmetic
 * _crossbar_windows.c  products with a matrix, and pools
 * _crossbar_matmul.c   products of two computed matrices
 * _crossbar_normalize.c softmax, layer normalization
 * _crossbar_real.c     functions, reductions and normalizations of float32 rows
 * _crossbar_groups.c   normalization over the rows and columns of groups of channels
 * _crossbar_box.c      regions of buffers: where their rows stand, and how they are copied
 * _crossbar_rows.c     arithmetic on a run of elements, at the level of the CPU
 */
#ifndef PIM_CROSSBAR_STREAM_H
#define PIM_CROSSBAR_STREAM_H
#include "_crossbar.h"

#include <math.h>

enum { ARGUMENTS = 8, CODE_FIELDS = 5 + ARGUMENTS, BOX_FIELDS = 14 };
enum { S8, U8, S32, F32, OTHER }; /* types of elements */
enum { CHUNK = 512 };         /* elements whose real values are held at once */
enum { MAX_NORMALIZED = 1 << 22 }; /* channels: times 2 * 255 they fit 32 bits */
/* Of results, by type; of s32 the largest that float32 holds. Of F32 nobody asks. */
static const int LOW[] = {-128, 0, INT32_MIN, 0}, HIGH[] = {127, 255, INT32_MAX - 127, 0};
enum { COMBINATIONS = 7 }; /* add sub mul max min div pow */
enum { MAX_COUNTED = 1 << 23 };    /* elements of a group: a sum of so many fits 32 bits */
enum { MAX_SIZE = 1 << 30 }; /* of any axis, kernel or factor: products of two fit 64 bits */

/* `constant` plus the terms first..first+count of the engine. */
typedef struct {
    int64_t constant;
    Py_ssize_t first, count;
} affine;

typedef struct {
    int64_t variable, factor;
} term;

/* Memory of all images, [images, rows, columns, channels]; steps are bytes. */
typedef struct {
    char *base;
    int type;
    Py_ssize_t rows, columns, channels, item, image_step, row_step, column_step;
} storage;

/* A region of a storage. ring: row r stands in slot r mod the storage's rows. packed: the columns
 * of a row lie side by side. run: bytes side by side, of which a row has `runs`. */
typedef struct {
    const storage *in;
    int ring, packed;
    Py_ssize_t rows, columns, channels, run, runs;
    affine start[3];
} box;

/* Where a box stands now: its first row, and the byte of its first column and channel there. */
typedef struct {
    char *origin;
    Py_ssize_t first;
} place;

/* The messages of a channel; slots are the rows of `memory`. sizes: elements of each message. */
typedef struct {
    storage memory;
    int64_t *sizes, sent, taken;
    Py_ssize_t waiter; /* the stream to wake after the next send or receive, or -1 */
} queue;

typedef struct {
    Py_buffer weights; /* buf is NULL where there are none */
    PyObject *capsule; /* of the plan, NULL where nothing can clip */
    const plan *plan;
    int method;
    Py_ssize_t inputs, outputs;
    uint64_t saturated;
} matrix;

typedef struct engine engine;
typedef struct stream stream;
typedef struct op op;

/* NEXT: done. WAITS: to be called again when its queue has changed. REFUSES: Python's executor is
 * to say what is wrong. FAILS: a Python exception is set. */
enum { NEXT, WAITS, REFUSES, FAILS };

struct op {
    int (*run)(engine *e, stream *s, const op *o);
    const box *into, *a, *b, *c;
    int64_t x[ARGUMENTS];
    queue *queue;
    matrix *matrix;
    const void *table[3];
    Py_ssize_t period; /* elements after which the tables start again */
};

struct stream {
    Py_ssize_t first, end, at; /* operations */
};

struct engine {
    Py_ssize_t images, storage_count, queue_count, box_count, term_count, op_count, table_count,
        matrix_count, stream_count, variable_count;
    int64_t *variables; /* of all streams' loops */
    storage *storages;
    queue *queues;
    box *boxes;
    term *terms;
    op *ops;
    Py_buffer *views, *tables; /* views: of storages and queues, which stay alive */
    Py_ssize_t view_count;
    matrix *matrices;
    stream *streams;
    Py_ssize_t *ready, ready_first, ready_count;
    uint8_t *scratch, *work; /* gathered windows; what operations asked for, see need_work */
    Py_ssize_t scratch_bytes, work_bytes;
    const struct row_kernels *rows;
    int level, running;
    PyObject *calls, *records; /* borrowed while it runs */
    PyThreadState *thread;     /* while the GIL is released */
};

/* Arithmetic on n elements; types are S8, U8, S32, F32. Results of requantization and of `quantize`
 * stay in low..high, with the zero point in; F32 ones are what they are. */
typedef struct row_kernels {
    void (*requantize[4])(const int32_t *sums, const int32_t *bias, const float *scale, char *into,
                          Py_ssize_t n, int low, int high, int zero);
    void (*dequantize[4])(const char *from, float *real, Py_ssize_t n, float scale, int zero);
    void (*combine[COMBINATIONS])(float *a, const float *b, Py_ssize_t n);
    void (*quantize[4])(const float *real, char *into, Py_ssize_t n, float scale, int low, int high,
                        int zero);
    void (*accumulate)(int32_t *into, const int32_t *from, Py_ssize_t n);
    void (*flip)(uint8_t *bytes, Py_ssize_t n);
    void (*reduce[4])(char *into, const char *from, Py_ssize_t n); /* max s8 u8, sum s8 u8 */
    void (*moments[2])(const char *from, Py_ssize_t n, int64_t *total, int64_t *squares);
    void (*center[2])(const char *from, float *real, Py_ssize_t n, int count, int total, float root,
                      const float *gain, const float *offset);
    void (*sums[2])(const char *from, Py_ssize_t n, int32_t *total, uint32_t *squares);
    void (*standardize[2])(const char *from, float *real, Py_ssize_t n, double count,
                           const double *total, const float *root, const float *gain,
                           const float *offset);
} row_kernels;

/* _crossbar_rows.c */
const row_kernels *row_kernels_of(int level);

/* _crossbar_box.c */
int locate(const engine *e, const box *b, place *found); /* NEXT or REFUSES */
/* Copy the elements of an image in row-major order; both have as many, of one size. */
void move_image(Py_ssize_t image, const box *from, place source, const box *into, place target);
void move(const engine *e, const box *from, place source, const box *into, place target);
box line_box(const storage *in, Py_ssize_t elements); /* some elements side by side in a row */

ALWAYS char *row_of(const box *b, place p, Py_ssize_t image, Py_ssize_t row) {
    Py_ssize_t slot = p.first + row;
    if (slot >= b->in->rows) slot -= b->in->rows; /* only a ring has rows behind its last slot */
    return p.origin + image * b->in->image_step + slot * b->in->row_step;
}

ALWAYS int same_shape(const box *a, const box *b) {
    return a->rows == b->rows && a->columns == b->columns && a->channels == b->channels;
}

ALWAYS int is_zero_point(int64_t zero) { return zero >= -32768 && zero <= 32767; }

ALWAYS Py_ssize_t elements_of(const box *b) { return b->rows * b->columns * b->channels; }

/* _crossbar_kinds.c: code as of `engine`. -1 with an exception where it cannot be done as it
 * stands; `refuse` says so. */
int op_prepare(engine *e, op *o, const int64_t *code);
int refuse(const char *what);
/* The view of a table of `item`-byte elements, NULL with an exception. */
const Py_buffer *table_of(const engine *e, int64_t index, Py_ssize_t item);
void need_work(engine *e, Py_ssize_t bytes); /* `e->work` will have so many */
PyObject *py_kinds(PyObject *self, PyObject *unused);

/* prepare: checks everything that run relies on, once. */
#define KIND(name)                          \
    int prepare_##name(engine *e, op *o);   \
    int run_##name(engine *e, stream *s, const op *o)

/* _crossbar_control.c */
KIND(loop);
KIND(end);
KIND(call);
KIND(send);
KIND(recv);
int64_t op_jump(const op *o); /* where it may go on, or -1 */

/* _crossbar_elements.c */
KIND(move);
KIND(fill);
KIND(requant);
KIND(combine);
KIND(select);
KIND(lut);
KIND(accumulate);
KIND(gather);

/* _crossbar_matmul.c */
KIND(matmul);

/* _crossbar_normalize.c */
KIND(softmax);
KIND(logsoftmax);
KIND(layernorm);

/* _crossbar_real.c */
KIND(function);
KIND(reduce);
KIND(fsoftmax);
KIND(flayernorm);

/* _crossbar_groups.c */
KIND(moments);
KIND(groupnorm);

/* _crossbar_windows.c */
KIND(mvm);
KIND(pool);

/* _crossbar_engine.c */
PyObject *py_engine(PyObject *self, PyObject *args);
engine *engine_of(PyObject *capsule); /* NULL with an exception */
extern const char engine_doc[], run_doc[];

/* _crossbar_run.c. A stream goes on until it has to wait for a queue; whoever changes the queue
 * wakes it. What has no operation in C calls back to Python; else the GIL is released. */
PyObject *py_run(PyObject *self, PyObject *args);
void wake(engine *e, queue *q);

#endif
