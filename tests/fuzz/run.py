"""Feed a reader damaged inputs: ``python tests/fuzz/run.py --seconds 60 isa``.

Prints executions, seconds and findings; exits 1 when there are any. A finding is an exception
other than PimError, or one execution of more than `SLOW_S` CPU seconds; its input is kept in the
folder that ``--keep`` names. Memory is bounded by the operating system. ``--guided`` lets atheris
choose the inputs by coverage (``pip install -e '.[fuzz]'``); further options are libFuzzer's, as in

    run.py isa --guided -set_cover_merge=1 -use_counters=0 corpus/found/isa OTHERS/isa-corpus

which adds the fewest of the inputs chosen there that reach code which those here do not.
"""

from __future__ import annotations

import argparse
import faulthandler
import hashlib
import random
import resource
import sys
import time
import traceback
from pathlib import Path

HERE = Path(__file__).parent
sys.path[:0] = [str(HERE.parent.parent), str(HERE.parent)]

MEMORY_BYTES = 6 << 30  # of address space; libraries alone take about 2 GiB of it
SLOW_S = 10.0
HANGS_S = 60  # then the process ends with a traceback


def main() -> int:
    options, others = read_options()
    if not options.guided:
        resource.setrlimit(resource.RLIMIT_AS, (MEMORY_BYTES, MEMORY_BYTES))
        return plain(options)
    guided(options, others)
    return 0


def guided(options: argparse.Namespace, others: list[str]) -> None:
    """Let atheris choose; ``others``, where there are any, are its options instead of ours."""
    import atheris

    with atheris.instrument_imports(include=["isa", "pimc"]):
        from fuzz.readers import READERS

        import pimc.data  # noqa: F401  the reader of samples loads it late
    reader = READERS[options.reader]
    if not others:
        draft = options.keep / f"{options.reader}-corpus"
        draft.mkdir(parents=True, exist_ok=True)
        for number, seed in enumerate(reader.seeds()):
            (draft / f"seed{number}").write_bytes(seed)
        others = [str(draft), f"-max_total_time={options.seconds:.0f}", f"-timeout={HANGS_S}"]
        others += ["-rss_limit_mb=4096", f"-artifact_prefix={options.keep}/"]
    again = f"{sys.executable} {sys.argv[0]} {options.reader} --guided"  # how a merge calls itself
    atheris.Setup([again, *others], reader.execute)
    atheris.Fuzz()  # prints executions and ends the process


def plain(options: argparse.Namespace) -> int:
    from fuzz.readers import READERS

    reader = READERS[options.reader]
    rng, seeds = random.Random(options.seed), reader.seeds()
    executions, findings, start = 0, dict[str, int](), time.monotonic()
    while executions < options.executions and time.monotonic() - start < options.seconds:
        data = reader.mutate(rng, seeds)
        faulthandler.dump_traceback_later(HANGS_S, exit=True)
        problem = problem_of(reader, data)
        faulthandler.cancel_dump_traceback_later()
        executions += 1
        if problem:
            findings[problem] = findings.get(problem, 0) + 1
            options.keep.mkdir(parents=True, exist_ok=True)
            name = f"{options.reader}-{hashlib.sha256(problem.encode()).hexdigest()[:8]}"
            (options.keep / name).write_bytes(data)
    seconds = time.monotonic() - start
    print(f"{options.reader}: {executions} executions, {seconds:.1f} s, {len(findings)} findings")
    for problem, count in findings.items():
        print(f"  {count} times {problem}")
    return 1 if findings else 0


def problem_of(reader, data: bytes) -> str | None:  # type: ignore[no-untyped-def]
    """What is wrong with how ``data`` was read: the error and its last places."""
    start = time.process_time()  # other work on the machine is no finding
    try:
        reader.execute(data)
    except Exception as error:
        frames = traceback.extract_tb(error.__traceback__)[-3:]
        places = " < ".join(f"{Path(f.filename).name}:{f.lineno}" for f in reversed(frames))
        return f"{type(error).__name__} at {places}"
    return "slow" if time.process_time() - start > SLOW_S else None


def read_options() -> tuple[argparse.Namespace, list[str]]:
    parser = argparse.ArgumentParser(description=__doc__)
    readers = ["isa", "container", "npz", "target", "onnx", "network"]
    parser.add_argument("reader", choices=readers)
    parser.add_argument("--seconds", type=float, default=60.0, help="stop after so long")
    parser.add_argument("--executions", type=int, default=1 << 62, help="stop after so many")
    parser.add_argument("--seed", type=int, default=0, help="of the random changes")
    parser.add_argument("--guided", action="store_true", help="inputs chosen by atheris")
    keep = Path("/tmp/pimc-fuzz")
    parser.add_argument("--keep", type=Path, default=keep, help="folder for inputs of findings")
    options, others = parser.parse_known_args()
    if others and not options.guided:
        parser.error(f"only --guided takes {' '.join(others)}")
    return options, others


if __name__ == "__main__":
    sys.exit(main())
