"""Arithmetic as Python does it, within bounds.

Python works a single step out in one go: while it takes seconds over one, or fills the memory, nothing else in the
process gets its turn, the protocol included. So numbers have a size that they don't grow over, and all that is not
arithmetic (texts, comprehensions, methods), with which anything can be made large, is refused.
"""

from __future__ import annotations

import ast
import importlib
import math
from typing import Any

_MOST_BITS = 100_000
"""Bits of a whole number, some 30,000 digits: two such are multiplied in a millisecond."""
_LONGEST = 10_000
"""Characters of an expression."""
_PARTS = (
    *(ast.Expr, ast.BinOp, ast.UnaryOp, ast.BoolOp, ast.Compare, ast.IfExp, ast.Call, ast.keyword, ast.Name),
    *(ast.Constant, ast.List, ast.Tuple, ast.operator, ast.unaryop, ast.boolop, ast.cmpop, ast.expr_context),
)
# These take time or memory without bound for small inputs.
_UNBOUNDED = ("factorial", "comb", "perm", "lcm", "prod", "ldexp")


def evaluate(expression: str) -> object:
    """What an expression comes to; raises ValueError for what goes over the bounds or is no arithmetic, and what Python
    or simpleeval raise of it."""
    simpleeval: Any = importlib.import_module("simpleeval")  # has no types
    if len(expression) > _LONGEST:
        raise ValueError(f"the expression has {len(expression)} characters, and at most {_LONGEST} are worked out")
    functions = {name: value for name, value in vars(math).items() if callable(value) and not name.startswith("_")}
    evaluator = simpleeval.EvalWithCompoundTypes(
        functions={
            **{name: value for name, value in functions.items() if name not in _UNBOUNDED},
            **{"abs": abs, "round": _rounded, "min": min, "max": max, "sum": sum},
        },
        names={"pi": math.pi, "e": math.e, "tau": math.tau, "inf": math.inf},
    )
    evaluator.operators.update({ast.Pow: _power, ast.Mult: _product, ast.LShift: _shifted})
    tree: ast.stmt = evaluator.parse(expression)
    for node in ast.walk(tree):
        if not isinstance(node, _PARTS) or (isinstance(node, ast.Constant) and not _is_number(node.value)):
            raise ValueError(f"this is no arithmetic: {ast.unparse(node)[:60]!r}")
    return evaluator.eval(expression, previously_parsed=tree)


def _is_number(value: object) -> bool:
    return isinstance(value, int | float | complex)


def _checked(bits: int) -> None:
    if bits > _MOST_BITS:
        raise ValueError("the result is too large to be worked out: work with floats, such as 2.0 ** 100")


def _power(base: Any, exponent: Any) -> object:
    if isinstance(base, int) and isinstance(exponent, int) and abs(base) > 1:
        _checked(base.bit_length() * exponent)
    return base**exponent


def _product(a: Any, b: Any) -> object:
    if isinstance(a, int) and isinstance(b, int):
        _checked(a.bit_length() + b.bit_length())
    if not (_is_number(a) and _is_number(b)):
        raise ValueError("only numbers are multiplied")
    return a * b


def _shifted(number: Any, by: Any) -> object:
    if isinstance(number, int) and isinstance(by, int):
        _checked(number.bit_length() + by)
    return number << by


def _rounded(number: float, ndigits: int | None = None) -> float:
    if ndigits is not None and abs(ndigits) > 400:
        raise ValueError("round takes at most 400 digits")
    return round(number, ndigits)
