"""Mesh placement: few bytes times hops, never more than before, and the same program."""

from __future__ import annotations

from itertools import permutations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.graphs import GraphBuilder
from support.networks import compiled

from isa.assembly import data_arrays, parse_program
from isa.diagnostics import PimError
from isa.printer import print_program
from isa.program import Program
from isa.target import Target, load_target
from isa.verify import verify
from passes.mesh_place import METHODS, MeshPlace, Seats, fast_assignment
from passes.swap_descent import descend
from passes.traffic import Traffic, core_numbers, traffic
from runtime.cost import price_program
from runtime.machine import Machine
from runtime.timing import simulate

TINY = load_target("tiny")


def mesh(width: int, height: int, concentration: int) -> Target:
    """A chip of so many routers, with so many cores each."""
    shape = {"mesh_width": width, "mesh_height": height, "concentration": concentration}
    return TINY.model_copy(update={"hierarchy": TINY.hierarchy.model_copy(update=shape)})


def random_traffic(seed: int, cores: int, share: float = 0.5) -> Traffic:
    random = np.random.default_rng(seed)
    first, second = np.triu_indices(cores, 1)
    keep = random.random(len(first)) < share
    size = random.integers(1, 1000, len(first))
    return Traffic(cores, first[keep], second[keep], size[keep].astype(np.int64))


def best_of_all(flow: Traffic, seats: Seats, target: Target) -> int:
    """The optimum, by trying every assignment of cores to seats."""
    options = permutations(range(len(seats.router)), flow.cores)
    return min(flow.byte_hops(seats.numbers(np.array(taken)), target) for taken in options)


def placed(flow: Traffic, seats: Seats, target: Target, start: np.ndarray) -> int:
    found = descend(flow, seats.router, seats.hops, start)
    return flow.byte_hops(seats.numbers(found), target)


@pytest.mark.parametrize("seed", range(12))
def test_descent_from_both_starts_is_near_the_optimum(seed: int) -> None:
    target = mesh(3, 2, 1) if seed % 2 else mesh(2, 2, 2)
    flow = random_traffic(seed, 6)
    seats = Seats.on(target, 6)
    start = np.arange(len(seats.router))
    fast = fast_assignment(flow, seats, is_needed=True)
    assert fast is not None
    optimum = best_of_all(flow, seats, target)
    found = min(placed(flow, seats, target, s) for s in (start, fast))
    assert optimum <= found <= 1.05 * optimum


@given(st.integers(0, 1000), st.integers(2, 40), st.integers(1, 4), st.integers(1, 7))
def test_descent_is_never_worse_than_its_start(
    seed: int, cores: int, concentration: int, width: int
) -> None:
    target = mesh(width, -(-cores // (concentration * width)), concentration)
    flow, seats = random_traffic(seed, cores, 0.2), Seats.on(target, cores)
    start = np.random.default_rng(seed).permutation(len(seats.router))
    numbers = seats.numbers(start[:cores])
    assert len(set(numbers.tolist())) == cores
    assert 0 <= numbers.min() <= numbers.max() < target.cores
    assert placed(flow, seats, target, start) <= flow.byte_hops(numbers, target)


@given(st.integers(0, 1000), st.integers(2, 12))
def test_no_exchange_of_two_seats_improves_a_descent(seed: int, cores: int) -> None:
    target = mesh(2, 3, 2)
    flow, seats = random_traffic(seed, cores), Seats.on(target, cores)
    start = np.arange(len(seats.router))
    found = np.concatenate([descend(flow, seats.router, seats.hops, start), start[cores:]])
    free = sorted(set(start.tolist()) - set(found[:cores].tolist()))
    found[cores:] = free
    least = flow.byte_hops(seats.numbers(found[:cores]), target)
    for a in range(cores):
        for b in range(len(found)):
            other = found.copy()
            other[[a, b]] = found[[b, a]]
            assert flow.byte_hops(seats.numbers(other[:cores]), target) >= least


def test_seats_are_a_near_square_part_of_the_mesh() -> None:
    seats = Seats.on(load_target("ou9x8"), 30)  # 8 routers: 3 x 3 of the 6 x 6
    assert sorted(seats.first_core.tolist()) == [0, 4, 8, 24, 28, 32, 48, 52, 56]
    assert len(seats.router) == 36


def spread_network() -> tuple[Program, Target]:
    """A program of many cores, one to a router, so that places matter."""
    b = GraphBuilder(3, (9, 8, 5))
    a = b.conv("x", 24, (3, 3), pads=(1, 1, 1, 1))
    c = b.conv(b.conv(a, 24, (3, 3), pads=(1, 1, 1, 1)), 24, (1, 1))
    return compiled(b, b.conv(b.binary("add", c, a), 40, (3, 3)), mesh(2, 2, 1))


@pytest.mark.parametrize("method", METHODS)
def test_placement_changes_numbers_and_hops_and_nothing_else(method: str) -> None:
    program, target = spread_network()
    found = MeshPlace(mesh(2, 2, 1), method).run(program)
    flow = traffic(program)
    before, after = (flow.byte_hops(core_numbers(p), target) for p in (program, found))
    assert after < before if method != "none" else after == before
    assert verify(found, target) == []
    assert print_program(parse_program(print_program(found), data_arrays(found))) == print_program(
        found
    )
    assert print_program(MeshPlace(mesh(2, 2, 1), method).run(program)) == print_program(found)
    names = [tensor.name for tensor in program.tensors if tensor.role == "input"]
    shape = next(tensor.shape for tensor in program.tensors if tensor.role == "input")
    feed = np.random.default_rng(0).integers(-128, 128, (2, *shape)).astype(np.int8)
    ours, theirs = (Machine(p, target).run({names[0]: feed}).outputs for p in (program, found))
    for name, values in ours.items():
        np.testing.assert_array_equal(values, theirs[name])


def test_traffic_is_what_the_machine_is_charged_for() -> None:
    program, target = spread_network()
    for p in (program, MeshPlace(mesh(2, 2, 1)).run(program)):
        flits = price_program(p, target).total.events["flit_hop"]
        hops = traffic(p).byte_hops(core_numbers(p), target)
        width = target.network.flit_bits // 8
        assert hops / width <= flits <= 1.3 * hops / width  # the last flit of a message may be part


def test_fewer_hops_shorten_the_first_image() -> None:
    program, target = spread_network()
    found = MeshPlace(mesh(2, 2, 1)).run(program)
    assert simulate(found, target).latency < simulate(program, target).latency


def test_faq_without_scipy_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "scipy.optimize", None)
    program, _ = spread_network()
    with pytest.raises(PimError, match=r"pimc\[place\]|scipy") as error:
        MeshPlace(mesh(2, 2, 1), "faq").run(program)
    assert error.value.diagnostics[0].code == "U904"
    best = MeshPlace(mesh(2, 2, 1), "best").run(program)
    assert print_program(best) == print_program(MeshPlace(mesh(2, 2, 1)).run(program))
