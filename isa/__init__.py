"""Target description, numbers, instructions, text form and diagnostics of the pimc ISA."""
