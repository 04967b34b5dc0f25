/* An engine, made from arrays: everything that its loops rely on is checked once. */
#include "_crossbar_stream.h"

static const char NAME[] = "runtime._crossbar.engine";

static void engine_free(engine *e) {
    for (Py_ssize_t i = 0; i < e->view_count; i++) PyBuffer_Release(&e->views[i]);
    for (Py_ssize_t i = 0; i < e->table_count; i++) PyBuffer_Release(&e->tables[i]);
    for (Py_ssize_t i = 0; i < e->matrix_count; i++) {
        if (e->matrices[i].weights.buf) PyBuffer_Release(&e->matrices[i].weights);
        Py_XDECREF(e->matrices[i].capsule);
    }
    for (Py_ssize_t i = 0; i < e->queue_count; i++) free(e->queues[i].sizes);
    void *owned[] = {e->variables, e->storages, e->queues, e->boxes, e->terms, e->ops, e->views,
                     e->tables, e->matrices, e->streams, e->ready, e->scratch, e->work};
    for (size_t i = 0; i < sizeof owned / sizeof *owned; i++) free(owned[i]);
    free(e);
}

engine *engine_of(PyObject *capsule) { return PyCapsule_GetPointer(capsule, NAME); }

static void engine_release(PyObject *capsule) { engine_free(PyCapsule_GetPointer(capsule, NAME)); }

static void *zeros(Py_ssize_t count, size_t size) {
    void *memory = calloc((size_t)count + 1, size);
    if (!memory) PyErr_NoMemory();
    return memory;
}

/* --------------------------------------------------------------- memory */

static int type_of(const Py_buffer *view) {
    const char *format = view->format ? view->format : "B";
    if (*format == '<' || *format == '=' || *format == '@') format++;
    if (view->itemsize == 1) return *format == 'b' ? S8 : *format == 'B' ? U8 : OTHER;
    if (view->itemsize != 4) return OTHER;
    return strchr("il", *format) ? S32 : *format == 'f' ? F32 : OTHER;
}

/* The next writable view of `axes` axes, none of which is empty; NULL with an exception. */
static const Py_buffer *add_view(engine *e, PyObject *list, Py_ssize_t index, int axes) {
    PyObject *array = PyList_GetItem(list, index);
    Py_buffer *view = &e->views[e->view_count];
    const int flags = PyBUF_C_CONTIGUOUS | PyBUF_FORMAT | PyBUF_WRITABLE;
    if (!array || PyObject_GetBuffer(array, view, flags) < 0) return NULL;
    e->view_count++;
    int fits = view->ndim == axes;
    for (int i = 0; fits && i < axes; i++)
        fits = view->shape[i] >= 1 && view->shape[i] <= MAX_SIZE;
    if (fits) return view;
    PyErr_Format(PyExc_ValueError, "engine: an array needs %d axes, none of them empty", axes);
    return NULL;
}

static int take_storages(engine *e, PyObject *list) {
    for (Py_ssize_t i = 0; i < e->storage_count; i++) {
        const Py_buffer *v = add_view(e, list, i, 4);
        if (!v) return -1;
        if (v->shape[0] != e->images) return refuse("a storage has another number of images");
        const Py_ssize_t column = v->shape[3] * v->itemsize, row = v->shape[2] * column;
        e->storages[i] = (storage){v->buf, type_of(v), v->shape[1], v->shape[2], v->shape[3],
                                   v->itemsize, v->shape[1] * row, row, column};
    }
    return 0;
}

static int take_queues(engine *e, PyObject *list) {
    for (Py_ssize_t i = 0; i < e->queue_count; i++) {
        const Py_buffer *v = add_view(e, list, i, 3);
        if (!v) return -1;
        if (v->shape[1] != e->images) return refuse("a queue has another number of images");
        const Py_ssize_t message = v->shape[2] * v->itemsize;
        e->queues[i].memory = (storage){v->buf, type_of(v), v->shape[0], 1, v->shape[2],
                                        v->itemsize, message, e->images * message, message};
        if (!(e->queues[i].sizes = zeros(v->shape[0], sizeof(int64_t)))) return -1;
    }
    return 0;
}

static int take_tables(engine *e, PyObject *list) {
    const Py_ssize_t count = e->table_count;
    for (e->table_count = 0; e->table_count < count; e->table_count++) {
        PyObject *array = PyList_GetItem(list, e->table_count);
        Py_buffer *view = &e->tables[e->table_count];
        if (!array || PyObject_GetBuffer(array, view, PyBUF_C_CONTIGUOUS) < 0) return -1;
    }
    return 0;
}

/* --------------------------------------------------------------- matrices */

static int take_matrix(matrix *m, PyObject *tuple) {
    PyObject *weights, *capsule;
    const char *method;
    if (!PyTuple_Check(tuple)) return refuse("a matrix is no tuple");
    if (!PyArg_ParseTuple(tuple, "nnOOs", &m->inputs, &m->outputs, &weights, &capsule, &method))
        return -1;
    if (m->inputs < 1 || m->inputs > MAX_SIDE || m->outputs < 1 || m->outputs > MAX_SIDE)
        return refuse("a matrix has no inputs or no outputs");
    if (weights != Py_None) {
        if (m->inputs > MAX_INPUTS) return refuse("a matrix has too many inputs");
        if (take(weights, &m->weights, "weights", 4, "b", 0) < 0) {
            m->weights.buf = NULL;
            return -1;
        }
        const Py_ssize_t *shape = m->weights.shape;
        if (shape[0] != (m->outputs + OUTS - 1) / OUTS ||
            shape[1] != (m->inputs + DEPTH - 1) / DEPTH || shape[2] != OUTS || shape[3] != DEPTH)
            return refuse("weights do not fit their matrix");
    }
    if (capsule == Py_None) return m->weights.buf ? 0 : refuse("a matrix has no weights");
    m->plan = plan_of(capsule);
    if (!m->plan) return -1;
    m->capsule = Py_NewRef(capsule);
    m->method = method_of(method);
    if (!method_can(m->plan, m->method) || m->plan->inputs != m->inputs ||
        m->plan->outputs != m->outputs)
        return refuse("a plan does not fit its matrix or its method");
    if (!m->weights.buf && strcmp(method, "table") != 0 && strcmp(method, "popcount") != 0)
        return refuse("the method needs the linear product");
    return 0;
}

static int take_matrices(engine *e, PyObject *list) {
    for (Py_ssize_t i = 0; i < e->matrix_count; i++) {
        PyObject *item = PyList_GetItem(list, i);
        if (!item || take_matrix(&e->matrices[i], item) < 0) return -1;
    }
    return 0;
}

/* --------------------------------------------------------------- code */

static int take_terms(engine *e, const int64_t *fields) {
    for (Py_ssize_t i = 0; i < e->term_count; i++, fields += 2) {
        e->terms[i] = (term){fields[0], fields[1]};
        if (fields[0] < 0 || fields[0] >= e->variable_count || fields[1] < -MAX_SIZE ||
            fields[1] > MAX_SIZE)
            return refuse("a term has no variable, or a factor beyond 2^30");
    }
    return 0;
}

static int take_box(engine *e, box *b, const int64_t *f) {
    if (f[0] < 0 || f[0] >= e->storage_count) return refuse("a region has no storage");
    const storage *in = &e->storages[f[0]];
    if (f[2] < 1 || f[2] > in->rows || f[3] < 1 || f[3] > in->columns || f[4] < 1 ||
        f[4] > in->channels)
        return refuse("a region is empty, or larger than its storage");
    b->in = in, b->ring = f[1] != 0;
    b->rows = (Py_ssize_t)f[2], b->columns = (Py_ssize_t)f[3], b->channels = (Py_ssize_t)f[4];
    b->packed = b->channels == in->channels;
    b->runs = b->packed ? 1 : b->columns;
    b->run = (b->packed ? b->columns : 1) * b->channels * in->item;
    for (int i = 0; i < 3; i++) {
        const int64_t *a = f + 5 + 3 * i;
        if (a[0] < -MAX_SIZE || a[0] > MAX_SIZE || a[1] < 0 || a[2] < 0 || a[2] > 4 ||
            a[1] > e->term_count - a[2])
            return refuse("the start of a region has no terms, too many, or is beyond 2^30");
        b->start[i] = (affine){a[0], (Py_ssize_t)a[1], (Py_ssize_t)a[2]};
    }
    return 0;
}

static int take_streams(engine *e, const int64_t *offsets) {
    if (offsets[0] != 0 || offsets[e->stream_count] != e->op_count)
        return refuse("streams do not hold all operations");
    for (Py_ssize_t i = 0; i < e->stream_count; i++) {
        if (offsets[i] > offsets[i + 1]) return refuse("streams do not rise");
        e->streams[i] = (stream){(Py_ssize_t)offsets[i], (Py_ssize_t)offsets[i + 1], 0};
        for (int64_t n = offsets[i]; n < offsets[i + 1]; n++) {
            const int64_t jump = op_jump(&e->ops[n]);
            if (jump >= 0 && (jump < offsets[i] || jump >= offsets[i + 1]))
                return refuse("a loop leaves its stream");
        }
    }
    return 0;
}

/* An int64 array of `fields` columns; *rows gets its length. NULL with an exception. */
static const int64_t *numbers(PyObject *object, Py_buffer *view, const char *name, int fields,
                              Py_ssize_t *rows) {
    if (take(object, view, name, 2, "lq", 0) < 0) return NULL;
    *rows = view->shape[0];
    if (view->itemsize == 8 && view->shape[1] == fields) return view->buf;
    PyErr_Format(PyExc_ValueError, "%s: expected 64-bit integers [n, %d]", name, fields);
    PyBuffer_Release(view);
    return NULL;
}

enum { BOXES, TERMS, CODE, STREAMS, ARRAYS };

static int take_code(engine *e, const int64_t *const arrays[ARRAYS]) {
    if (take_terms(e, arrays[TERMS]) < 0) return -1;
    for (Py_ssize_t i = 0; i < e->box_count; i++)
        if (take_box(e, &e->boxes[i], arrays[BOXES] + i * BOX_FIELDS) < 0) return -1;
    for (Py_ssize_t i = 0; i < e->op_count; i++)
        if (op_prepare(e, &e->ops[i], arrays[CODE] + i * CODE_FIELDS) < 0) return -1;
    if (!(e->work = zeros(e->work_bytes, 1))) return -1;
    return take_streams(e, arrays[STREAMS]);
}

static int allocate(engine *e) {
    return (e->storages = zeros(e->storage_count, sizeof *e->storages)) &&
                   (e->queues = zeros(e->queue_count, sizeof *e->queues)) &&
                   (e->views = zeros(e->storage_count + e->queue_count, sizeof *e->views)) &&
                   (e->tables = zeros(e->table_count, sizeof *e->tables)) &&
                   (e->matrices = zeros(e->matrix_count, sizeof *e->matrices)) &&
                   (e->boxes = zeros(e->box_count, sizeof *e->boxes)) &&
                   (e->terms = zeros(e->term_count, sizeof *e->terms)) &&
                   (e->ops = zeros(e->op_count, sizeof *e->ops)) &&
                   (e->streams = zeros(e->stream_count, sizeof *e->streams)) &&
                   (e->ready = zeros(e->stream_count, sizeof *e->ready)) &&
                   (e->variables = zeros(e->variable_count, sizeof *e->variables)) &&
                   (e->scratch = zeros(e->scratch_bytes, 1))
               ? 0
               : -1;
}

const char engine_doc[] =
    "engine(images, storages, queues, tables, matrices, boxes, terms, code, streams,\n"
    "       variables, scratch_bytes, level)\n--\n\n"
    "Check and copy streams into the form that `run` executes.";

PyObject *py_engine(PyObject *self, PyObject *args) {
    PyObject *lists[4], *objects[ARRAYS], *capsule = NULL;
    static const char *const names[ARRAYS] = {"boxes", "terms", "code", "streams"};
    static const int fields[ARRAYS] = {BOX_FIELDS, 2, CODE_FIELDS, 1};
    Py_buffer views[ARRAYS];
    const int64_t *arrays[ARRAYS];
    Py_ssize_t rows[ARRAYS], counts[4];
    int taken = 0;
    (void)self;
    engine *e = calloc(1, sizeof *e);
    if (!e) return PyErr_NoMemory();
    if (!PyArg_ParseTuple(args, "nO!O!O!O!OOOOnni:engine", &e->images, &PyList_Type, &lists[0],
                          &PyList_Type, &lists[1], &PyList_Type, &lists[2], &PyList_Type,
                          &lists[3], &objects[0], &objects[1], &objects[2], &objects[3],
                          &e->variable_count, &e->scratch_bytes, &e->level))
        goto done;
    for (int i = 0; i < 4; i++)
        if ((counts[i] = PyList_Size(lists[i])) < 0) goto done;
    for (; taken < ARRAYS; taken++)
        if (!(arrays[taken] = numbers(objects[taken], &views[taken], names[taken], fields[taken],
                                      &rows[taken])))
            goto done;
    e->box_count = rows[BOXES], e->term_count = rows[TERMS], e->op_count = rows[CODE];
    e->stream_count = rows[STREAMS] - 1;
    if (e->images < 1 || e->images > MAX_SIZE || e->stream_count < 0 || e->variable_count < 0 ||
        e->scratch_bytes < 1 || e->level < 0 || e->level > best_level()) {
        refuse("images, streams, variables, scratch or level");
        goto done;
    }
    e->storage_count = counts[0], e->queue_count = counts[1];
    e->table_count = counts[2], e->matrix_count = counts[3];
    e->rows = row_kernels_of(e->level);
    if (allocate(e) < 0) {
        e->table_count = e->matrix_count = e->queue_count = 0; /* nothing to release yet */
        goto done;
    }
    if (take_tables(e, lists[2]) == 0 && take_storages(e, lists[0]) == 0 &&
        take_queues(e, lists[1]) == 0 && take_matrices(e, lists[3]) == 0 &&
        take_code(e, arrays) == 0)
        capsule = PyCapsule_New(e, NAME, engine_release);
done:
    while (taken > 0) PyBuffer_Release(&views[--taken]);
    if (!capsule) engine_free(e);
    return capsule;
}
