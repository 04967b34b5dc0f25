"""The parts of the ISA reference that no class can say: the form of the text, and an example."""

from __future__ import annotations

from typing import Final

INTRODUCTION: Final = """
# The pimc instruction set

A program is a text. It declares the tensors of a model, constant tables, channels and cores;
each core has crossbars (matrices), a memory (buffers) and one stream of instructions. Cores run
side by side and wait for each other only at channels, so what a program computes does not depend
on timing. The text, with the arrays of its data file, is all that the machine needs.

## Lines

- A line is a directive (`.name ...`), an instruction, a loop head, or a `}`. Comments begin with
  `;`. Indentation does not matter.
- The first line is `.pim 1`, the version of the form.
- A name is letters, digits, `_` and `.` (not first, not doubled); any other name stands in double
  quotes with JSON's escapes: `"conv/1"`. The words loop, step, ring, group, at, inf and nan are
  quoted as names, too.
- Element types: `s8`, `u8`, `s32` and `f32`. Shapes are `s8[rows, columns, channels]`.
- A region is a box of a buffer or tensor: `name[rows, columns, channels]`, each axis one index
  `y`, a range `a..b` without its end, or `*` for all; axes that are left out are taken whole. An
  index is a sum such as `2*y+3` over the variables of the loops around it. Both ends of a range
  move together, so a region never changes its size.
- A ring buffer, `s8[ring 5, 28, 1]`, holds the last rows of a longer tensor: rows count on, row
  `r` stands in slot `r mod 5`. `fill=` is the value of every element before the stream starts;
  elements that are never written, such as padding columns, keep it.
- Operands without a default are given in order. Those with one are `name=value`, and are left out
  of the text when they have it.
- `loop y = 0..28 step 2 {` runs to its `}` for y = 0, 2, ... below 28. A loop may stand on one
  line.
- Real numbers are single precision and are written as the shortest text that reads back the same.
- `.table NAME TYPE[sizes]` without values, and `.matrix` without a `:`, stand in the data file
  `arrays.npz` that `.data` names: a table under its name, a matrix as the arrays `NAME.rows`,
  `NAME.cells`, `NAME.column_start`, `NAME.routing`, `NAME.routes.*` and `NAME.spans.*`.
- A long inline table ends its line in `=` and has its values, in brackets, on the lines below.
"""

MATRICES: Final = """
Of a tensor, `of` is the ONNX name, `shape` the ONNX shape without the batch axis (`batched=no`:
there is none), `order` the axes of that shape in the machine's order, `scale` and `zero` the
quantization. `@ADDRESS` says where a buffer stands in the memory of its core, and a channel's
queue in that of the receiving one; `@global` puts either into global memory. `depth` counts
messages; `carries=tensor[0..6]` says which channels of a tensor its messages make up, row by row.

## Matrices

A matrix is stored as row groups and columns. A *row group* drives some word lines, its selector
says with which inputs. A *stored column* is what one bit line of the group holds, and its *routes*
say to which outputs its sum goes, with which shift and sign:

    W[k, o] = sum over groups, stored columns j, routes (o, shift, sign) of j:
              sign * 2^shift * cells[j, r]        for k = the input on word line r

```
.matrix fc[6, 2] inputs=0..6 outputs=0..2 cell_bits=2:
  group [0..3 5]                ; word lines 0, 1, 2, 3 carry inputs 0, 1, 2 and 5
    at x0[4, 8]                 ; crossbar 0, from word line 4 and bit line 8 on
    [3 0 1 1] -> +0 -1<<2       ; a column: cells, then +1 to output 0 and -4 to output 1
    [0 1 0 2] -> +1             ; the next bit line
```

One-bit cells are written as a binary number, word line 0 first: `0b1011 -> +0<<7`. `at` places the
columns below it, up to the next `at` or `group`; `at x0[4, 8] columns=0..5` places just those.
`inputs` and `outputs` are the channels of the layer that the matrix covers, `cell_bits` (1 unless
given) the bits of a cell, `lines` the word lines of a group where no group uses them all.
"""

EXAMPLE: Final = """
.pim 1
.target tiny

.input  image s8[4, 4, 1] of="image" shape=[1 4 4] order=[1 2 0] scale=0.003921569 zero=-128
.output edges s8[3, 3, 2] of="edges" shape=[2 3 3] order=[1 2 0] scale=0.05 zero=-3

.table edges.bias  s32[2] = [0 0]
.table edges.scale f32[1] = [0.0784]

.channel c0 core 0 -> 1 s8[4, 1] depth=1 @0x0040

.core 0 "fetch"
  .buffer row s8[1, 4, 1] @0x0000
  loop y = 0..4 {
    load    row, image[y]
    send    c0, row
  }

.core 1 "edges"
  .matrix edges[4, 2] inputs=0..1 outputs=0..2:
    group [0..4]
      at x0[0, 0]
      0b1100 -> +0
      0b0011 -> -0
      0b1010 -> +1
      0b0101 -> -1
  .buffer rows s8[ring 2, 4, 1] @0x0000
  .buffer acc  s32[1, 3, 2]     @0x0008
  .buffer out  s8[1, 3, 2]      @0x0020
  recv    rows[0], c0
  loop y = 0..3 {
    recv    rows[y+1], c0
    mvm     acc, edges, rows[y..y+2], kernel=[2 2]
    requant out, acc, edges.bias, edges.scale, zero=-3
    store   edges[y], out
  }
"""
