"""Diagnostic codes of programs: their text, their verification, their folders."""

from __future__ import annotations

from typing import Final

from isa.code import Code

# ------------------------------------------------------------------ E3xx: ISA text syntax
SYNTAX: Final[dict[str, Code]] = {
    "E301": Code(
        "syntax error",
        "The line breaks the form of the text at the marked place: a bracket, comma or quote is "
        "missing, or something stands where it cannot. The grammar is `isa/pim.lark`; "
        "`docs/isa.md` shows every kind of line.",
    ),
    "E302": Code(
        "unknown instruction",
        "The line begins with a word that is no mnemonic of the machine. `docs/isa.md` lists all "
        "instructions with their operands.",
    ),
    "E303": Code(
        "unknown directive",
        "The line begins with a `.word` that declares nothing. Known are .pim, .target, .data, "
        ".input, .output, .tensor, .host, .table, .channel, .partition, .core, .matrix and "
        ".buffer.",
    ),
    "E304": Code(
        "wrong number of operands",
        "An instruction or directive has more or fewer operands than it takes. Operands without a "
        "default are given in order and without names.",
    ),
    "E305": Code(
        "unknown or repeated name of an operand",
        "A `name=value` names something that this instruction or directive does not have, or has "
        "been given already.",
    ),
    "E306": Code(
        "wrong kind of operand",
        "An operand is of another kind than the instruction or directive takes there: a number "
        "where a region belongs, an unknown element type, and so on.",
    ),
    "E307": Code(
        "wrong region",
        "A region has up to three axes: rows, columns, channels. Each is one index, a range "
        "`a..b` without its end, or `*`. Both ends of a range use the same loop variables, because "
        "the size of a region never changes.",
    ),
    "E308": Code(
        "wrong place of a line",
        "A line cannot stand where it does: an instruction before the first `.core`, a `}` without "
        "its loop, a loop without its `}`, a buffer inside of a loop, values without a table.",
    ),
    "E309": Code(
        "wrong shape or number",
        "The sizes of a declaration do not fit: the number of axes, the number of values of a "
        "table, or a value that its element type cannot hold.",
    ),
    "E310": Code(
        "wrong line of an inline matrix",
        "Below `.matrix NAME[inputs, outputs] ...:` stand `group [inputs]`, `at x0[word line, bit "
        "line]` and stored columns such as `0b101 -> +0<<2 -3`. Selectors, outputs and cells have "
        "to lie within the sizes of the matrix.",
    ),
    "E311": Code(
        "wrong head of a text",
        "A text begins with `.pim 1`, and with `.data arrays.npz` when a table or matrix does not "
        "stand in the text itself.",
    ),
    "E312": Code(
        "program that has no text",
        "A program that was built by hand has a loop variable that the text form cannot express. "
        "Loop variables are letters, digits and `_`, and none of the words loop, step, ring, "
        "group, at, inf, nan.",
    ),
}

# ------------------------------------------------------------------ V4xx: program verifier
VERIFIER: Final[dict[str, Code]] = {
    "V401": Code(
        "undeclared name",
        "An instruction or declaration names a buffer, tensor, table, matrix, channel, core or "
        "loop variable that does not exist there. Buffers and matrices belong to one core.",
    ),
    "V402": Code(
        "name used twice",
        "Names are declared once: tensors, tables, channels and matrices once in a program, "
        "buffers once in a core, loop variables once among nested loops. A buffer must not have "
        "the name of an input or output.",
    ),
    "V403": Code(
        "wrong element type",
        "An operand has another element type than the instruction works on, or two types that "
        "have to be equal differ. `docs/isa.md` gives the types of every instruction.",
    ),
    "V404": Code(
        "wrong sizes",
        "The sizes of operands do not go together: windows that do not fit their source, a matrix "
        "with other inputs than a window has, a table that does not broadcast.",
    ),
    "V405": Code(
        "region out of bounds",
        "A region leaves its buffer or tensor for some values of the loop variables. Rows of a "
        "ring buffer count on and on, but a region takes at most as many as the ring holds.",
    ),
    "V406": Code(
        "value out of range",
        "A number cannot be used: a zero point or fill value that the element type does not hold, "
        "a scale that is not positive and finite, a kernel, stride or dilation below 1, a loop "
        "that never runs.",
    ),
    "V407": Code(
        "core outside of the mesh",
        "The program uses a core that the target does not have.",
    ),
    "V408": Code(
        "arrays of a matrix do not fit together",
        "The arrays of a block matrix contradict each other in length or order, so its meaning is "
        "undefined. A data file that was edited or damaged does this.",
    ),
    "V409": Code(
        "selector, route or cell out of range",
        "A selector names an input that the matrix does not have, a route leads to an output that "
        "does not exist or has an impossible shift or sign, or a cell holds more than it can.",
    ),
    "V410": Code(
        "place outside of the crossbars",
        "Stored columns stand outside of the crossbars of their core, or a row group is taller "
        "than an operation unit of the target.",
    ),
    "V411": Code(
        "cells overlap",
        "Two stored columns take the same cell of a crossbar.",
    ),
    "V412": Code(
        "stored column without its one place",
        "Every stored column stands in exactly one place of a crossbar (`at x0[word line, bit "
        "line]` in the text).",
    ),
    "V413": Code(
        "address outside of the memory",
        "A buffer or queue does not lie within the data memory of its core, or is not aligned to "
        "its elements.",
    ),
    "V414": Code(
        "memory overlaps",
        "Two buffers or queues of a core share bytes.",
    ),
    "V415": Code(
        "wrong end of a channel",
        "A core sends on a channel that another core sends on, or receives what is not for it. A "
        "channel has one sender and one receiver, its declaration names both.",
    ),
    "V416": Code(
        "messages do not match",
        "A message is larger than its channel allows, is received with another size than it was "
        "sent with, or is never received.",
    ),
    "V417": Code(
        "channel does not carry what it says",
        "The channels of the tensor that a channel says it carries do not exist, or its messages "
        "together have another number of elements.",
    ),
    "V418": Code(
        "read before written",
        "An instruction reads elements that no instruction has written yet, in a buffer without a "
        "fill value. In a ring buffer a new row starts out undefined, its padding columns aside.",
    ),
    "V419": Code(
        "row of a ring is gone",
        "An instruction reads a row of a ring buffer whose slot has been given to a later row. The "
        "ring has to be deeper, or the row has to be read earlier.",
    ),
    "V420": Code(
        "output not stored exactly once",
        "Every element of every output has to be stored, and only once.",
    ),
    "V421": Code(
        "wrong use of an input or output",
        "Inputs are only read, by `load`; outputs are only written, by `store`.",
    ),
    "V422": Code(
        "deadlock",
        "Some cores wait for each other for ever: to receive from an empty channel or to send into "
        "a full one. One finding per waiting core says at which instruction and on which channel. "
        "No order of execution avoids it; a deeper channel or another order of messages does.",
    ),
    "V423": Code(
        "program of another target",
        "The sha256 in the `.target` line is not that of the target description.",
    ),
    "V424": Code(
        "tensor does not map to its ONNX tensor",
        "The ONNX shape, transposed by `order` and reshaped, has to give the shape of the machine.",
    ),
    "V425": Code(
        "index out of bounds",
        "An entry of the index table of a `gather` names an element that its source does not have.",
    ),
    "V426": Code(
        "program too long to verify",
        "The loops of the program execute more instructions than the verifier is willing to "
        "follow. A bound of a loop is probably wrong.",
    ),
    "V427": Code(
        "partition out of order",
        "A partition reads tensors of role input or host and writes tensors of role host or "
        "output. Each host tensor belongs to one partition, each partition is run by one `host` "
        "outside of loops, and only the core of that `host` loads and stores its tensors: no other "
        "order is certain.",
    ),
}

# ------------------------------------------------------------------ C5xx: container, data files
CONTAINER: Final[dict[str, Code]] = {
    "C501": Code(
        "not a program folder",
        "The path is no folder with a `program.pim`. `pimc compile` and `pimc asm` write such "
        "folders.",
    ),
    "C502": Code(
        "part of a program folder is not readable",
        "A file of the folder is missing, too large, no UTF-8 text, or the system refused to read "
        "it.",
    ),
    "C503": Code(
        "data file is damaged or hostile",
        "`arrays.npz` is no uncompressed zip of plain `.npy` arrays, or a member lies about its "
        "size, has a type that pimc does not use, or a name that points elsewhere. Nothing of it "
        "was loaded.",
    ),
    "C504": Code(
        "target does not belong to the program",
        "The program was compiled for another target description than the one in `target.json`: "
        "the sha256 or the name in its `.target` line differs.",
    ),
    "C505": Code(
        "array is missing",
        "The text names a table or matrix whose values are not in the data file. A text without "
        "its data file can only be read when all values stand in the text.",
    ),
    "C506": Code(
        "array of the wrong type or shape",
        "An array of the data file is not what the declaration in the text says.",
    ),
    "C507": Code(
        "two arrays of one name",
        "Two tables or matrices would be stored under the same key of the data file.",
    ),
    "C508": Code(
        "refusing to overwrite",
        "Something stands at the path that pimc does not replace: a folder that is no program "
        "folder, a file where a folder is to be written, a device, an input of the command. It is "
        "left alone. Choose another path, or remove it yourself.",
    ),
    "C509": Code(
        "cannot write",
        "The system refused to write a file or folder: no space, no permission, no such place. "
        "Nothing was left behind, and what stood there before still does.",
    ),
    "C510": Code(
        "the folder holds several phases",
        "The model was cut into phases that run one after another (`--phases auto`), and this "
        "command takes one program. Each `phase-N` inside is a program folder of its own.",
    ),
    "C511": Code(
        "phases do not fit together",
        "`phases.json` is damaged, or a phase takes a tensor in another form than an earlier one "
        "stores it, or is for another target.",
    ),
    "C512": Code(
        "model of a partition is missing or another one",
        "The text names a host partition whose file `host/NAME.onnx` is not there, is no plain "
        "file, is too large, or has another sha256 than the text says.",
    ),
    "C513": Code(
        "programs for several shapes do not fit together",
        "`shapes.json` is damaged, the arrays that the programs share have another sha256 than it "
        "says, or a program is for another input shape.",
    ),
    "C514": Code(
        "the folder holds programs for several input shapes",
        "The model was compiled for several input shapes, and one program is wanted. "
        "`--input-shape` chooses one where no samples do; each `shape-N` inside is a program "
        "folder of its own.",
    ),
}
