"""How often a question finds the fact that answers it: first (hit@1) or among the first three (hit@3).

Beside Strands' own FileMemoryStore and its BM25 search, on the same facts and questions. Questions are in the words of
the facts (with other endings and typos) or in other words.
"""

import asyncio
import tempfile
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path

from strands.storage import LocalFileStorage
from strands.storage.search.bm25 import Bm25SearchStrategy
from strands.vended_memory_stores.file_memory_store import FileMemoryStore

from agent_mcp.memory.meaning import vectors_if_installed
from agent_mcp.memory.ranking import Ranking, Vectors
from benchmarks.figures import Figure
from benchmarks.memory_questions import FACTS, LEXICAL, PARAPHRASED

Search = Callable[[str], Awaitable[Sequence[str]]]
"""The best three facts for a question."""


def measure() -> list[Figure]:
    """Hits of each search, of 24 questions of each kind."""
    return asyncio.run(_measure())


async def _measure() -> list[Figure]:
    with tempfile.TemporaryDirectory() as directory:
        searches: dict[str, Search] = {"agent-mcp": _ours(None)}
        if (vectors := vectors_if_installed()) is not None:
            searches["agent-mcp[embeddings]"] = _ours(vectors)
        searches["Strands' FileMemoryStore"] = await _file_memory_store(Path(directory) / "files")
        searches["Strands' BM25"] = await _bm25(Path(directory) / "bm25")
        figures: list[Figure] = []
        for kind, questions in (("lexical", LEXICAL), ("paraphrased", PARAPHRASED)):
            for name, search in searches.items():
                found = [(await search(question), FACTS[fact]) for question, fact in questions]
                first = sum(hits[:1] == [fact] for hits, fact in found)
                third = sum(fact in hits[:3] for hits, fact in found)
                figures.append(Figure(what=f"{kind}, {name}: hit@1", value=first, unit=f"of {len(questions)}"))
                figures.append(Figure(what=f"{kind}, {name}: hit@3", value=third, unit=f"of {len(questions)}"))
    return figures


def _ours(vectors: Vectors | None) -> Search:
    ranking = Ranking(FACTS, vectors=vectors)

    async def search(question: str) -> list[str]:
        return [FACTS[index] for index, _ in ranking.search(question, limit=3)]

    return search


async def _file_memory_store(directory: Path) -> Search:
    store = FileMemoryStore(name="facts", storage=LocalFileStorage(str(directory)), writable=True)
    for fact in FACTS:
        await store.add(fact)

    async def search(question: str) -> list[str]:
        return [_whole(entry.content) for entry in await store.search(question, {"max_search_results": 3})]

    return search


async def _bm25(directory: Path) -> Search:
    storage = LocalFileStorage(str(directory))
    strategy = Bm25SearchStrategy()
    for number, fact in enumerate(FACTS):
        await storage.write(f"{number}.md", fact.encode())
        await strategy.index(storage, f"{number}.md", fact.encode())

    async def search(question: str) -> list[str]:
        hits = await strategy.search(storage, question)
        return [FACTS[int(Path(hit.key).stem)] for hit in hits]

    return search


def _whole(text: str) -> str:
    return next((fact for fact in FACTS if fact in text), text)
