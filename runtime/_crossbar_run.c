/* A run of all streams: in turn, each until it has to wait for a queue. */
#include "_crossbar_stream.h"

enum { SIGNAL_OPERATIONS = 16 }; /* between two looks at whether the user wants to stop */
enum { ENDED = -1, STUCK = -2, RAISED = -3 };

static void make_ready(engine *e, Py_ssize_t stream) {
    e->ready[(e->ready_first + e->ready_count++) % e->stream_count] = stream;
}

void wake(engine *e, queue *q) {
    if (q->waiter < 0) return;
    make_ready(e, q->waiter);
    q->waiter = -1;
}

static void reset(engine *e) {
    e->ready_first = e->ready_count = 0;
    for (Py_ssize_t i = 0; i < e->queue_count; i++) {
        queue *q = &e->queues[i];
        q->sent = q->taken = 0, q->waiter = -1;
    }
    for (Py_ssize_t i = 0; i < e->matrix_count; i++) e->matrices[i].saturated = 0;
    for (Py_ssize_t i = 0; i < e->stream_count; i++) {
        e->streams[i].at = e->streams[i].first;
        make_ready(e, i);
    }
}

static int stopped_by_user(engine *e) {
    PyEval_RestoreThread(e->thread);
    const int stopped = PyErr_CheckSignals() < 0;
    e->thread = PyEval_SaveThread();
    return stopped;
}

/* ENDED; STUCK; RAISED, a Python exception is set; or the stream whose operation refuses. */
static Py_ssize_t run_all(engine *e) {
    Py_ssize_t running = e->stream_count;
    uint64_t operations = 0;
    while (e->ready_count) {
        const Py_ssize_t index = e->ready[e->ready_first];
        stream *s = &e->streams[index];
        e->ready_first = (e->ready_first + 1) % e->stream_count;
        e->ready_count--;
        int status = NEXT;
        while (s->at < s->end) {
            const op *o = &e->ops[s->at];
            if (++operations % SIGNAL_OPERATIONS == 0 && stopped_by_user(e)) return RAISED;
            status = o->run(e, s, o);
            if (status != NEXT) break;
            s->at++;
        }
        if (status == REFUSES) return index;
        if (status == FAILS) return RAISED;
        if (status == WAITS) e->ops[s->at].queue->waiter = index;
        else running--;
    }
    return running ? STUCK : ENDED;
}

static PyObject *integers(Py_ssize_t count, int64_t (*get)(const engine *, Py_ssize_t),
                          const engine *e) {
    PyObject *list = PyList_New(count);
    for (Py_ssize_t i = 0; list && i < count; i++) {
        PyObject *number = PyLong_FromLongLong(get(e, i));
        if (!number || PyList_SetItem(list, i, number) < 0) Py_CLEAR(list);
    }
    return list;
}

static int64_t position(const engine *e, Py_ssize_t i) { return e->streams[i].at; }
static int64_t variable(const engine *e, Py_ssize_t i) { return e->variables[i]; }
static int64_t sent(const engine *e, Py_ssize_t i) { return e->queues[i].sent; }
static int64_t taken(const engine *e, Py_ssize_t i) { return e->queues[i].taken; }
static int64_t saturated(const engine *e, Py_ssize_t i) {
    return (int64_t)e->matrices[i].saturated;
}
static int64_t oldest(const engine *e, Py_ssize_t i) {
    const queue *q = &e->queues[i];
    return q->sent > q->taken ? q->sizes[q->taken % q->memory.rows] : 0;
}

static PyObject *outcome(const engine *e, Py_ssize_t stopped) {
    return Py_BuildValue("(nNNNNNN)", stopped, integers(e->matrix_count, saturated, e),
                         integers(e->stream_count, position, e),
                         integers(e->variable_count, variable, e),
                         integers(e->queue_count, sent, e), integers(e->queue_count, taken, e),
                         integers(e->queue_count, oldest, e));
}

const char run_doc[] =
    "run(engine, calls, records)\n--\n\n"
    "Run all streams from their start; returns where they stopped.";

PyObject *py_run(PyObject *self, PyObject *args) {
    PyObject *capsule, *calls, *records;
    (void)self;
    if (!PyArg_ParseTuple(args, "OO!O:run", &capsule, &PyList_Type, &calls, &records)) return NULL;
    engine *e = engine_of(capsule);
    if (!e) return NULL;
    if (e->running) {
        PyErr_SetString(PyExc_RuntimeError, "engine: it runs already");
        return NULL;
    }
    if (records != Py_None && !PyList_Check(records)) {
        PyErr_SetString(PyExc_TypeError, "engine: records are a list, or None");
        return NULL;
    }
    e->running = 1;
    e->calls = calls, e->records = records == Py_None ? NULL : records;
    reset(e);
    e->thread = PyEval_SaveThread();
    const Py_ssize_t stopped = run_all(e);
    PyEval_RestoreThread(e->thread);
    e->running = 0;
    return stopped == RAISED ? NULL : outcome(e, stopped);
}
