"""Benchmarks, each beside something simpler in the same run: `python -m benchmarks [NAME...]`.

Each module with a name in NAMES is one benchmark. It has a function `measure()` that returns its figures, and the first
line of its docstring says what is measured. Models are stubs on loopback or embedded, so that no figure depends on a
provider. Not part of the package, and no tests: a figure depends on the machine, a ratio hardly.
"""

NAMES = (
    "asks",
    "start",
    "sessions",
    "catalog",
    "memory",
)
