"""Every guard that `guards.py` takes out is where it says, and has its test. Running that script shows the rest."""

import ast
from pathlib import Path

import pytest

from guards import GUARDS, ROOT, Guard


@pytest.mark.parametrize("guard", GUARDS, ids=lambda guard: guard.name)
def test_a_guards_row_fits_the_source_and_names_a_test(guard: Guard) -> None:
    text = (ROOT / guard.source).read_text(encoding="utf-8")
    ast.parse(guard.taken_out(text))
    file, _, name = guard.test.partition("::")
    tree = ast.parse((Path(__file__).parent / file).read_text(encoding="utf-8"))
    tests = {node.name for node in ast.walk(tree) if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)}
    assert name.partition("[")[0] in tests


def test_guards_have_names_of_their_own() -> None:
    assert len({guard.name for guard in GUARDS}) == len(GUARDS)
