"""Strands takes half a second to import, so it is imported late; and several threads may be the first to need it."""

import importlib


def import_strands() -> None:
    """Imports Strands whole. Call it before the first import of any part of it.

    A thread that imports a part first holds that part while it waits for the package, and a thread that imports the
    package waits for the part: Python breaks the deadlock by handing out half-made modules, and imports fail.
    """
    importlib.import_module("strands")
