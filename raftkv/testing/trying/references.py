"""References to classes, for another process or a later run: "package.module:Class", and the module's file."""

from __future__ import annotations

import importlib
import importlib.util
import os
import sys
from types import ModuleType
from typing import Any

import msgspec

from raftkv.errors import InvalidArgument


class NotImportable(InvalidArgument):
    """A class can't be imported by its name in another process; the text says where it must be defined."""


class Reference(msgspec.Struct, frozen=True):
    """Where a class is defined."""

    module: str
    name: str
    directory: str
    """What the module is found in: an entry of `sys.path`, relative to the working directory where that is possible."""

    @classmethod
    def of(cls, kind: type) -> Reference:
        """Raises `NotImportable` for a class that was made in a function, or in a program that has no file."""
        module, name = kind.__module__, kind.__qualname__
        path = getattr(sys.modules.get(module), "__file__", None)
        if "<locals>" in name:
            raise NotImportable(
                f"{name} is made in a function, so another process can't make it: move it to the top of its module"
            )
        if path is None:
            raise NotImportable(f"{name} is in no file, so another process can't import it: put it into a module")
        if module == "__main__":
            directory, module = os.path.split(os.path.splitext(path)[0])
            return cls(module, name, _relative(directory))
        directory = os.path.dirname(path)
        depth = module.count(".") + (os.path.basename(path) == "__init__.py")
        return cls(module, name, _relative(os.path.normpath(os.path.join(directory, *[".."] * depth))))

    def __str__(self) -> str:
        return f"{self.module}:{self.name}"

    def resolve(self) -> Any:
        """The class; imports its module. Raises `NotImportable`."""
        found: Any = self._module()
        for part in self.name.split("."):
            try:
                found = getattr(found, part)
            except AttributeError:
                raise NotImportable(f"{self.module} has no {self.name} any more") from None
        return found

    def _module(self) -> ModuleType:
        directory = os.path.abspath(self.directory)
        if directory not in [os.path.abspath(entry) for entry in sys.path]:
            sys.path.append(directory)
            importlib.invalidate_caches()
        try:
            return importlib.import_module(self.module)
        except ModuleNotFoundError as exc:
            raise NotImportable(
                f"{self.module} can't be imported ({exc}): start this in the directory in which the tests were run"
            ) from exc


def _relative(directory: str) -> str:
    here = os.path.relpath(directory)
    return directory if here.startswith("..") else here
