"""Ids and cursors, as laws."""

import re
import unicodedata
from collections.abc import Callable
from contextlib import suppress

import pytest
from hypothesis import given, strategies as st

from agent_mcp import cursors
from agent_mcp.domain import (
    is_issued,
    new_session_id,
    new_turn_id,
    parse_actor_id,
    parse_agent_id,
    parse_session_id,
    parse_turn_id,
    slug,
)
from agent_mcp.errors import InvalidArgument

DEVICES = {"con", "prn", "aux", "nul", *(f"{port}{n}" for port in ("com", "lpt") for n in range(10))}
NEARLY = st.text(alphabet=st.sampled_from("abzAZ019_-./\\ \n\x00é:%"), max_size=110) | st.text(max_size=120)


def accepts(parse: Callable[[str], str], text: str) -> bool:
    """Whether `text` is taken, as it is. A refusal is one short line."""
    refusal = ""
    try:
        assert parse(text) == text
    except InvalidArgument as error:
        refusal = error.message
    assert "\n" not in refusal
    assert len(refusal) < 400
    return not refusal


@given(NEARLY | st.from_regex(r"[a-z0-9][a-z0-9_-]{0,63}", fullmatch=True) | st.sampled_from(sorted(DEVICES)))
def test_an_agent_id_is_the_pattern_and_no_device_name(text: str) -> None:
    pattern = re.compile(r"[a-z0-9][a-z0-9_-]{0,63}\Z")
    assert accepts(parse_agent_id, text) == (bool(pattern.match(text)) and text not in DEVICES)


@given(NEARLY | st.from_regex(r"[a-z0-9][a-z0-9_-]{0,99}", fullmatch=True))
def test_a_session_id_is_exactly_the_pattern(text: str) -> None:
    assert accepts(parse_session_id, text) == bool(re.match(r"[a-z0-9][a-z0-9_-]{0,99}\Z", text))


@given(NEARLY | st.from_regex(r"t-[0-9a-f]{32}", fullmatch=True))
def test_a_turn_id_is_exactly_the_pattern(text: str) -> None:
    assert accepts(parse_turn_id, text) == bool(re.match(r"t-[0-9a-f]{32}\Z", text))


@given(st.text(max_size=250) | st.text(alphabet=st.characters(categories=["L", "N", "P", "S"]), max_size=210))
def test_an_actor_id_is_printable_without_white_space_and_normalised(text: str) -> None:
    printable = all(c.isprintable() and not c.isspace() for c in text)
    expected = 1 <= len(text) <= 200 and printable and unicodedata.normalize("NFC", text) == text
    assert accepts(parse_actor_id, text) == expected


@pytest.mark.parametrize("text", ["Support", "My-Session", "ABC"])
def test_capitals_are_refused_with_the_lower_case_form(text: str) -> None:
    for parse in (parse_agent_id, parse_session_id):
        with pytest.raises(InvalidArgument, match=f"use '{text.lower()}'"):
            parse(text)


@given(st.text(max_size=200))
def test_a_name_gives_an_agent_id_that_parses_or_asks_for_one(name: str) -> None:
    try:
        made = slug(name)
    except InvalidArgument as error:
        made, refusal = "x", error.message
    else:
        refusal = ""
    assert parse_agent_id(made) == made
    assert not refusal or "give one as agent_id" in refusal


@given(st.from_regex(r"[a-z0-9][a-z0-9_-]{0,62}[a-z0-9]", fullmatch=True).filter(lambda text: text not in DEVICES))
def test_a_name_that_is_an_id_already_stays_as_it_is(text: str) -> None:
    assert slug(text) == re.sub(r"-+", "-", text)


def test_a_device_name_becomes_an_id_that_every_file_system_takes() -> None:
    assert [slug(name) for name in ("CON", "Nul", "com1")] == ["con-agent", "nul-agent", "com1-agent"]


def test_ids_that_the_server_gives_parse_and_are_told_from_own_ones() -> None:
    assert is_issued(parse_session_id(new_session_id()))
    assert not is_issued(parse_session_id("team-1"))
    assert parse_turn_id(new_turn_id())
    assert len({new_session_id() for _ in range(1000)}) == 1000


@given(st.integers(-(2**63) + 1, 2**63 - 1) | st.none(), st.text().filter(str.isprintable))
def test_a_cursor_comes_back_as_it_went(number: int | None, text: str) -> None:
    position: list[str | int] = [text] if number is None else [number, text]
    assert cursors.decode(cursors.encode(position), tuple(type(item) for item in position)) == position


@given(st.text() | st.binary().map(lambda raw: raw.decode("latin-1")))
def test_any_other_text_is_no_cursor(text: str) -> None:
    with suppress(InvalidArgument):  # and nothing else
        assert [type(item) for item in cursors.decode(text, (int, str))] == [int, str]


def test_a_cursor_of_another_list_is_refused() -> None:
    with pytest.raises(InvalidArgument, match="none of this list"):
        cursors.decode(cursors.encode(["assistant"]), (int, str))
    with pytest.raises(InvalidArgument, match="none of this list"):
        cursors.decode(cursors.encode([True, "x"]), (int, str))
