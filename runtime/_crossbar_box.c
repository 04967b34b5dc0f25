/* Regions of buffers: where their rows stand now, and how their elements are copied. */
#include "_crossbar_stream.h"

ALWAYS int64_t value_of(const engine *e, const affine *a) {
    int64_t value = a->constant;
    for (Py_ssize_t i = a->first; i < a->first + a->count; i++)
        value += e->terms[i].factor * e->variables[e->terms[i].variable];
    return value;
}

int locate(const engine *e, const box *b, place *found) {
    const storage *in = b->in;
    int64_t row = value_of(e, &b->start[0]);
    const int64_t column = value_of(e, &b->start[1]), channel = value_of(e, &b->start[2]);
    if (b->ring) {
        row %= in->rows;
        if (row < 0) row += in->rows;
    } else if (row < 0 || row > in->rows - b->rows) {
        return REFUSES;
    }
    if (column < 0 || column > in->columns - b->columns || channel < 0 ||
        channel > in->channels - b->channels)
        return REFUSES;
    found->origin = in->base + column * in->column_step + channel * in->item;
    found->first = (Py_ssize_t)row;
    return NEXT;
}

/* The runs of a box, one after another. */
typedef struct {
    const box *of;
    place at;
    Py_ssize_t image, row, column;
} cursor;

ALWAYS char *next_run(cursor *c) {
    char *found = row_of(c->of, c->at, c->image, c->row) + c->column * c->of->in->column_step;
    if (++c->column == c->of->runs) {
        c->column = 0;
        c->row++;
    }
    return found;
}

void move_image(Py_ssize_t image, const box *from, place source, const box *into, place target) {
    cursor read = {from, source, image, 0, 0}, write = {into, target, image, 0, 0};
    const char *a = NULL;
    char *b = NULL;
    Py_ssize_t left_a = 0, left_b = 0, left = elements_of(into) * into->in->item;
    while (left > 0) {
        if (left_a == 0) a = next_run(&read), left_a = from->run;
        if (left_b == 0) b = next_run(&write), left_b = into->run;
        const Py_ssize_t size = left_a < left_b ? left_a : left_b;
        memcpy(b, a, (size_t)size);
        a += size, b += size, left_a -= size, left_b -= size, left -= size;
    }
}

void move(const engine *e, const box *from, place source, const box *into, place target) {
    for (Py_ssize_t image = 0; image < e->images; image++)
        move_image(image, from, source, into, target);
}

box line_box(const storage *in, Py_ssize_t elements) {
    box b = {.in = in, .packed = 1, .rows = 1, .columns = 1, .channels = elements,
             .run = elements * in->item, .runs = 1};
    return b;
}
