/* Operations that decide what comes next: loops, calls of Python, messages. */
#include "_crossbar_stream.h"

int prepare_loop(engine *e, op *o) {
    const int64_t *x = o->x, end = x[4], index = o - e->ops;
    if (x[0] < 0 || x[0] >= e->variable_count || x[3] < 1 || x[3] > MAX_SIZE ||
        x[1] < -MAX_SIZE || x[1] > MAX_SIZE || x[2] < -MAX_SIZE || x[2] > MAX_SIZE ||
        end <= index || end >= e->op_count)
        return refuse("a loop has no variable, no end, or bounds beyond 2^30");
    return 0;
}

int run_loop(engine *e, stream *s, const op *o) {
    e->variables[o->x[0]] = o->x[1];
    if (o->x[1] >= o->x[2]) s->at = (Py_ssize_t)o->x[4];
    return NEXT;
}

int prepare_end(engine *e, op *o) {
    const int64_t begin = o->x[0], index = o - e->ops;
    if (begin < 0 || begin >= index || e->ops[begin].run != run_loop || e->ops[begin].x[4] != index)
        return refuse("an end has no loop");
    memcpy(&o->x[1], &e->ops[begin].x[0], 4 * sizeof *o->x); /* variable, start, stop, step */
    return 0;
}

int run_end(engine *e, stream *s, const op *o) {
    const int64_t value = e->variables[o->x[1]] + o->x[4];
    if (value < o->x[3]) {
        e->variables[o->x[1]] = value;
        s->at = (Py_ssize_t)o->x[0];
    }
    return NEXT;
}

int64_t op_jump(const op *o) {
    return o->run == run_loop ? o->x[4] : o->run == run_end ? o->x[0] : -1;
}

int prepare_call(engine *e, op *o) {
    const int64_t *x = o->x, count = e->variable_count;
    if (x[0] < 0 || x[1] < 0 || x[1] > count || x[2] < 0 || x[2] > count - x[1])
        return refuse("a call has no function or no variables");
    return 0;
}

/* Call the Python executor with the values of the enclosing loops' variables. */
int run_call(engine *e, stream *s, const op *o) {
    int status = FAILS;
    (void)s;
    PyEval_RestoreThread(e->thread);
    PyObject *values = PyTuple_New((Py_ssize_t)o->x[2]);
    for (Py_ssize_t i = 0; values && i < o->x[2]; i++) {
        PyObject *value = PyLong_FromLongLong(e->variables[o->x[1] + i]);
        if (!value || PyTuple_SetItem(values, i, value) < 0) Py_CLEAR(values);
    }
    PyObject *call = values ? PyList_GetItem(e->calls, (Py_ssize_t)o->x[0]) : NULL;
    PyObject *result = call ? PyObject_CallObject(call, values) : NULL;
    if (result) status = NEXT;
    Py_XDECREF(result);
    Py_XDECREF(values);
    e->thread = PyEval_SaveThread();
    return status;
}

static int prepare_message(engine *e, op *o) {
    const box *b = o->a ? o->a : o->into;
    if (o->x[0] < 0 || o->x[0] >= e->queue_count) return refuse("a message has no queue");
    o->queue = &e->queues[o->x[0]];
    if (b->in->item != o->queue->memory.item || elements_of(b) > o->queue->memory.channels)
        return refuse("a message does not fit its queue");
    return 0;
}

/* In a traced run: tell Python that a slot has been filled. */
static int record(engine *e, const op *o, Py_ssize_t slot, Py_ssize_t elements) {
    int status = FAILS;
    PyEval_RestoreThread(e->thread);
    PyObject *call = PyList_GetItem(e->records, (Py_ssize_t)o->x[0]);
    if (call == Py_None) {
        status = NEXT;
    } else if (call) {
        PyObject *result = PyObject_CallFunction(call, "nn", slot, elements);
        if (result) status = NEXT;
        Py_XDECREF(result);
    }
    e->thread = PyEval_SaveThread();
    return status;
}

int prepare_send(engine *e, op *o) { return prepare_message(e, o); }

int run_send(engine *e, stream *s, const op *o) {
    queue *q = o->queue;
    place from;
    (void)s;
    if (q->sent - q->taken >= q->memory.rows) return WAITS;
    if (locate(e, o->a, &from)) return REFUSES;
    const Py_ssize_t slot = (Py_ssize_t)(q->sent % q->memory.rows);
    const Py_ssize_t elements = elements_of(o->a);
    const box message = line_box(&q->memory, elements);
    move(e, o->a, from, &message, (place){q->memory.base, slot});
    q->sizes[slot] = elements;
    q->sent++;
    wake(e, q);
    return e->records ? record(e, o, slot, elements) : NEXT;
}

int prepare_recv(engine *e, op *o) { return prepare_message(e, o); }

int run_recv(engine *e, stream *s, const op *o) {
    queue *q = o->queue;
    place to;
    (void)s;
    if (q->sent == q->taken) return WAITS;
    const Py_ssize_t slot = (Py_ssize_t)(q->taken % q->memory.rows);
    const Py_ssize_t elements = elements_of(o->into);
    if (q->sizes[slot] != elements || locate(e, o->into, &to)) return REFUSES;
    const box message = line_box(&q->memory, elements);
    move(e, &message, (place){q->memory.base, slot}, o->into, to);
    q->taken++;
    wake(e, q);
    return NEXT;
}
