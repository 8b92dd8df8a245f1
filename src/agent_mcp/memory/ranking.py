"""Ranked search over the facts of one actor: by words whatever their endings, and by pieces of words for typos."""

from __future__ import annotations

import re
import sqlite3
import threading
from collections.abc import Callable, Mapping, Sequence

Vectors = Callable[[Sequence[str]], Sequence[Sequence[float]]]
"""Makes a vector of unit length for each text; what means the same lies close together."""

# Words of questions that say nothing of what is asked for. Without them "what is my" would find everything.
_EMPTY = frozenset(
    re.findall(
        r"\w+",
        "a an and are as at be been but by can could d did do does for from had has have he her him his how i if in is "
        "it its ll m me my of on or our re s she should so t tell that the their them there they this to us ve was we "
        "were what when where which who whom whose why will with would you your about please know remember recall",
    )
)
_GRAM = 3
_WORDS_WEIGHT, _GRAMS_WEIGHT = 0.6, 0.4
_MEANING_WEIGHT = 1.0
_LEAST_GRAMS = 0.3
"""The share of a query's pieces that a fact without one of its words must hold to count as found."""
_LEAST_MEANING = 0.25
"""The cosine from which on a fact counts as found by what it means."""


class Ranking:
    """An index over some texts, in memory: it is made from the table, and leaves no words in any file."""

    def __init__(self, texts: Sequence[str], *, vectors: Vectors | None = None) -> None:
        self._texts = list(texts)
        self._lock = threading.Lock()
        self._vectors = vectors
        self._meanings: Sequence[Sequence[float]] = vectors(self._texts) if vectors and self._texts else ()
        self._db = sqlite3.connect(":memory:", check_same_thread=False)
        self._db.execute(
            "CREATE VIRTUAL TABLE words USING fts5 (text, tokenize = 'porter unicode61 remove_diacritics 2')"
        )
        self._db.executemany("INSERT INTO words (rowid, text) VALUES (?, ?)", enumerate(self._texts))
        self._grams = [grams(text) for text in self._texts]

    def search(self, query: str, *, limit: int) -> list[tuple[int, float]]:
        """Indexes of the texts that fit, with a score from 0 to 1, the best first."""
        terms = [word for word in _words(query) if word not in _EMPTY] or _words(query)
        scores: dict[int, float] = {}
        for found, weight in (
            (self._by_words(terms), _WORDS_WEIGHT),
            (self._by_grams(terms), _GRAMS_WEIGHT),
            (self._by_meaning(query), _MEANING_WEIGHT),
        ):
            for index, score in found.items():
                scores[index] = scores.get(index, 0.0) + weight * score
        whole = _WORDS_WEIGHT + _GRAMS_WEIGHT + (_MEANING_WEIGHT if self._vectors else 0)
        ranked = sorted(scores.items(), key=lambda item: (-item[1], -item[0]))
        return [(index, round(min(1.0, score / whole), 4)) for index, score in ranked[:limit]]

    def _by_words(self, terms: Sequence[str]) -> Mapping[int, float]:
        if not terms:
            return {}
        match = " OR ".join(f'"{term}"' for term in terms)
        with self._lock:
            rows = self._db.execute("SELECT rowid, bm25(words) FROM words WHERE words MATCH ?", (match,)).fetchall()
        # bm25 is negative, the best the lowest, and in a small set of texts it can be next to nothing.
        best = min((float(rank) for _, rank in rows), default=0.0)
        return {int(row): float(rank) / best if best else 1.0 for row, rank in rows}

    def _by_grams(self, terms: Sequence[str]) -> Mapping[int, float]:
        """The share of the words' pieces that a text holds: a typo spoils three pieces of a word, not all."""
        wanted = [grams(term) for term in terms if len(term) > _GRAM]
        if not wanted:
            return {}
        found: dict[int, float] = {}
        for index, there in enumerate(self._grams):
            shares = [len(pieces & there) / len(pieces) for pieces in wanted]
            if max(shares) >= _LEAST_GRAMS:
                found[index] = sum(share for share in shares if share >= _LEAST_GRAMS) / len(shares)
        return found

    def _by_meaning(self, query: str) -> Mapping[int, float]:
        if self._vectors is None or not self._meanings:
            return {}
        wanted = self._vectors([query])[0]
        found: dict[int, float] = {}
        for index, meaning in enumerate(self._meanings):
            cosine = sum(a * b for a, b in zip(wanted, meaning, strict=True))
            if cosine >= _LEAST_MEANING:
                found[index] = cosine
        return found


def _words(text: str) -> list[str]:
    return list(dict.fromkeys(re.findall(r"[^\W_]+", text.casefold())))


def grams(text: str) -> frozenset[str]:
    """The pieces of three characters of a text's words, with their beginnings and ends marked."""
    pieces: set[str] = set()
    for word in _words(text):
        marked = f" {word} "
        pieces.update(marked[at : at + _GRAM] for at in range(len(marked) - _GRAM + 1))
    return frozenset(pieces)
