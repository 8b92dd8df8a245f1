"""Strands is imported late, by whichever thread needs it first: here is how they keep out of each other's way."""


def load_strands() -> None:
    """Imports Strands as a whole. Call it before a function imports one of Strands' submodules.

    A thread that imports `strands.a.b` holds that module's lock while it waits for `strands`. If another thread is just
    importing `strands`, which needs `strands.a.b`, Python sees the deadlock and hands out half a module. A thread that
    asks for `strands` alone holds nothing while it waits.
    """
    import strands  # noqa: F401  # pyright: ignore[reportUnusedImport] imported for the order
