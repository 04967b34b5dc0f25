"""The way a non-ideal matrix takes: NumPy's definition."""

from __future__ import annotations

from isa.program import Program
from runtime.analog import AnalogMatrix, Place, analog_matrix, analog_product
from runtime.crossbar import Int32, UInt8
from runtime.device import Device, Faults, effective_cells
from runtime.kernel import Kernel


class AnalogCrossbars:
    """A programmed non-ideal matrix, prepared once for many products. path: "analog"."""

    def __init__(self, matrix: AnalogMatrix, kernel: Kernel) -> None:
        self.matrix = matrix
        self.path = "analog"

    def multiply(self, u: UInt8, out: Int32, place: Place) -> int:
        """Write ``u`` [windows, inputs] times the matrix to ``out``; return the saturations.

        u: C-contiguous. out: int32 [windows, outputs], C-contiguous.
        """
        out[...], saturated = analog_product(u, self.matrix, place)
        return saturated


def program_device(
    program: Program, device: Device, kernel: Kernel
) -> dict[int, dict[str, AnalogCrossbars]]:
    """Write every matrix of a program into a device: core -> matrix name -> crossbars.

    Raises PimError R730, R731, R732.
    """
    faults = Faults(device)
    programmed = {}
    for core in program.cores:
        cells = effective_cells(core, device, faults)
        programmed[core.index] = {
            m.name: AnalogCrossbars(
                analog_matrix(m.blocks, cells[m.name], device, (core.index, m.name)), kernel
            )
            for m in core.matrices
        }
    return programmed
