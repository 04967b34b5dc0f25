/* The kinds of operations: one table. */
#include "_crossbar_stream.h"

int refuse(const char *what) {
    PyErr_Format(PyExc_ValueError, "engine: %s", what);
    return -1;
}

const Py_buffer *table_of(const engine *e, int64_t index, Py_ssize_t item) {
    if (index >= 0 && index < e->table_count && e->tables[index].itemsize == item)
        return &e->tables[index];
    refuse("an operation names no table, or one of another type");
    return NULL;
}

void need_work(engine *e, Py_ssize_t bytes) {
    if (bytes > e->work_bytes) e->work_bytes = bytes;
}

enum { INTO = 1, A = 2, B = 4, C = 8, SLOTS = 4 };

static const struct {
    const char *name;
    int boxes; /* the regions that it has */
    int (*prepare)(engine *e, op *o);
    int (*run)(engine *e, stream *s, const op *o);
} KINDS[] = {
    {"loop", 0, prepare_loop, run_loop},
    {"end", 0, prepare_end, run_end},
    {"call", 0, prepare_call, run_call},
    {"move", INTO | A, prepare_move, run_move},
    {"send", A, prepare_send, run_send},
    {"recv", INTO, prepare_recv, run_recv},
    {"fill", INTO, prepare_fill, run_fill},
    {"requant", INTO | A, prepare_requant, run_requant},
    {"combine", INTO | A | B, prepare_combine, run_combine},
    {"select", INTO | A | B | C, prepare_select, run_select},
    {"lut", INTO | A, prepare_lut, run_lut},
    {"accumulate", INTO | A, prepare_accumulate, run_accumulate},
    {"mvm", INTO | A, prepare_mvm, run_mvm},
    {"gather", INTO | A, prepare_gather, run_gather},
    {"matmul", INTO | A | B, prepare_matmul, run_matmul},
    {"softmax", INTO | A, prepare_softmax, run_softmax},
    {"logsoftmax", INTO | A, prepare_logsoftmax, run_logsoftmax},
    {"layernorm", INTO | A, prepare_layernorm, run_layernorm},
    {"function", INTO | A, prepare_function, run_function},
    {"reduce", INTO | A, prepare_reduce, run_reduce},
    {"fsoftmax", INTO | A, prepare_fsoftmax, run_fsoftmax},
    {"flayernorm", INTO | A, prepare_flayernorm, run_flayernorm},
    {"moments", INTO | A, prepare_moments, run_moments},
    {"groupnorm", INTO | A | B, prepare_groupnorm, run_groupnorm},
    {"pool", INTO | A, prepare_pool, run_pool},
};
enum { KIND_COUNT = sizeof KINDS / sizeof *KINDS };

PyObject *py_kinds(PyObject *self, PyObject *unused) {
    (void)self, (void)unused;
    PyObject *names = PyTuple_New(KIND_COUNT);
    for (Py_ssize_t i = 0; names && i < KIND_COUNT; i++) {
        PyObject *name = PyUnicode_FromString(KINDS[i].name);
        if (!name || PyTuple_SetItem(names, i, name) < 0) Py_CLEAR(names);
    }
    return names;
}

int op_prepare(engine *e, op *o, const int64_t *code) {
    const box **slots[SLOTS] = {&o->into, &o->a, &o->b, &o->c};
    if (code[0] < 0 || code[0] >= KIND_COUNT) return refuse("there is no such kind");
    for (int i = 0; i < SLOTS; i++) {
        const int64_t index = code[1 + i];
        if (!(KINDS[code[0]].boxes & 1 << i)) continue;
        if (index < 0 || index >= e->box_count) return refuse("an operation lacks a region");
        *slots[i] = &e->boxes[index];
    }
    memcpy(o->x, code + 1 + SLOTS, sizeof o->x);
    o->run = KINDS[code[0]].run;
    return KINDS[code[0]].prepare(e, o);
}
