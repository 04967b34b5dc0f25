"""Streams of recurrent cells: row after row, with rows that stay in the core in between."""

from __future__ import annotations

import numpy as np

from isa.catalog import Const, Fill, Lut
from isa.operands import Region
from isa.program import Shape, Statement
from passes.draft import BufferDraft, Range
from passes.emit import Site, binary, deliver, take_row
from passes.graph import BinaryNode, CellNode, LutNode
from passes.stages import Worker


def emit_cell(site: Site, node: CellNode) -> None:
    """Write the stream of a cell.

    Rows that are kept go out first, because the matrices wait for them; then the steps run, each
    input is received when the first step needs it, and results leave as soon as they are there.
    """
    cell = _Cell(site, node)
    steps = [cell.step(row) for row in site.rows()]
    site.draft.body += [*cell.setup(), *site.roll_rows(steps)]


def cell_parts(node: CellNode, worker: Worker) -> dict[str, tuple[str, Range | None]]:
    """What a core is given of a cell's inputs: the value and its channels, by a key.

    A core with all units gets whole inputs, by their names; else each gate's share by itself.
    """
    first, last = worker.channels
    units = next(iter(node.rows.values())).shape[2]
    parts: dict[str, tuple[str, Range | None]] = {
        source: (source, worker.channels)
        for source, _ in node.kept.values()
        if isinstance(source, str)
    }
    for source, start in node.slices.values():
        if worker.channels == (0, units):
            parts[source] = (source, None)
        else:
            parts[_gate_key(source, start)] = (source, (start + first, start + last))
    return parts


def _gate_key(source: str, start: int) -> str:
    return f"{source}[{start}]"


class _Cell:
    """Buffers of a cell: one for each part of an input, and one for each row that is none."""

    def __init__(self, site: Site, node: CellNode) -> None:
        self.site, self.node = site, node
        sums = {source for source, _ in node.slices.values()}
        self.inputs = {
            key: site.draft.buffer("in", site.value(name).dtype, self._part_shape(key))
            for key, (name, _) in cell_parts(node, site.worker).items()
            if name in sums
        }
        self.buffers: dict[str, BufferDraft] = {}
        for name, (_, following) in node.kept.items():
            _check_in_place(node, name, following)
            self.buffers[name] = self.buffers[following] = self._buffer(name)
        for name in (step.output for step in node.steps):
            if name not in self.buffers:
                self.buffers[name] = self._buffer(name)

    def _part_shape(self, key: str) -> Shape:
        feed = self.site.feeds[key]
        return 1, feed.shape[1], feed.channels

    def _buffer(self, name: str) -> BufferDraft:
        row, (first, last) = self.node.rows[name], self.site.worker.channels
        shape = (1, row.shape[1], last - first)
        return self.site.draft.buffer(f"row.{name}", row.dtype, shape)

    def setup(self) -> list[Statement]:
        """Give the kept rows what they hold before the first row."""
        done: list[Statement] = []
        for name, (first, _) in self.node.kept.items():
            box = self.buffers[name].box()
            if isinstance(first, str):
                done += self._take(name, first)
                continue
            own = first[:, :, slice(*self.site.worker.channels)]
            if np.all(own == own.flat[0]):
                done.append(Fill(box, int(own.flat[0])))
            else:
                dtype = self.node.rows[name].dtype
                table = self.site.tables.add(f"{self.node.name}.{name}", dtype, own)
                done.append(Const(box, table))
        return done

    def _take(self, name: str, source: str) -> list[Statement]:
        """Receive a kept row; one of another type becomes the larger of it and itself."""
        given, row, into = self.site.value(source), self.node.rows[name], self.buffers[name]
        feed = self.site.feeds[source]
        if given.dtype == row.dtype:
            return take_row(feed, into, 0, 0)
        held = self.site.draft.buffer("in", given.dtype, into.shape)
        node = BinaryNode(name, (source, source), name, "max")
        step = binary({source: given, name: row}, node, into.box(), held.box(), held.box())
        return [*take_row(feed, held, 0, 0), step]

    def step(self, row: int) -> list[Statement]:
        """Statements for one row of the inputs."""
        done = [s for name in self.node.kept for s in self._deliver(name, row)]
        awaited = dict(self.inputs)
        for step in self.node.steps:
            for key in (self._key(name) for name in step.inputs):
                if key in awaited:
                    done += take_row(self.site.feeds[key], awaited.pop(key), 0, row)
            done.append(self._instruction(step))
            done += self._deliver(step.output, row)
        return done

    def _instruction(self, step: LutNode | BinaryNode) -> Statement:
        into, *operands = (self._region(name) for name in (step.output, *step.inputs))
        if isinstance(step, BinaryNode):
            return binary(self.node.rows, step, into, operands[0], operands[1])
        dtype, wish = self.node.rows[step.output].dtype, f"{self.node.name}.{step.output}.lut"
        return Lut(into, operands[0], self.site.tables.add(wish, dtype, step.table))

    def _key(self, name: str) -> str:
        """Of the part of an input that has a row; empty for other rows."""
        if name not in self.node.slices:
            return ""
        source, start = self.node.slices[name]
        return source if source in self.inputs else _gate_key(source, start)

    def _region(self, name: str) -> Region:
        if name not in self.node.slices:
            return self.buffers[name].box()
        key, (source, start) = self._key(name), self.node.slices[name]
        units = self.node.rows[name].shape[2]
        return self.inputs[key].box(channels=(start, start + units) if key == source else None)

    def _deliver(self, row_name: str, row: int) -> list[Statement]:
        """Send what consists of a row to all who need it."""
        done: list[Statement] = []
        for name, made_of in self.node.made.items():
            if made_of == row_name:
                whole = (0, self.site.value(name).shape[1])
                done += deliver(self.site, self.buffers[row_name], row, whole, name)
        return done


def _check_in_place(node: CellNode, name: str, following: str) -> None:
    """The row that replaces a kept one takes its buffer: nobody may read the old one after that."""
    outputs = [step.output for step in node.steps]
    for step in node.steps[outputs.index(following) + 1 :]:
        if name in step.inputs:
            raise ValueError(f"{node.name}: `{step.name}` reads `{name}` after it was replaced")
