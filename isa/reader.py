"""Reader: the text of a program, line by line, into a Program; every line that is wrong is named.

A line that cannot be read is skipped, so one run finds the errors of all lines. Blocks (loops,
inline matrices, long tables) are followed by a small state machine, not by the grammar.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

import numpy as np
from numpy.typing import NDArray

from isa.data_arrays import matrix_from, table_from
from isa.diagnostics import Diagnostic, Findings, Location
from isa.directive_fields import USAGE, Fields
from isa.matrix import BlockMatrix
from isa.printer import DATA_FILE
from isa.program import (
    Channel,
    Core,
    Loop,
    Matrix,
    Partition,
    Program,
    Table,
    Tensor,
)
from isa.read_directives import (
    MatrixHead,
    read_buffer,
    read_channel,
    read_core,
    read_matrix,
    read_partition,
    read_table,
    read_target,
    read_tensor,
    table_array,
    table_numbers,
)
from isa.read_fast import FastReader
from isa.read_operands import read_call
from isa.read_state import OpenCore, OpenLoop, OpenMatrix, OpenTable, Skipped
from isa.source import Source
from isa.syntax import read_line
from isa.syntax_tree import (
    At,
    Call,
    Close,
    Code,
    Column,
    Directive,
    Group,
    LoopHead,
    Name,
    Node,
    SyntaxFault,
    Values,
    whole_numbers,
)
from isa.validate import did_you_mean

VERSION: Final = 1
MAX_NESTING: Final = 32
MAX_FAULTS: Final = 200  # a binary file gives one error a line; nobody reads more than these

Arrays = Mapping[str, NDArray[np.generic]]


class Reader:
    """Reads one text; `program` and `source` are whole when `findings` has no errors."""

    def __init__(self, text: str, arrays: Arrays | None, file: str) -> None:
        self.source = Source(file, text.split("\n"))
        self.findings = Findings()
        self._arrays = arrays
        self._fast = FastReader()
        self._target = ("", "")
        self._tensors: list[Tensor] = []
        self._tables: list[Table] = []
        self._channels: list[Channel] = []
        self._cores: list[Core] = []
        self._partitions: list[Partition] = []
        self._core: OpenCore | None = None
        self._block: OpenMatrix | OpenTable | Skipped | None = None
        self._stored: dict[str, BlockMatrix] = {}  # of the data file, by matrix
        self._ordinals: list[int] = []  # lines of the open core's instructions
        self._line = 0
        self._has_version = self._has_data = False

    def read(self) -> Program:
        """Read every line; the result means something only when there are no findings."""
        for line, text in enumerate(self.source.lines, 1):
            self._line = line
            if len(self.findings) >= MAX_FAULTS:
                break
            self._read_line(text.rstrip("\r"))
            if self.findings and not self._has_version:  # no program text at all
                break
        self._close_block()
        self._close_core()
        if not self._has_version and not self.findings:
            self._line = 1
            self._fault(
                SyntaxFault("E311", "the text is empty", 1, None, "it begins with `.pim 1`")
            )
        return Program(
            *self._target,
            tuple(self._tensors),
            tuple(self._tables),
            tuple(self._channels),
            tuple(self._cores),
            tuple(self._partitions),
        )

    def _read_line(self, text: str) -> None:
        if self._core is not None and self._block is None:
            instruction = self._fast.read(text)
            if instruction is not None:
                self._core.innermost.append(instruction)
                self._ordinals.append(self._line)
                return
        try:
            node = read_line(text)
            if node is not None:
                self._take(node)
        except SyntaxFault as fault:
            self._fault(fault)
            self._open_in_spite(text.split(";")[0].strip())

    def _open_in_spite(self, line: str) -> None:
        """Open what a faulty line meant to open, so that the lines after it are not wrong, too."""
        if line.startswith("."):
            self._close_block()
        if line.startswith((".matrix", ".table")):
            self._block = Skipped()
        elif line.startswith(".core"):
            self._core = OpenCore(-1, "")
        elif line.startswith("loop") and line.endswith("{") and self._core is not None:
            head = LoopHead(1, 2, Name(1, 2, "_"), 0, 1, 1)
            self._core.loops.append(OpenLoop(head, self._line))

    def _fault(self, fault: SyntaxFault, line: int | None = None) -> None:
        line = line or self._line
        text = self.source.lines[line - 1].rstrip("\r")
        length = max(1, fault.end - fault.column)
        at = Location(self.source.file, line, fault.column, length, text)
        self.findings.add(Diagnostic(fault.code, fault.message, at, fault.hint))

    def _here(self, node: Node) -> Location:
        text = self.source.lines[self._line - 1].rstrip("\r")
        return Location(self.source.file, self._line, node.column, node.end - node.column, text)

    def _take(self, node: Node) -> None:
        if not self._has_version:
            self._has_version = True  # one complaint is enough
            if not isinstance(node, Directive) or node.name != ".pim":
                message = "the first line has to name the version of the text"
                self._fault(SyntaxFault("E311", message, 1, None, "write `.pim 1`"))
        if isinstance(node, Directive):
            self._close_block()
            self._take_directive(node)
        elif isinstance(node, Code):
            self._close_block()
            self._take_code(node)
        elif isinstance(self._block, OpenMatrix) and isinstance(node, Values):
            cells = tuple(whole_numbers(node.values))  # a column of wide cells without routes
            self._block.draft.take(Column(node.column, node.end, cells, ()))
        elif isinstance(self._block, OpenMatrix) and isinstance(node, Group | At | Column):
            self._block.draft.take(node)
        elif isinstance(self._block, OpenTable) and isinstance(node, Values):
            self._block.numbers += table_numbers(node.values)
        elif not isinstance(self._block, Skipped):
            what = "values" if isinstance(node, Values) else "a line of a matrix"
            where = "`.table NAME TYPE[..] =`" if isinstance(node, Values) else "`.matrix ...:`"
            message = f"{what} can only stand below {where}"
            raise SyntaxFault("E308", message, node.column, node.end)

    # ------------------------------------------------------------------ directives

    def _take_directive(self, node: Directive) -> None:
        name = node.name
        end = node.column + len(name)
        if name not in USAGE:
            hint = did_you_mean(name, list(USAGE)) or f"known: {', '.join(USAGE)}"
            raise SyntaxFault("E303", f"unknown directive `{name}`", node.column, end, hint)
        if name in (".matrix", ".buffer"):
            self._take_core_directive(node)
            return
        self._close_core()
        if name == ".pim":
            self._take_version(node)
        elif name == ".target":
            self._target = read_target(node)
        elif name == ".data":
            self._take_data(node)
        elif name == ".table":
            self._take_table(node)
        elif name == ".channel":
            channel = read_channel(node)
            self._channels.append(channel)
            self._declare("channel", None, channel.name)
        elif name == ".partition":
            partition = read_partition(node)
            self._partitions.append(partition)
            self._declare("partition", None, partition.name)
        elif name == ".core":
            index, layer = read_core(node)
            self._core = OpenCore(index, layer)
            self._declare("core", None, str(index))
        else:
            tensor = read_tensor(node)
            self._tensors.append(tensor)
            self._declare("tensor", None, tensor.name)

    def _declare(self, kind: str, core: int | None, name: str) -> None:
        self.source.declare(kind, core, name, self._line)

    def _take_version(self, node: Directive) -> None:
        fields = Fields(node)
        version = fields.count("the number of the version")
        fields.done()
        if version != VERSION:
            hint = f"this pimc reads version {VERSION}"
            message = f"version {version} of the text is not known"
            raise SyntaxFault("E311", message, node.column, node.end, hint)

    def _take_data(self, node: Directive) -> None:
        self._has_data = True
        fields = Fields(node)
        name = fields.name("the name of the data file")
        fields.done()
        if name != DATA_FILE:
            hint = f"write `.data {DATA_FILE}`"
            message = f"the data file beside a program is `{DATA_FILE}`, not `{name}`"
            raise SyntaxFault("E311", message, node.column, node.end, hint)

    def _need_data(self, node: Directive, what: str) -> None:
        if not self._has_data:
            self._has_data = True
            hint = f"write `.data {DATA_FILE}` at the top, or give the contents in the text"
            message = f"{what} stands in a data file, but the text names none"
            self._fault(SyntaxFault("E311", message, node.column, node.end, hint))

    def _take_table(self, node: Directive) -> None:
        name, dtype, shape, numbers, more = read_table(node)
        self._declare("table", None, name)
        if more:
            self._block = OpenTable(name, dtype, shape, node, self._line, [])
        elif numbers is None:
            self._need_data(node, "the table")
            here = self._here(node)
            values = table_from(self._arrays, name, dtype, shape, here, self.findings)
            if values is not None:
                self._tables.append(Table(name, dtype, values))
        else:
            values = table_array(dtype, shape, numbers, node)
            self._tables.append(Table(name, dtype, values, inline=True))

    def _take_core_directive(self, node: Directive) -> None:
        core = self._core
        if core is None or core.loops:
            where = "inside of a loop" if core else "before the first `.core`"
            message = f"`{node.name}` cannot stand {where}"
            raise SyntaxFault("E308", message, node.column, node.end)
        if node.name == ".buffer":
            buffer = read_buffer(node)
            core.buffers.append(buffer)
            self._declare("buffer", core.index, buffer.name)
            return
        head = read_matrix(node, core.layer)
        self._declare("matrix", core.index, head.name)
        if node.opens:
            self._block = OpenMatrix(head.name, head.layer, head.inputs, head.outputs, head.draft)
        else:
            self._take_stored_matrix(core, head, node)

    def _take_stored_matrix(self, core: OpenCore, head: MatrixHead, node: Directive) -> None:
        """A matrix whose blocks stand in the data file, or are those of another one."""
        if head.of and head.of not in self._stored:
            message = f"`of`: no matrix `{head.of}` of the data file stands above"
            raise SyntaxFault("E309", message, node.column, node.end)
        shape = (head.draft.inputs, head.draft.outputs)
        if head.of:
            blocks: BlockMatrix | None = self._stored[head.of]
            if blocks is not None and shape != (blocks.inputs, blocks.outputs):
                message = f"`{head.of}` is [{blocks.inputs}, {blocks.outputs}], its copy not"
                raise SyntaxFault("E309", message, node.column, node.end)
        else:
            self._need_data(node, "the matrix")
            here = self._here(node)
            blocks = matrix_from(self._arrays, head.name, shape, here, self.findings)
        if blocks is not None:
            self._stored.setdefault(head.name, blocks)
            core.matrices.append(
                Matrix(head.name, head.layer, head.inputs, head.outputs, blocks, of=head.of)
            )

    # ------------------------------------------------------------------ streams

    def _take_code(self, node: Code) -> None:
        core = self._core
        if core is None:
            message = "an instruction can only stand below a `.core`"
            raise SyntaxFault("E308", message, node.column, node.end)
        for part in node.parts:
            if isinstance(part, LoopHead):
                if len(core.loops) >= MAX_NESTING:
                    message = f"more than {MAX_NESTING} loops inside each other"
                    raise SyntaxFault("E308", message, part.column, part.end)
                core.loops.append(OpenLoop(part, self._line))
            elif isinstance(part, Call):
                self._take_call(core, part)
            else:
                self._close_loop(core, part)

    def _take_call(self, core: OpenCore, call: Call) -> None:
        faults: list[SyntaxFault] = []
        instruction = read_call(call, faults)
        for fault in faults:
            self._fault(fault)
        if instruction is not None:
            core.innermost.append(instruction)
            self._ordinals.append(self._line)

    def _close_loop(self, core: OpenCore, part: Close) -> None:
        if not core.loops:
            raise SyntaxFault("E308", "`}` closes no loop", part.column, part.end)
        done = core.loops.pop()
        head = done.head
        loop = Loop(head.variable.text, head.start, head.stop, tuple(done.body), head.step)
        core.innermost.append(loop)

    def _close_block(self) -> None:
        """End an inline matrix or table: the next directive or instruction has come."""
        block, self._block = self._block, None
        if isinstance(block, OpenMatrix) and self._core is not None:
            blocks: BlockMatrix = block.draft.finish()
            matrix = Matrix(block.name, block.layer, block.inputs, block.outputs, blocks, True)
            self._core.matrices.append(matrix)
        elif isinstance(block, OpenTable):
            try:
                values = table_array(block.dtype, block.shape, block.numbers, block.head)
                self._tables.append(Table(block.name, block.dtype, values, inline=True))
            except SyntaxFault as fault:
                self._fault(fault, block.line)

    def _close_core(self) -> None:
        core, self._core = self._core, None
        if core is None:
            return
        for loop in core.loops:
            head = loop.head
            message = f"the loop over `{head.variable.text}` has no closing `}}`"
            self._fault(SyntaxFault("E308", message, head.column, head.end), loop.line)
        self._cores.append(
            Core(
                core.index,
                core.layer,
                tuple(core.matrices),
                tuple(core.buffers),
                tuple(core.body),
            )
        )
        self.source.instructions.setdefault(core.index, self._ordinals)
        self._ordinals = []
