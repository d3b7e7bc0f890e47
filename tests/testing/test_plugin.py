"""The pytest plugin: what it shows of a failure, its options, and that it costs next to nothing at the start."""

from __future__ import annotations

import configparser
import os
import subprocess
import sys
from pathlib import Path

import pytest

from raftkv.testing import plugin

ROOT = Path(__file__).parents[2]

APPLICATION = '''
"""An inventory that forgets what there was when more than 3 come at once."""
from hypothesis import strategies as st
from msgspec.structs import replace
from raftkv import StateMachine, Table, command
from raftkv.testing import calls, fault_test
from raftkv.testing.trying.budget import BUDGETS

BUDGETS["quick"] = replace(BUDGETS["quick"], shrinks=40, bursts_max=3, faults_max=2)  # enough to find this

class Inventory(StateMachine):
    stock = Table(str, int)

    @command
    def receive(self, sku: str, quantity: int) -> int:
        self.stock[sku] = quantity if quantity > 3 else self.stock.get(sku, 0) + quantity
        return self.stock[sku]

class InventoryModel:
    def __init__(self):
        self.stock = {}

    def receive(self, sku, quantity):
        self.stock[sku] = self.stock.get(sku, 0) + quantity
        return self.stock[sku]

test_inventory = fault_test(
    Inventory, model=InventoryModel, commands=[calls(Inventory.receive, "apple", st.integers(1, 9))]
)
'''


def run(directory, *arguments):
    """Run pytest with the plugin on the application, in a process of its own."""
    (directory / "test_application.py").write_text(APPLICATION)
    return subprocess.run(
        [sys.executable, "-m", "pytest", "-p", "raftkv.testing.plugin", "-p", "no:cacheprovider", *arguments],
        cwd=directory,
        # Installed or not, it is loaded once.
        env={**os.environ, "PYTHONPATH": str(ROOT), "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"},
        capture_output=True,
        text=True,
        check=False,
    )


def test_a_failure_is_shown_with_its_program_and_its_file(tmp_path):
    """No trace through the test kit, but what to do next; and the file shows it again, in another process."""
    done = run(tmp_path)
    path = Path(".raftkv/test_application-test_inventory.json")
    for line in (
        "receive('apple', 4) gives 4, the model gives 5, with nothing going wrong",
        "- raftkv: how to see it again -",
        "    from test_application import Inventory, InventoryModel",
        "            Call(\"receive\", ('apple', 4)),",
        f"So does: raftkv replay {path}",
        "1 failed",
    ):
        assert line in done.stdout, done.stdout + done.stderr
    assert "application.py" not in done.stdout.replace("test_application.py", "")
    again = subprocess.run(
        [sys.executable, "-c", f"from raftkv.testing.trying.saved import load, rerun; rerun(load({str(path)!r}))"],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert "CounterExample: receive('apple', 4) gives 4, the model gives 5, with nothing" in again.stderr


def test_the_options_say_what_is_tried_and_where_failures_go(tmp_path):
    """On the command line, in a file; a wrong one is an error at the start."""
    (tmp_path / "pytest.ini").write_text("[pytest]\nraftkv_failures = found\n")
    assert "1 failed" in run(tmp_path, "--raftkv-budget=quick", "--raftkv-seed=7").stdout
    assert (tmp_path / "found" / "test_application-test_inventory.json").exists()
    wrong = run(tmp_path, "--raftkv-budget=endless")
    assert wrong.returncode == pytest.ExitCode.USAGE_ERROR
    (tmp_path / "pytest.ini").write_text("[pytest]\nraftkv_budget = endless\n")
    wrong = run(tmp_path)
    assert "raftkv_budget = endless: must be one of quick, ci, soak" in wrong.stderr


def test_the_plugin_imports_neither_the_simulation_nor_hypothesis():
    """It is loaded at every start of pytest; an environment without hypothesis must not break."""
    script = (
        "import sys\n"
        "sys.modules['hypothesis'] = None\n"
        "import raftkv.testing.plugin\n"
        "found = [name for name in sys.modules if name.startswith('raftkv.testing.')]\n"
        "light = ('judging', 'judging.failure', 'plugin', 'trying', 'trying.budget')\n"
        "assert sorted(found) == ['raftkv.testing.' + name for name in light], found\n"
        "from raftkv.testing import rerun, scenario\n"
        "try:\n"
        "    from raftkv.testing import fault_test\n"
        "except ModuleNotFoundError as exc:\n"
        "    print(exc)\n"
    )
    done = subprocess.run([sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.stdout == "fault_test needs hypothesis: python3 -m pip install 'raftkv[testing]'\n", done.stderr


def test_pytest_finds_the_plugin_by_itself():
    """The entry point of the package names the module that is tested here."""
    settings = configparser.ConfigParser()
    settings.read(ROOT / "setup.cfg")
    assert settings["options.entry_points"]["pytest11"].split() == ["raftkv", "=", plugin.__name__]
