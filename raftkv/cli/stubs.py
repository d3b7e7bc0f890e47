"""`raftkv stubs`: writes the faces of a machine, so that `inventory.receive("apple", 3)` has types."""

from __future__ import annotations

import ast
import sys
from collections.abc import Iterator
from pathlib import Path

import click

from raftkv.cli.output import errors_reported, json_option, print_json, print_text
from raftkv.errors import InvalidArgument
from raftkv.machine import StateMachine
from raftkv.server.process import find_machine

_TEMPLATE = '''"""Commands and queries of {place}, with types.

Made by `raftkv stubs {place}`: make it anew when it gets or loses one, instead of editing it.
"""

import raftkv.typed as _typed
from {module} import {name} as _Machine


{classes}
'''

_KINDS = (
    ("Awaited", "over a `Client`; its calls are awaited", "AwaitedCommand", "AwaitedQuery"),
    ("Blocking", "over a `BlockingClient`", "BlockingCommand", "BlockingQuery"),
    ("Local", "over a `LocalMachine`, for unit tests", "LocalMethod", "LocalMethod"),
)


@click.command()
@click.argument("machine", metavar="MODULE:CLASS")
@click.option("--out", type=click.Path(dir_okay=False), metavar="FILE", help="Write it there.  [default: print it]")
@click.option("--check", "checks", is_flag=True, help="Write nothing: say whether the file at --out is up to date.")
@json_option
def stubs(machine: str, out: str | None, checks: bool, as_json: bool) -> None:
    """Write a module with typed faces of a state machine: for asyncio, for threads, and for unit tests.

    \b
      raftkv stubs shop:Inventory --out shop_typed.py

    \b
      from shop_typed import AwaitedInventory
      async with AwaitedInventory(Client(Inventory, addresses)) as inventory:
          await inventory.receive("apple", 3)

    The module imports the class, and takes arguments, defaults and results from there; so it is only out of date when
    a command or query was added, removed, or made the other of the two. Then --check exits with 1. It compares what
    the file does, so that one may be formatted.
    """
    with errors_reported(as_json):
        if checks and out is None:
            raise InvalidArgument("--check: name the file to look at with --out FILE")
        text = faces(find_machine(machine), machine)
        if out is None:
            print_text(text, as_json)
        elif checks:
            _check(machine, Path(out), text, as_json)
        else:
            _write(Path(out), text)
            if as_json:
                print_json({"written": out})


def faces(machine: type[StateMachine], place: str) -> str:
    """The module's text: the same for the same class, and formatted. `place` is its `module:Class`."""
    module, _, name = place.partition(":")

    classes = [each for kind in _KINDS for each in _classes(machine, name, kind)]
    text = _TEMPLATE.format(place=place, module=module, name=name, classes="\n\n\n".join(classes))
    return text.replace('"""\n\n\n\n', '"""\n\n\n')


def _classes(machine: type[StateMachine], name: str, kind: tuple[str, str, str, str], part: str = "") -> Iterator[str]:
    """The class of a face, behind those of the parts in it. `part` is "", or "locks." of a part."""
    base, told, command, query = kind
    here = {each.name[len(part) :]: each for each in machine.methods.values() if each.name.startswith(part)}
    lines = [
        f"    {own} = _typed.{query if each.is_query else command}(_Machine.{each.name})"
        for own, each in here.items()
        if "." not in own
    ]
    for own in dict.fromkeys(each.partition(".")[0] for each in here if "." in each):
        yield from _classes(machine, name, kind, f"{part}{own}.")
        lines.append(f"    {own} = _typed.Within({_face(base, name, f'{part}{own}.')})")
    body = "\n".join(lines)
    what = f"{part[:-1]} of {name}" if part else name
    yield f'class {_face(base, name, part)}(_typed.{base}[_Machine]):\n    """{what} {told}."""\n\n{body}'


def _face(base: str, name: str, part: str) -> str:
    """`AwaitedApp`, `AwaitedApp_locks`."""
    return f"{base}{name}" + "".join(f"_{each}" for each in part[:-1].split(".") if each)


def _check(place: str, path: Path, text: str, as_json: bool) -> None:
    try:
        found = path.read_text(encoding="utf-8") if path.exists() else None
    except (OSError, UnicodeDecodeError) as exc:
        raise InvalidArgument(f"can't read {path}: {exc}") from exc
    good = found is not None and _meaning(found) == _meaning(text)
    if as_json:
        print_json({"file": str(path), "up_to_date": good})
    elif good:
        click.echo(f"{path} is up to date")
    else:
        state = "is not there" if found is None else "is not up to date"
        click.echo(f"{path} {state}: run `raftkv stubs {place} --out {path}`", err=True)
    if not good:
        sys.exit(1)


def _meaning(text: str) -> list[str] | None:
    """What a module does, however it is formatted and its imports are sorted; None for what is no Python."""
    try:
        body = ast.parse(text).body
    except (SyntaxError, ValueError):
        return None
    imports = sorted(ast.dump(each) for each in body if isinstance(each, ast.Import | ast.ImportFrom))
    return imports + [ast.dump(each) for each in body if not isinstance(each, ast.Import | ast.ImportFrom)]


def _write(path: Path, text: str) -> None:
    try:
        path.write_text(text, encoding="utf-8")
    except OSError as exc:
        raise InvalidArgument(f"can't write {path}: {exc.strerror}") from exc
