"""Published tables, computed again: PRAP-PIM, Yu's kernel reordering and PattPIM.

Each of `prap_pim`, `yu` and `pattpim` has a function ``tables(...)`` that returns `Table`s of
`Row`s. docs/reproduce.md says what is reproduced and what is our reading of a paper.
"""
