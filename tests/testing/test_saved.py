"""A failure in a file is the same failure again, in another process too."""

from __future__ import annotations

import subprocess
import sys

import msgspec
import pytest

from raftkv.kv import KeyValue
from raftkv.kv.model import Exists, Increment
from raftkv.testing.judging.failure import Cause, CounterExample
from raftkv.testing.trying.example import run_example
from raftkv.testing.trying.saved import BadFile, load, rerun, save
from raftkv.testing.trying.script import Call, Fault, Script, program
from tests.testing.machines import Forgetful, Inventory, InventoryModel, Remembering

SCRIPT = Script(
    seed=3,
    faults=(Fault("crash", at_ms=40, chance=5),),
    calls=(Call("receive", ("a", 2)), Call("receive", ("a", 4), client=2, at_ms=100)),
)


def found(machine):
    """What the script shows."""
    with pytest.raises(CounterExample) as caught:
        run_example(machine, InventoryModel, SCRIPT)
    return caught.value


@pytest.mark.parametrize("machine", [Forgetful, Remembering])
def test_a_saved_failure_fails_again(tmp_path, machine):
    """Load, rerun: the same cause and the same words; and again in a process that has never heard of it."""
    error = found(machine)
    path = tmp_path / "failure.json"
    save(path, error, SCRIPT, machine, InventoryModel, key="sku")
    saved = load(path)
    assert (saved.cause, saved.described, saved.program) == (error.cause, error.described, error.program)
    with pytest.raises(CounterExample) as again:
        rerun(saved)
    assert (again.value.cause, again.value.described, again.value.program) == (
        error.cause,
        error.described,
        error.program,
    )
    script = f"from raftkv.testing.trying.saved import load, rerun\nrerun(load({str(path)!r}))"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert error.described.splitlines()[0] in done.stderr


def test_the_program_can_be_pasted():
    """It names what it needs, and shows the failure again."""
    error = found(Forgetful)
    assert error.cause is Cause.DISAGREES
    assert error.described.startswith("receive('a', 4) gives 4, the model gives 6, with nothing going wrong\n")
    assert error.program == (
        "from raftkv.testing import Call, Fault, rerun\n"
        "from tests.testing.machines import Forgetful, InventoryModel\n"
        "\n"
        "rerun(\n"
        "    Forgetful,\n"
        "    InventoryModel,\n"
        "    seed=3,\n"
        '    faults=[Fault("crash", at_ms=40, chance=5)],\n'
        "    commands=[\n"
        "        Call(\"receive\", ('a', 2)),\n"
        "        Call(\"receive\", ('a', 4), client=2, at_ms=100),\n"
        "    ],\n"
        ")\n"
    )


def test_a_sound_machine_passes_the_script():
    """The script alone is no failure."""
    run_example(Inventory, InventoryModel, SCRIPT, key="sku")


def test_other_files_are_refused(tmp_path):
    """Something else, and what a later version wrote."""
    path = tmp_path / "failure.json"
    path.write_text("{}")
    with pytest.raises(BadFile, match="is no saved failure"):
        load(path)
    save(path, found(Forgetful), SCRIPT, Forgetful, InventoryModel)
    path.write_bytes(msgspec.json.encode({**msgspec.json.decode(path.read_bytes()), "format": 99}))
    with pytest.raises(BadFile, match="has format version 99, this raftkv reads version 1"):
        load(path)


def test_the_world_can_be_observed():
    """Whoever draws it gets the cluster before anything happens."""
    seen = []
    run_example(Inventory, InventoryModel, SCRIPT, observe=seen.append)
    (cluster,) = seen
    assert any("crash" in event for event in cluster.events)


def test_the_program_imports_what_stands_in_the_arguments():
    """Structs within lists, too."""
    call = Call("transact", ([Exists(b"a")], [Increment(b"a", 2)], []))
    written = program(Script(calls=(call,)), KeyValue, InventoryModel)
    assert "from raftkv.kv.model import Exists, Increment\n" in written
    names: dict[str, object] = {}
    exec(written.partition("\nrerun(")[0], names)  # noqa: S102 (that it can be pasted is what is tested)
    assert eval(repr(call), names) == call  # noqa: S307 (likewise)
