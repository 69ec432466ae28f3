"""Apps by reference string, as Flower loads them: the simulation imports neither side itself."""

import importlib
from typing import Any


def load_app(reference: str) -> Any:
    """Return what `module:name` refers to."""
    module, _, name = reference.partition(":")
    return getattr(importlib.import_module(module), name)


def refer_to_sibling(reference: str) -> str:
    """Return a reference to a folder beside this one: `clients.app:app`.

    In a checkout's tests the folders are top-level packages; installed they lie in `fedtrain`.
    """
    parent = __package__.rpartition(".")[0]
    return f"{parent}.{reference}" if parent else reference
