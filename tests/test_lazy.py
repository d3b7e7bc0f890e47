"""Names of packages that are imported when they are first used: the same names as if they were there at once."""

from __future__ import annotations

import ast
import importlib
import os
import subprocess
import sys
from pathlib import Path

import pytest

from raftkv.lazy import exports

ROOT = Path(__file__).parent.parent


def named_late(path: Path) -> ast.If | None:
    """Where a package says what its names are, for type checkers and for the interpreter."""
    for node in ast.parse(path.read_text()).body:
        if isinstance(node, ast.If) and ast.unparse(node.test) == "typing.TYPE_CHECKING":
            return node
    return None


LATE = {
    ".".join(path.parent.relative_to(ROOT).parts): found
    for path in sorted(ROOT.glob("raftkv/**/__init__.py"))
    if (found := named_late(path)) is not None
}


def run(program: str) -> str:
    """What a process of its own prints."""
    return subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True).stdout


@pytest.mark.parametrize("package", LATE)
def test_type_checkers_and_the_interpreter_are_told_the_same(package: str) -> None:
    """Each name is from one module, said twice, and is public."""
    node = LATE[package]
    typed = {alias.name: each.module for each in node.body if isinstance(each, ast.ImportFrom) for alias in each.names}
    (assigned,) = node.orelse
    assert isinstance(assigned, ast.Assign) and isinstance(assigned.value, ast.Call)
    places = ast.literal_eval(assigned.value.args[1])
    assert {name: module for module, names in places.items() for name in names.split()} == typed
    assert set(importlib.import_module(package).__all__) == set(typed)


@pytest.mark.parametrize("package", LATE)
def test_every_name_is_found_listed_and_kept(package: str) -> None:
    """By its name, by `dir` before it was used, and by a star; a second use asks nobody."""
    program = f"""
import {package} as package
listed = dir(package)
assert set(package.__all__) <= set(listed) and listed == sorted(listed), listed
from {package} import *
for name in package.__all__:
    assert globals()[name] is getattr(package, name) is vars(package)[name], name
print(len(package.__all__))
"""
    assert int(run(program)) == len(importlib.import_module(package).__all__)


def test_modules_inside_are_found_as_well() -> None:
    """As they were when a package imported all of its modules at once."""
    assert run("import raftkv; print(raftkv.client.options.ClientOptions is raftkv.ClientOptions)") == "True\n"


def test_a_name_that_is_not_there_is_an_error_as_ever() -> None:
    """The same exceptions and words as those of any module; names with an underscore are not even looked for."""
    import raftkv.client as package  # the module, not one of its names

    for name in ("nonsense", "_nonsense", "__wrapped__"):
        with pytest.raises(AttributeError, match=f"module 'raftkv.client' has no attribute '{name}'") as caught:
            getattr(package, name)
        assert caught.value.name == name and caught.value.obj is package
        with pytest.raises(ImportError, match=f"cannot import name '{name}' from 'raftkv.client'"):
            exec(f"from raftkv.client import {name}", {})  # noqa: S102


@pytest.mark.parametrize("name", ["a.b", "client.options", "a b", "", "1", "a\0b"])
def test_what_is_no_name_is_not_there_either(name: str) -> None:
    """As `hasattr` asks for it: nothing is imported for it, and nothing but `AttributeError` is raised."""
    import raftkv.client as package

    with pytest.raises(AttributeError, match=r"module 'raftkv\.client' has no attribute"):
        getattr(package, name)


def test_what_an_import_raises_is_not_hidden(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A module inside that lacks a library is there: that it can't be imported is the error, now and the next time."""
    folder = tmp_path / "latepackage"
    folder.mkdir()
    (folder / "__init__.py").write_text("")
    (folder / "needy.py").write_text("import library_that_nobody_has\nname = 1\n")
    monkeypatch.syspath_prepend(tmp_path)
    importlib.import_module("latepackage")
    find, _ = exports("latepackage", {"latepackage.needy": "name"})
    for name in ("name", "needy", "name"):
        with pytest.raises(ModuleNotFoundError, match="No module named 'library_that_nobody_has'"):
            find(name)
    monkeypatch.delitem(sys.modules, "latepackage")


FORKING = """
import faulthandler, os, sys, threading, time
import raftkv.lazy

begun, may_end = threading.Event(), threading.Event()

class Slow:
    def find_spec(self, name, path=None, target=None):
        if name == "raftkv.server.server" and threading.current_thread() is not threading.main_thread():
            begun.set()
            may_end.wait(2.0)

sys.meta_path.insert(0, Slow())
thread = threading.Thread(target=lambda: raftkv.Server)
thread.start()
begun.wait()
child = os.fork()
if child == 0:
    faulthandler.dump_traceback_later(60.0, exit=True)
    print(raftkv.Server.__name__, raftkv.Client.__name__, dict(raftkv.lazy._importing), flush=True)
    os._exit(0)
print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), thread.is_alive(), flush=True)
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="nothing forks here")
def test_a_fork_waits_for_a_thread_that_imports() -> None:
    """The child would find modules locked by a thread that it does not have, and wait for ever."""
    assert run(FORKING) == "Server Client {}\n0 False\n"


def test_a_fork_within_an_import_does_not_wait_for_itself() -> None:
    """Nor for others, which may wait for it."""
    program = """
import os
import raftkv.lazy as lazy
with lazy._told(), lazy._told():
    lazy._importing[1] += 1
    child = os.fork()
    if child == 0:
        os._exit(len(lazy._importing))
    print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), len(lazy._importing))
"""
    assert run(program) == "1 2\n"
