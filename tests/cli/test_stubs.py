"""`raftkv stubs`: a module with typed faces, and whether one is up to date."""

from __future__ import annotations

import pytest

from tests.cli.commands import error_of, invoke, value_of

MACHINE = "tests.typed.programs.shop:Inventory"


def test_the_text_is_the_same_each_time_and_says_what_made_it(tmp_path):
    """Printed or written, with no time or place in it."""
    out = tmp_path / "shop_typed.py"
    assert invoke("stubs", MACHINE, "--out", str(out)).exit_code == 0
    text = out.read_text()
    assert text == invoke("stubs", MACHINE).stdout
    assert value_of(invoke("stubs", MACHINE, "--json")) == {"text": text}
    assert f"raftkv stubs {MACHINE}" in text.partition("import")[0]
    assert str(tmp_path) not in text


@pytest.mark.parametrize(
    ("change", "code"),
    [
        (lambda text: text, 0),
        (lambda text: text.replace("\n\n    receive", "\n    receive").replace("    put = ", "    put  =  "), 0),
        (lambda text: text.replace("AwaitedQuery(", "AwaitedCommand("), 1),
        (lambda text: text.replace("    list = _typed.LocalMethod(_Machine.list)\n", ""), 1),
        (lambda text: "no python (", 1),
    ],
    ids=["untouched", "formatted", "query made command", "one missing", "nonsense"],
)
def test_a_file_is_up_to_date_while_it_does_the_same(tmp_path, change, code):
    """However it is formatted. `--check` writes nothing."""
    out = tmp_path / "shop_typed.py"
    text = change(invoke("stubs", MACHINE).stdout)
    out.write_text(text)
    done = invoke("stubs", MACHINE, "--out", str(out), "--check")
    assert done.exit_code == code
    assert ("up to date" in done.stdout) == (code == 0)
    assert (f"raftkv stubs {MACHINE} --out" in done.stderr) == (code == 1)
    assert out.read_text() == text
    assert value_of(invoke("stubs", MACHINE, "--out", str(out), "--check", "--json")) == {
        "file": str(out),
        "up_to_date": code == 0,
    }


def test_wrong_usage_says_what_is_wrong(tmp_path):
    """A class that is not there, no file to check, a file that can't be written; one that is missing is a no."""
    assert invoke("stubs", "nowhere:Inventory").exit_code == 2
    assert invoke("stubs", MACHINE, "--check").exit_code == 2
    assert invoke("stubs", MACHINE, "--out", str(tmp_path / "no" / "where.py")).exit_code == 2
    assert invoke("stubs", MACHINE, "--out", str(tmp_path / "missing.py"), "--check").exit_code == 1
    assert error_of(invoke("stubs", "nowhere:Inventory", "--json"))["error"] == "ConfigError"
