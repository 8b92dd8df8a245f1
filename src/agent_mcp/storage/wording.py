"""What was said, in the form in which it is searched: queries as terms, texts in chunks, snippets out of them."""

import re
from collections.abc import Iterable, Sequence
from typing import NamedTuple

MAX_TERMS = 16
"""Terms of a query that count; the others are left out."""
CHUNK = 4000
"""Characters in a chunk, at least, before another one is begun."""
LONGEST_PIECE = 32_000
_OVERLAP = 200
_PIECES_END = "\x1e"
_APART = "\x1f"
BEGIN, END = "\x02", "\x03"
"""What stands around a hit in a chunk."""
_OURS = re.compile("[\0\x02\x03\x1e\x1f]")
# Scripts that write no spaces between words: Thai to Tibetan, Myanmar, Khmer, Japanese kana, Chinese characters.
_UNSPACED = re.compile(
    "[\u0e00-\u0fff\u1000-\u109f\u1780-\u17ff\u3040-\u30ff\u31f0-\u31ff\u3400-\u9fff\uf900-\ufaff\U00020000-\U0003ffff]"
)
_SNIPPET_BEFORE, _SNIPPET_AFTER = 120, 240


class Piece(NamedTuple):
    """A message, or a part of a long one: its index, the first letter of its role, its text as it is indexed."""

    message: int
    role: str
    text: str


def terms(query: str) -> list[str]:
    """The terms of a query, each as an FTS5 expression that is never an error; none where no letter or digit is in it.

    A phrase in double quotes is one term; a word with `*` behind it, and the last word, are beginnings too.
    """
    found = re.findall(r'"([^"]*)"|([^\s"]+)', clean(query))
    found = [(phrase, word) for phrase, word in found if any(c.isalnum() for c in phrase or word)][:MAX_TERMS]
    expressions: list[str] = []
    for number, (phrase, word) in enumerate(found, start=1):
        is_beginning = bool(word) and (
            word.endswith("*") or (number == len(found) and not query.rstrip().endswith('"'))
        )
        text = _spaced(phrase or word.rstrip("*")).replace('"', " ")
        expressions.append(f'"{text}"{" *" if is_beginning else ""}')
    return expressions


def clean(text: str) -> str:
    """Without the characters that mean something here, and without halves of surrogate pairs, which SQLite refuses."""
    return _OURS.sub(" ", text.encode(errors="replace").decode())


def pieces(index: int, role: str, text: str) -> list[Piece]:
    """A message as it is indexed: in parts that overlap where it is long."""
    cleaned = clean(text)
    parts = [cleaned[at : at + LONGEST_PIECE + _OVERLAP] for at in range(0, len(cleaned), LONGEST_PIECE)]
    return [Piece(index, role[:1], _spaced(part)) for part in parts]


def chunks(found: Iterable[Piece]) -> list[list[Piece]]:
    """Pieces in chunks, in order: several short ones in one, so that sessions are few rows."""
    made: list[list[Piece]] = []
    length = CHUNK
    for piece in found:
        if length >= CHUNK:
            made.append([])
            length = 0
        made[-1].append(piece)
        length += len(piece.text)
    return made


def pack(chunk: Sequence[Piece]) -> tuple[str, str]:
    """A chunk as text and as what says where in the text which message is."""
    return _PIECES_END.join(piece.text for piece in chunk), " ".join(f"{piece.message}{piece.role}" for piece in chunk)


def unpack(text: str, places: str) -> list[Piece]:
    """The pieces that `pack` was given."""
    named = [(int(place[:-1]), place[-1]) for place in places.split()]
    return [Piece(index, role, part) for (index, role), part in zip(named, text.split(_PIECES_END), strict=True)]


def hits(text: str) -> int:
    """How often something was found in a text with marks."""
    return text.count(BEGIN)


def snippet(text: str) -> str:
    """The piece of a text with marks that lies around the first hit, on one line, without the marks."""
    at = max(0, text.find(BEGIN))
    begin, end = max(0, at - _SNIPPET_BEFORE), at + _SNIPPET_AFTER
    if begin > 0:  # from the beginning of a word on
        begin += len(text[begin:at]) - len(text[begin:at].partition(" ")[2]) if " " in text[begin:at] else 0
    cut = text[begin:end]
    if end < len(text) and " " in cut[at - begin + 40 :]:
        cut = cut.rpartition(" ")[0]
    shown = re.sub(f"[{BEGIN}{END}{_APART}]", "", cut)
    return ("..." if begin > 0 else "") + " ".join(shown.split()) + ("..." if begin + len(cut) < len(text) else "")


def marked_words(text: str) -> set[str]:
    """The different words that were found in a text with marks."""
    return {word.lower() for word in re.findall(f"{BEGIN}([^{END}]*){END}", text)}


def _spaced(text: str) -> str:
    """Every character of a script without spaces is a word of its own, and a word of it a phrase."""
    return _UNSPACED.sub(f"{_APART}\\g<0>{_APART}", text)
