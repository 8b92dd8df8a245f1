"""`python -m benchmarks [NAME...]`: runs the named benchmarks, or all, and prints their figures."""

import argparse
import importlib
import sys
from collections.abc import Sequence
from typing import Protocol, cast

from benchmarks import NAMES
from benchmarks.figures import Figure, table


class Benchmark(Protocol):
    """A module of this package that is a benchmark."""

    __doc__: str | None

    def measure(self) -> Sequence[Figure]: ...


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs what is asked for; returns 1 if a ratio is over what was promised."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"one of {', '.join(NAMES)}; without any: all")
    chosen: list[str] = parser.parse_args(arguments).names or list(NAMES)
    if unknown := [name for name in chosen if name not in NAMES]:
        parser.error(f"there is no benchmark {unknown[0]!r}: there are {', '.join(NAMES)}")
    missed = False
    for name in chosen:
        benchmark = cast("Benchmark", importlib.import_module(f"benchmarks.{name}"))
        print(f"\n## {name}\n\n{(benchmark.__doc__ or '').splitlines()[0]}\n", flush=True)
        figures = benchmark.measure()
        print(table(figures), flush=True)
        missed |= not all(figure.holds for figure in figures)
    return int(missed)


if __name__ == "__main__":
    sys.exit(main())
