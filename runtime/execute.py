"""Executors of the matrix, memory and network instructions: the catalog's formulas on arrays."""

from __future__ import annotations

import numpy as np

from isa.catalog import Const, Copy, Fill, Gather, Load, Mvm, Recv, Send, Store
from runtime.binding import Action, Binder, Queue, executes
from runtime.regions import Array, Box, Pieces, windows_of


def _move(source: Box, into: Box) -> Action:
    """Copy ``source`` to ``into``, element by element in row-major order."""
    read, write = source.reader(), into.writer()
    if source.shape == into.shape:

        def copy() -> bool:
            write(read())
            return True

        return copy

    def reshape() -> bool:
        values = read()
        write(values.reshape(len(values), *into.shape))
        return True

    return reshape


@executes(Load)
def load(bind: Binder, i: Load) -> Action:
    return _move(bind.box(i.source), bind.box(i.into))


@executes(Store)
def store(bind: Binder, i: Store) -> Action:
    return _move(bind.box(i.source), bind.box(i.into))


@executes(Copy)
def copy(bind: Binder, i: Copy) -> Action:
    source, into = bind.box(i.source), bind.box(i.into)
    if i.source.name != i.into.name:
        return _move(source, into)
    read, write = source.reader(), into.writer()

    def within() -> bool:  # the boxes may overlap: take all values before the first is written
        write(read().reshape(bind.images, *into.shape).copy())
        return True

    return within


@executes(Fill)
def fill(bind: Binder, i: Fill) -> Action:
    pieces = bind.box(i.into).resolver(lambda pieces: pieces)

    def action() -> bool:
        for piece in pieces():
            piece[...] = i.value
        return True

    return action


@executes(Const)
def const(bind: Binder, i: Const) -> Action:
    into = bind.box(i.into)
    write = into.writer()
    shape = (bind.images, *into.shape)
    values = np.broadcast_to(bind.tables[i.table].reshape(into.shape), shape)

    def action() -> bool:
        write(values)
        return True

    return action


@executes(Gather)
def gather(bind: Binder, i: Gather) -> Action:
    source, into = bind.box(i.source), bind.box(i.into)
    read, write = source.reader(), into.writer()
    index = bind.tables[i.index].ravel().astype(np.intp)
    missing = np.flatnonzero(index < 0)
    index = np.where(index < 0, 0, index)

    def action() -> bool:
        values = read().reshape(bind.images, -1)[:, index]
        if len(missing):
            values[:, missing] = i.value
        write(values.reshape(bind.images, *into.shape))
        return True

    return action


def _messages(queue: Queue, box: Box, images: int) -> list[Array]:
    """Per slot of the queue: a view of its first elements in the shape of ``box``."""
    return [slot[:, : box.elements].reshape(images, *box.shape) for slot in queue.slots]


@executes(Send)
def send(bind: Binder, i: Send) -> Action:
    queue, source = bind.queues[i.channel], bind.box(i.source)
    read, elements, wake = source.reader(), source.elements, bind.wake
    views = _messages(queue, source, bind.images)
    depth = len(views)

    def action() -> bool:
        if len(queue.sizes) >= depth:
            return False
        message = views[queue.sent % depth]
        message[...] = read()
        if queue.record is not None:
            queue.record.append(message.reshape(bind.images, -1).copy())
        queue.sent += 1
        queue.sizes.append(elements)
        wake(queue)
        return True

    return action


@executes(Recv)
def recv(bind: Binder, i: Recv) -> Action:
    queue, into = bind.queues[i.channel], bind.box(i.into)
    write, elements, wake = into.writer(), into.elements, bind.wake
    views = _messages(queue, into, bind.images)
    depth = len(views)

    def action() -> bool:
        if not queue.sizes:
            return False
        queue.check(elements)
        write(views[queue.taken % depth])
        queue.taken += 1
        del queue.sizes[0]
        wake(queue)
        return True

    return action


@executes(Mvm)
def mvm(bind: Binder, i: Mvm) -> Action:
    """One row of windows of all images: gather the windows, then one kernel call per slice.

    The slices of images keep the gathered windows within the scratch, hence within the cache.
    """
    source, into = bind.box(i.source), bind.box(i.into)
    windows = into.shape[1]
    multiply = bind.multiplier(i.matrix, windows)
    inputs = i.kernel[0] * i.kernel[1] * source.shape[2]
    step = max(1, len(bind.scratch) // (windows * inputs))
    slices = [slice(a, min(a + step, bind.images)) for a in range(0, bind.images, step)]
    buffers = _scratch_views(bind.scratch, slices, (windows, *i.kernel, source.shape[2]))
    flip = np.array(0x80 if source.dtype == np.int8 else 0, np.uint8)

    def window_views(pieces: Pieces) -> list[list[tuple[Array, Array]]]:
        """Per slice of images: views of the windows, and where in the scratch each belongs."""
        found = windows_of(pieces, i.kernel, i.dilation, i.stride, windows)
        return [
            [(view[s].view(np.uint8), buffer[:, :, rows]) for rows, view in found]
            for s, buffer in zip(slices, buffers, strict=True)
        ]

    gathered = source.resolver(window_views)
    targets = into.resolver(lambda pieces: [_product_of(pieces[0][s, 0]) for s in slices])
    calls = [
        (buffer.reshape(-1, inputs), s.start) for s, buffer in zip(slices, buffers, strict=True)
    ]
    saturations, done = bind.saturations, bind.progress.windows

    def action() -> bool:
        for views, (target, product), (u, first) in zip(gathered(), targets(), calls, strict=True):
            for view, place in views:
                np.bitwise_xor(view, flip, out=place)  # s8 + 128 is one flipped bit
            clipped = multiply(u, product, first)
            if clipped:
                saturations[i.matrix] += clipped
            if target is not None:
                target[...] = product.reshape(target.shape)
        done[i.matrix] = done.get(i.matrix, 0) + windows
        return True

    return action


def _product_of(target: Array) -> tuple[Array | None, Array]:
    """Where a product [windows of all images, outputs] is written: ``target``, or beside it."""
    shape = (target.shape[0] * target.shape[1], target.shape[2])
    if target.flags.c_contiguous:
        return None, target.reshape(shape)
    return target, np.empty(shape, np.int32)


def _scratch_views(scratch: Array, slices: list[slice], box_shape: tuple[int, ...]) -> list[Array]:
    """Per slice of images, the start of the scratch as [images, *box_shape]."""
    size = int(np.prod(box_shape))
    counts = [s.stop - s.start for s in slices]
    return [scratch[: count * size].reshape(count, *box_shape) for count in counts]
