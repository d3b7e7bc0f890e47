"""`raftkv check`: whether the history of any system is linearizable."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING

import click
from rich.markup import escape

from raftkv.cli.common import Seconds
from raftkv.cli.output import errors_reported, make_console, print_json
from raftkv.cli.progress import bar, interruptible
from raftkv.errors import InvalidArgument

if TYPE_CHECKING:
    from raftkv.testing.judging.verdicts import Judgement

PLACES_MAX = 3_000_000
"""Of each key's search: about 1 GB of memory."""


@click.command()
@click.argument("history", type=click.Path(dir_okay=False), metavar="HISTORY")
@click.option("--seconds", type=Seconds(0, 1_000_000), default=60.0, show_default=True, help="Search no longer.")
@click.option("--initial", metavar="VALUE", help="What is read before the first write, in EDN.  [default: nil]")
@click.option("--json", "as_json", is_flag=True, help="Print JSON, errors too.")
def check(history: str, seconds: float, initial: str | None, as_json: bool) -> None:
    """Say whether the history of any system is linearizable.

    HISTORY is in Jepsen's form, as EDN or as lines of JSON: events with process, type (invoke, ok, fail, info), f and
    value, in their order. It is of a register, or of a map of registers with the key in `key`, or with values that are
    all [key value]. f is read (get), write (put, set), cas (compare-and-set, with [old new]), append (to a string) or
    delete; of a mutex, acquire (lock) and release (unlock). Of a history that is not linearizable a small part is shown
    that can't be true.

    Exit code 0 when it is linearizable, 1 when it is not, 4 when it is undecided within the time, and 2 for a file that
    is no such history.
    """
    # Only who judges a history pays for loading the search.
    from raftkv.testing.judging.edn import read_edn
    from raftkv.testing.judging.jepsen import CellModel, read_history
    from raftkv.testing.judging.search import Effort, Verdict
    from raftkv.testing.judging.verdicts import judge

    left = f"{history} is as it was, and there is no verdict"
    with errors_reported(as_json), interruptible(left, as_json=as_json):
        operations = read_history(_read(history))
        values = [each.value for each in read_edn(initial)] if initial is not None else [None]
        if len(values) != 1 or isinstance(values[0], dict):
            raise InvalidArgument(
                f"--initial is one value, no map; in {initial!r} are {len(values)}: quote a string twice"
            )
        if initial is None and any(each.name == "append" for each in operations):
            values = [""]
        with bar(f"searching {len(operations)} operations, for {seconds:g} s at most"):
            found = judge(operations, CellModel(values[0]), values[0], Effort(PLACES_MAX).within(seconds))
    _print(found, len(operations), as_json)
    sys.exit({Verdict.LINEARIZABLE: 0, Verdict.REFUTED: 1, Verdict.UNDECIDED: 4}[found.verdict])


def _read(path: str) -> str:
    try:
        return Path(path).read_text(encoding="utf-8")
    except UnicodeDecodeError as exc:
        raise InvalidArgument(f"{path} is no text in UTF-8: byte {exc.start}") from exc
    except OSError as exc:
        raise InvalidArgument(f"can't read {path}: {exc.strerror}") from exc


def _print(found: Judgement, operations: int, as_json: bool) -> None:
    if not as_json:
        make_console().print(escape(found.describe()), soft_wrap=True)
        return
    print_json(
        {
            "verdict": found.verdict.value,
            "operations": operations,
            "keys": found.keys,
            "undecided": [repr(key) for key in found.undecided],
            "key": repr(found.key) if found.part else None,
            "part": [each.describe() for each in found.part],
            "described": found.describe(),
        }
    )
