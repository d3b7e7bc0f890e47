"""The public names: what `raftkv` says that it has, it has, and nothing else by accident."""

from __future__ import annotations

import inspect
import pkgutil
import types

import raftkv


def test_all_names_are_there_and_documented():
    """Each name in `__all__` exists, in order, with a docstring of its own."""
    assert raftkv.__all__ == sorted(raftkv.__all__)
    for name in raftkv.__all__:
        value = getattr(raftkv, name)
        assert inspect.getdoc(value), f"{name} has no docstring"


def test_nothing_else_is_public():
    """A name that is not in `__all__` is a package, or nobody's business."""
    public = {
        name
        for name in dir(raftkv)
        if not name.startswith("_") and not isinstance(getattr(raftkv, name), types.ModuleType)
    }
    assert public == set(raftkv.__all__)


def test_every_package_says_what_it_owns():
    """The first line of every module is a sentence."""
    for module in pkgutil.walk_packages(raftkv.__path__, "raftkv."):
        if module.name == "raftkv.__main__":
            continue
        loaded = __import__(module.name, fromlist=["_"])
        assert loaded.__doc__ and loaded.__doc__.strip(), f"{module.name} has no docstring"
