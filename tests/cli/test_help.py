"""The help is complete, and shells can complete."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Iterator

import click
import pytest
from click.shell_completion import ShellComplete

from raftkv.cli import main
from raftkv.cli.later import Later
from raftkv.cli.output import EXIT_CODES
from tests.cli.commands import error_of, invoke, value_of


def commands(command: click.Command, path: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], click.Command]]:
    """Every command with the words that lead to it."""
    command = command.load() if isinstance(command, Later) else command
    yield path, command
    if isinstance(command, click.Group):
        for name, child in command.commands.items():
            yield from commands(child, (*path, name))


ALL = dict(commands(main))


def test_every_command_is_there():
    """What the project promises can be typed."""
    paths = {" ".join(path) for path in ALL}
    promised = ["serve", "demo", "put", "get", "delete", "cas", "increment", "range", "prefix", "txn", "status"]
    promised += ["transfer", "replay", "completion", "call", "tables", "stubs"]
    groups = {
        "member": ["add", "promote", "remove", "list"],
        "snapshot": ["take", "list", "verify"],
        "log": ["inspect"],
    }
    promised += [f"{group} {name}" for group, names in groups.items() for name in names]
    assert set(promised) <= paths


@pytest.mark.parametrize("path", ALL, ids=" ".join)
def test_every_command_and_every_option_says_what_it_does(path):
    """Nothing is left to guess: each command has a sentence, and each of its options."""
    command = ALL[path]
    assert command.help and command.help.split(".")[0].strip(), f"{path} has no help"
    for parameter in command.params:
        if isinstance(parameter, click.Option):
            assert parameter.help, f"{' '.join(path)} {parameter.opts[0]} has no help"
    result = invoke(*path, "--help")
    assert result.exit_code == 0
    assert command.help.split()[0] in result.stdout


@pytest.mark.parametrize("name", main.commands)
def test_the_list_of_commands_says_what_they_say_themselves(name):
    """The help is written without the commands being imported: the words that are kept for it are theirs."""
    listed, loaded = main.commands[name], ALL[(name,)]
    assert isinstance(listed, Later) and listed.hidden == loaded.hidden
    for width in (20, 80, 10_000):
        assert listed.get_short_help_str(width) == loaded.get_short_help_str(width)


def test_the_help_and_the_version_import_no_command():
    """Nor does a shell that completes their names: it would take several times as long."""
    program = """
import sys
from click.shell_completion import ShellComplete
from raftkv.cli import main
for words in (["--help"], ["--version"]):
    main(words, standalone_mode=False)
ShellComplete(main, {}, "raftkv", "_RAFTKV_COMPLETE").get_completions([], "s")
late = ("raftkv.cli.", "raftkv.client", "asyncio", "rich")
print(*sorted(name for name in sys.modules if name.startswith(late)), sep=",")
"""
    done = subprocess.run([sys.executable, "-c", program], text=True, capture_output=True, check=True)
    light = ("app", "later", "output", "progress", "standard")
    assert done.stdout.splitlines()[-1].split(",") == [f"raftkv.cli.{name}" for name in light]


def test_commands_of_scripts_run_without_tables():
    """What draws tables for people, and what nodes are made of, is not imported for JSON."""
    program = """
import sys
from raftkv.cli import main
for words in (["get", "k"], ["put", "k", "v"], ["status"], ["member", "list"]):
    try:
        main([*words, "--json", "-a", "127.0.0.1:1", "--timeout", "0.1"])
    except SystemExit as exc:
        assert exc.code == 3, exc.code
assert "rich" not in sys.modules and "raftkv.node.node" not in sys.modules
"""
    done = subprocess.run([sys.executable, "-c", program], text=True, capture_output=True, check=False)
    assert (done.returncode, done.stdout.count("Unavailable")) == (0, 4), done.stdout + done.stderr


def test_the_exit_codes_are_in_the_help():
    """A script's author finds them where one looks first."""
    text = invoke("--help").stdout
    for code, meaning in EXIT_CODES.items():
        assert f"{code}  {meaning}" in text


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("get", "--json"), "Missing argument 'KEY'"),
        (("get", "k", "--json", "--nonsense"), "No such option"),
        (("get", "k", "--json", "--timeout", "soon"), "'soon' is not a valid float"),
        (("get", "k", "--json", "-a", "nowhere"), "nowhere"),
        (("member", "nonsense", "--json"), "No such command 'nonsense'"),
        (("serve", "--log-json", "--nonsense"), "No such option"),
    ],
)
def test_wrong_usage_is_json_where_json_was_asked_for(words, said):
    """A program reads one document, whatever went wrong; people get the usage as ever."""
    result = invoke(*words)
    assert result.exit_code == 2
    value = error_of(result)
    assert value["error"] == "UsageError" and said in value["message"]
    assert not result.stderr
    for_people = invoke(*[word for word in words if not word.endswith("json")])
    assert for_people.exit_code == 2 and "Usage:" in for_people.stderr


@pytest.mark.parametrize("how", ["flag", "environment"])
def test_a_setting_that_is_wrong_is_json_where_the_log_is(how):
    """The last error of a node's process is part of its log."""
    words = ("serve", "--node-id", "x")
    result = invoke(*words, "--log-json") if how == "flag" else invoke(*words, env={"RAFTKV_LOG_JSON": "true"})
    assert result.exit_code == 2
    (line,) = result.stderr.splitlines()
    value = json.loads(line)
    assert (value["event"], value["level"]) == ("process_ended", "error") and "node_id = 'x'" in value["reason"]


def test_what_only_looks_like_json_changes_nothing():
    """Help is help, and a word behind `--` is no option."""
    assert invoke("get", "--json", "--help").exit_code == 0
    assert "Usage:" in invoke("get", "--timeout", "soon", "--", "--json").stderr


@pytest.mark.parametrize("path", ALL, ids=" ".join)
def test_every_command_prints_json_to_who_asks_for_it(path):
    """A script need not know which ones do. A node prints no document, but a log: of lines of JSON, if asked."""
    command = ALL[path]
    if not isinstance(command, click.Group):
        options = {name for parameter in command.params for name in parameter.opts}
        assert ("--log-json" if path == ("serve",) else "--json") in options


@pytest.mark.parametrize(
    "words",
    [
        ("monitoring", "systemd", "--program", "/bin/raftkv"),
        ("monitoring", "prometheus", "10.0.0.1:9100"),
        ("monitoring", "alerts"),
        ("completion", "zsh"),
    ],
    ids=" ".join,
)
def test_a_file_that_is_printed_is_the_text_of_a_document(words):
    """To the letter; errors are JSON as well."""
    assert value_of(invoke(*words, "--json")) == {"text": invoke(*words).stdout}
    assert error_of(invoke(*words, "--json", "--nonsense"))["error"] == "UsageError"


def test_what_is_json_anyway_is_one_document_a_line_with_json():
    """The dashboard is the same; the names of the schemas are a list; a schema has always been one."""
    (line,) = invoke("monitoring", "grafana", "--json").stdout.splitlines()
    assert json.loads(line) == json.loads(invoke("monitoring", "grafana").stdout)
    assert value_of(invoke("schema", "--json")) == invoke("schema").stdout.splitlines()
    assert invoke("schema", "status", "--json").stdout == invoke("schema", "status").stdout


def test_the_data_commands_share_their_options():
    """Address, deadline and JSON are said in one way everywhere."""
    local = {("serve",), ("demo",), ("replay",), ("check",), ("completion",), ("log", "inspect")}
    local |= {("snapshot", "list"), ("snapshot", "verify"), ("member", "rewrite"), ("stubs",)}
    local |= {("schema",), ("backup", "verify"), ("backup", "show"), ("restore",), ("recover",)}
    for path, command in ALL.items():
        if isinstance(command, click.Group) or path in local or path[0] == "monitoring":
            continue
        options = {name for parameter in command.params for name in parameter.opts}
        assert {"--address", "-a", "--timeout", "--json", "--tls-ca"} <= options, path


@pytest.mark.parametrize("name", ["call", "tables", "watch"])
def test_the_help_says_how_bytes_are_printed(name):
    """Whoever takes base64 for the text itself would store it."""
    assert "in base64" in " ".join(invoke(name, "--help").stdout.split())


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_a_completion_script_is_one_for_its_shell(shell):
    """The script calls back into raftkv, and the shell itself finds no fault with it."""
    result = invoke("completion", shell)
    assert result.exit_code == 0
    assert f"_RAFTKV_COMPLETE={shell}_complete" in result.stdout
    program = shutil.which(shell)
    if program is None:
        pytest.skip(f"there is no {shell} here to check its syntax")
    checked = subprocess.run([program, "-n"], input=result.stdout, text=True, capture_output=True, check=False)
    assert checked.returncode == 0, checked.stderr


def test_an_unknown_shell_is_refused():
    """The error names those that there are."""
    result = invoke("completion", "tcsh")
    assert result.exit_code == 2
    assert "bash" in result.stderr


@pytest.mark.parametrize(
    ("words", "begun", "expected"),
    [([], "sn", "snapshot"), (["member"], "pro", "promote"), (["serve"], "--peer", "--peer-listen")],
)
def test_words_are_completed(words, begun, expected):
    """What a shell would offer for a word that was begun."""
    completer = ShellComplete(main, {}, "raftkv", "_RAFTKV_COMPLETE")
    assert expected in [item.value for item in completer.get_completions(words, begun)]
