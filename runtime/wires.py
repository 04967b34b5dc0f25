"""Wire resistance: the effective transfer matrix of a crossbar with resistive metal.

A word line is driven at its left end, at 0 V or at the read voltage; a bit line ends at its
bottom in the ADC's virtual ground; word lines that are not read are held at 0 V. The network is
linear, so the current of bit line j is sum_i T[i, j] v_i, and T is found once per array.

Exact, without iteration: eliminating the bit line of column j leaves an admittance S_j between
the nodes of the word lines; the columns then form a chain, walked from its far end.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from isa.target_nonideal import Wires

Float = NDArray[np.float64]


def transfer_matrix(conductance: Float, wires: Wires) -> Float:
    """The effective conductance of each cell as the ADC of its bit line sees it, siemens.

    conductance: siemens [rows, columns]; row 0 is the farthest from the ADC, column 0 the nearest
    to the drivers. Returns T [rows, columns]; without resistance that is ``conductance`` itself.
    """
    rows, columns = conductance.shape
    below = np.arange(rows, 0, -1) - 1  # bit line segments between a cell and the ADC
    shared = np.minimum(below[:, None], below[None, :]) * wires.column_ohm + wires.sense_ohm
    identity = np.eye(rows)
    admittance = np.empty((columns, rows, rows))  # of a column between its word line nodes
    reach = np.empty((columns, rows, rows))  # node voltages from those of the column before
    beyond = np.zeros((rows, rows))  # admittance of all columns to the right, behind their wire
    for j in range(columns - 1, -1, -1):
        cells = conductance[:, j, None]
        admittance[j] = np.linalg.solve(identity + cells * shared, np.diagflat(cells))
        ohm = wires.row_ohm if j else wires.driver_ohm
        seen = admittance[j] + beyond
        reach[j] = np.linalg.inv(identity + ohm * seen)
        beyond = seen @ reach[j]
    transfer = np.empty((rows, columns))
    voltage = identity
    for j in range(columns):
        voltage = reach[j] @ voltage  # [rows, drivers]
        transfer[:, j] = admittance[j].sum(axis=0) @ voltage
    return transfer
