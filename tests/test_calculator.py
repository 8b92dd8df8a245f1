"""The tool calculator: sums as Python does them, and none that holds up the server or fills its memory."""

from pathlib import Path

import pytest

from in_process import ask, running
from life import order

SUMS = {
    "6 * 7": "42",
    "2 ** 64": "18446744073709551616",
    "2 ** -1": "0.5",
    "1 ** 10**9": "1",
    "(-3) ** 3 % 7": "1",
    "7 // 2 + 7 % 4": "6",
    "1 << 70": "1180591620717411303424",
    "sqrt(2) / pi": "0.4501581580785531",
    "round(2.71828, 2)": "2.72",
    "round(1234, ndigits=-2)": "1200",
    "sum([1, 2, 3]) + max(4, 5)": "11",
    "1 if 2 > 1 and not 1 > 2 else 0": "1",
    "9 ** 20000 % 7": "4",
}
"""Expressions and what Python makes of them."""

REFUSED = {
    "3999999 ** 1000000 % 7": "too large",
    "(9 ** 20000) * (9 ** 20000) % 7": "too large",
    "1 << 200000 >> 199999": "too large",
    "round(5, -3000000)": "400 digits",
    "max([[0] * 3] * 3)": "only numbers",
    "'a' * 3": "no arithmetic",
    "'%9d' % 1": "no arithmetic",
    "f'{1:>9}'": "no arithmetic",
    "sum([x for x in [1, 2]])": "no arithmetic",
    "(1.5).hex()": "no arithmetic",
    "0" * 10_001: "10001 characters",
}
"""What takes Python seconds or gigabytes in one step, or could be made to, and what is said of it."""


async def test_the_calculator_gives_what_python_gives(data_dir: Path) -> None:
    async with running(data_dir) as service:
        for expression, result in SUMS.items():
            reply = await ask(service, order("calculator", expression=expression))
            assert reply.response == f"The tool calculator answered: {result}", expression


@pytest.mark.parametrize("expression", REFUSED)
async def test_no_expression_holds_up_the_server(data_dir: Path, expression: str) -> None:
    async with running(data_dir) as service:
        reply = await ask(service, order("calculator", expression=expression))
    assert reply.response.startswith("The tool calculator failed:")
    assert REFUSED[expression] in reply.response
