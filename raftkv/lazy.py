"""The names of a package, each imported when it is first used.

A package's names lie in modules of which most programs need a few: a client nothing of a node, a node nothing of a
client. The package says for type checkers where each name is from, and here the same for the interpreter. What is
named neither there nor as a module inside the package does not exist, as ever.

Who must not be held up later (a node that serves) imports from the modules themselves, before it begins.

A fork waits until no other thread imports a name: Python's locks of modules that are being imported stay locked in the
child, and whoever needed one there would wait for ever.
"""

from __future__ import annotations

import contextlib
import os
import sys
import threading
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from importlib import import_module

FORK_WAIT_S = 10.0
"""So long at most: an import that takes longer may wait for what the thread that forks has to do itself."""

_changed = threading.Condition()
_importing: Counter[int] = Counter()
"""Threads that import names now, and how many each, one in the other. Changed only with `_changed`."""


@contextlib.contextmanager
def _told() -> Iterator[None]:
    """Whoever forks knows that this thread imports something."""
    me = threading.get_ident()
    with _changed:
        _importing[me] += 1
    try:
        yield
    finally:
        with _changed:
            _importing[me] -= 1
            if not _importing[me]:
                del _importing[me]
                _changed.notify_all()


def _before_fork() -> None:
    """Wait for the others, and let none begin until the fork is over."""
    _changed.acquire()
    if threading.get_ident() not in _importing:  # else one of them may wait for this thread
        _changed.wait_for(lambda: not _importing, FORK_WAIT_S)


def _in_child() -> None:
    """The other threads are not there."""
    for thread in _importing.keys() - {threading.get_ident()}:
        del _importing[thread]
    _changed.release()


os.register_at_fork(before=_before_fork, after_in_parent=_changed.release, after_in_child=_in_child)


def exports(package: str, places: Mapping[str, str]) -> tuple[Callable[[str], object], Callable[[], list[str]]]:
    """`__getattr__` and `__dir__` of `package` (PEP 562). `places` has the names that are in each module, with blanks
    between.

    A name that is found is kept in the package, so each is sought once. What importing its module raises is raised.
    """
    place_of = {name: module for module, names in places.items() for name in names.split()}
    found = vars(sys.modules[package])

    def __getattr__(name: str) -> object:  # noqa: N807  # it is what its name says, in another module
        if name in place_of:
            with _told():
                value = found[name] = getattr(import_module(place_of[name]), name)
            return value
        missing = f"module {package!r} has no attribute {name!r}"
        if name.startswith("_") or not name.isidentifier():  # one with a dot would be sought in other packages
            raise AttributeError(missing, name=name, obj=sys.modules[package])
        try:
            with _told():
                return import_module(f"{package}.{name}")
        except ModuleNotFoundError as exc:
            if exc.name != f"{package}.{name}":
                raise
            raise AttributeError(missing, name=name, obj=sys.modules[package]) from None

    def __dir__() -> list[str]:  # noqa: N807
        return sorted({*found, *place_of})

    return __getattr__, __dir__
