"""The command line. Modules of the compiler are imported by the command that needs them."""

from __future__ import annotations

import click

from pimc.commands.compare import compare
from pimc.commands.compile import compile_command
from pimc.commands.compress import compress
from pimc.commands.inspect import inspect_command
from pimc.commands.knowledge import doctor, explain, ops, targets
from pimc.commands.noise import sweep_adc
from pimc.commands.report import report
from pimc.commands.run import run_command, verify_command
from pimc.commands.studies import reproduce, simulate
from pimc.commands.text import asm, fmt
from pimc.console import Commands
from pimc.version import VERSION

CONTEXT = {"help_option_names": ["-h", "--help"], "max_content_width": 100}


@click.group(cls=Commands, context_settings=CONTEXT)
@click.version_option(VERSION, "-V", "--version", message="pimc %(version)s")
def main() -> None:
    """Compile ONNX models to processing-in-memory programs, run them, prove them.

    Exit codes: 0 done, 1 verification failed, 2 usage, 3 input rejected, 4 does not fit the
    target, 70 internal error, 130 interrupted.
    """


for command in (
    compile_command,
    run_command,
    verify_command,
    inspect_command,
    compare,
    compress,
    simulate,
    report,
    sweep_adc,
    reproduce,
    asm,
    fmt,
    targets,
    ops,
    explain,
    doctor,
):
    main.add_command(command)
