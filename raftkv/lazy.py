"""The names of a package, each imported when it is first used.

A package's names lie in modules of which most programs need a few: a client nothing of a node, a node nothing of a
client. The package says for type checkers where each name is from, and here the same for the interpreter. What is
named neither there nor as a module inside the package does not exist, as ever.

Who must not be held up later (a node that serves) imports from the modules themselves, before it begins.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from importlib import import_module


def exports(package: str, places: Mapping[str, str]) -> tuple[Callable[[str], object], Callable[[], list[str]]]:
    """`__getattr__` and `__dir__` of `package` (PEP 562). `places` has the names that are in each module, with blanks
    between.

    A name that is found is kept in the package, so each is sought once. What importing its module raises is raised.
    """
    place_of = {name: module for module, names in places.items() for name in names.split()}
    found = vars(sys.modules[package])

    def __getattr__(name: str) -> object:  # noqa: N807  # it is what its name says, in another module
        if name in place_of:
            value = found[name] = getattr(import_module(place_of[name]), name)
            return value
        missing = f"module {package!r} has no attribute {name!r}"
        if name.startswith("_") or not name.isidentifier():  # one with a dot would be sought in other packages
            raise AttributeError(missing, name=name, obj=sys.modules[package])
        try:
            return import_module(f"{package}.{name}")
        except ModuleNotFoundError as exc:
            if exc.name != f"{package}.{name}":
                raise
            raise AttributeError(missing, name=name, obj=sys.modules[package]) from None

    def __dir__() -> list[str]:  # noqa: N807
        return sorted({*found, *place_of})

    return __getattr__, __dir__
