"""What a terminal shows of long commands, and what each of them says after Ctrl-C or SIGTERM."""

from __future__ import annotations

import fcntl
import io
import json
import os
import pty
import re
import select
import signal
import struct
import subprocess
import sys
import termios
import time
from collections.abc import Callable, Iterator

import pytest
from rich.console import Console

from raftkv.cli import common, progress
from raftkv.cli.bulk import BATCH_KEYS, Tally, part_of
from raftkv.cli.output import EXIT_CODES
from raftkv.cli.progress import INTERRUPTED, TERMINATED, Stand, bar, reading_shown
from raftkv.cli.upgrading import pieces_done
from raftkv.cli.watched import WatchedDisk, bytes_in
from raftkv.doctor import ClusterView
from raftkv.kv import BlockingKeyValueClient
from raftkv.node.status import UpgradeStatus
from raftkv.processes.cluster import NodeProcess, import_path
from tests.cli.commands import invoke, printed, when_led
from tests.cli.test_view import status_of
from tests.forked import ForkedCluster
from tests.waiting import until

CLUSTER = [
    (("member", "add", "4=a:1/b:1"), "node 4 may still be added, if the leader was asked: .* member remove 4 takes it"),
    (("member", "update", "4=a:1/b:1"), "its addresses may still be changed, if the leader was asked"),
    (("member", "promote", "4"), "node 4 still gets its vote if it catches up within 600 s, if the leader was asked"),
    (("member", "remove", "4"), "node 4 may still be removed, for good, if the leader was asked"),
    (("transfer", "2"), "leadership may still go over"),
    (("replace", "2=4@a:1/b:1"), "nothing was changed yet; the same command goes on from here"),
    (
        ("snapshot", "take"),
        "a node that has begun takes its snapshot all the same, others are not asked; done .*none",
    ),
    (("upgrade",), "once it has begun, the upgrade goes on to its end"),
    (("backup", "DIR/a.backup"), "what was copied is in DIR/a.backup.part, and the same command goes on from there"),
    (("export", "DIR/a.jsonl"), "what was exported stays in the file; the cluster is as it was"),
    (("import", "DIR/there"), "what was set stays; the batch that was under way may be set, too"),
    (("delete", "--prefix", "a"), "what was deleted stays deleted; the step that was under way may be done, too"),
    (("count",), "nothing was changed"),
    (("put", "a", "1"), "if a node was asked already, it may do it all the same"),
]


@pytest.mark.parametrize(("words", "said"), CLUSTER, ids=[" ".join(words) for words, _ in CLUSTER])
def test_a_command_that_talks_to_a_cluster_says_what_goes_on_without_it(words, said, tmp_path, monkeypatch):
    """A node does what it was asked for whether anybody waits or not; that is said, and the exit code is a shell's."""
    (tmp_path / "there").write_text("")

    def run(work):
        work.close()
        raise KeyboardInterrupt

    monkeypatch.setattr(common.asyncio, "run", run)
    result = invoke(*(word.replace("DIR", str(tmp_path)) for word in words), "--json")
    assert_interrupted(result, said.replace("DIR", str(tmp_path)))


def assert_interrupted(result, said: str) -> None:
    """It ended by Ctrl-C and says this of it, as JSON."""
    assert result.exit_code == INTERRUPTED == 130 and INTERRUPTED in EXIT_CODES, result.output
    value = printed(result)
    assert value["error"] == "Interrupted"
    assert re.search(said, value["message"]), value["message"]


OFFLINE = [
    ("raftkv.cli.restoring.restore", ("restore", "a.backup"), "there is nothing in DIR/new; what was begun beside it"),
    (
        "raftkv.cli.backups.check_backup",
        ("backup", "verify", "DIR/there"),
        "DIR/there is as it was, and nothing is known",
    ),
    ("raftkv.cli.snapshots.verify_directory", ("snapshot", "verify", "DIR"), "DIR is as it was, and nothing is known"),
    ("raftkv.cli.logfiles.inspect_log", ("log", "inspect", "DIR"), "DIR is as it was, and nothing is known"),
    ("raftkv.cli.recovering.look_at", ("recover", "--compare", "DIR", "DIR"), "no node's data was changed"),
    ("raftkv.cli.recovering.look_at", ("recover", "DIR"), "no node's data was changed"),
    ("raftkv.cli.check._read", ("check", "DIR/there"), "DIR/there is as it was, and there is no verdict"),
    ("raftkv.cli.doctor.examine", ("doctor", "DIR"), "nothing was changed"),
]


@pytest.mark.parametrize(("step", "words", "said"), OFFLINE, ids=[" ".join(words) for _, words, _ in OFFLINE])
def test_a_command_on_files_says_what_it_leaves_behind(step, words, said, tmp_path, monkeypatch):
    """Nothing is changed by those that look; a restore is all or nothing."""
    (tmp_path / "there").write_text("")

    def stop(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr(step, stop)
    if words[0] == "restore":
        monkeypatch.setattr("raftkv.cli.restoring.read_head", lambda *_: None)
        more = ["--data-dir", str(tmp_path / "new"), "--id", "1", "--member", "1=a:1/b:1", "--cluster-name", "n"]
        words = (*words, *more)
    result = invoke(*(word.replace("DIR", str(tmp_path)) for word in words), "--json")
    assert_interrupted(result, said.replace("DIR", str(tmp_path)))


def test_any_other_command_ends_alike(monkeypatch):
    """Without words of its own, as text and as JSON."""

    def stop(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr("raftkv.cli.schema.printed_schema", stop)
    result = invoke("schema", "status")
    assert (result.exit_code, result.stdout) == (130, "")
    assert "interrupted: nothing more is done" in result.stderr


def shown_of(stands: list[Stand], *, is_terminal: bool) -> str:
    """What a bar shows of these, a second apart."""
    out = io.StringIO()
    with bar("begun", Console(file=out, force_terminal=is_terminal, width=200)) as found:
        for stand in stands:
            found.show(stand)
    return out.getvalue()


def test_a_bar_has_rate_and_time_left_on_a_terminal_only(monkeypatch):
    """In a pipe there is nothing of it."""
    ticking = iter(range(100))
    monkeypatch.setattr(progress, "monotonic", lambda: float(2 * next(ticking)))
    stands = [Stand("a", 0, 100 << 20, True), Stand("a", 20 << 20, 100 << 20, True)]
    assert shown_of(stands, is_terminal=False) == ""
    assert "a: 20 % of 100.0 MiB, 10.0 MiB/s, 8.0 s left" in shown_of(stands, is_terminal=True)


def test_what_nobody_has_counted_has_a_rate_only():
    """Keys of a range that just begins, pieces of an upgrade."""
    pace = progress.Pace()
    assert pace.describe(Stand("exported", 0, None, unit="keys"), 0) == "exported: 0 keys"
    assert pace.describe(Stand("exported", 500, None, unit="keys"), 2) == "exported: 500 keys, 250 keys/s"
    view = ClusterView([status_of(1, versions=UpgradeStatus(2, 1, 2, ("fill",), 7))], [])
    assert pieces_done(view) == Stand("upgrading to version 2 (fill)", 7, None, unit="pieces")
    assert pieces_done(ClusterView([status_of(1, versions=UpgradeStatus(2, 1, 2))], [])) is None


@pytest.mark.parametrize(
    ("first", "last", "at", "part"),
    [
        (b"k/0000", b"k/0999", b"k/0499", 0.5),
        (b"a", b"a", b"a", 1.0),
        (b"a", b"c", b"b", 0.5),
        (b"a", b"c", b"z", 1.0),
        (b"b", b"c", b"a", 0.0),
        (b"", b"\xff", b"\x7f\x80", 0.5),
    ],
)
def test_how_far_a_key_lies_between_two_others(first, last, at, part):
    """By their bytes, as if all were in use: a guess, but one that is right at both ends."""
    assert part_of(first, last, at) == pytest.approx(part, abs=0.1)


def test_how_many_keys_are_expected_follows_from_where_the_last_one_lies():
    """Nothing is expected before something is known; never fewer than there were already."""
    tally = Tally()
    assert tally.expected is None
    tally.ends = b"k/000", b"k/999"
    tally.add(100, 1000, b"k/249")
    assert tally.expected == pytest.approx(400, rel=0.2)
    tally.add(1000, 1000, b"k/999")
    assert tally.expected == 1100


def test_reading_files_is_counted(tmp_path):
    """Of one file, or of all; no more is shown than there is."""
    for name in ("a", "b"):
        (tmp_path / name).write_bytes(b"x" * 10)
    read: list[int] = []
    disk = WatchedDisk(read.append, str(tmp_path / "a"))
    assert disk.read_bytes(str(tmp_path / "a")) + disk.read_bytes(str(tmp_path / "b")) == b"x" * 20
    assert sum(read) == 10
    assert (bytes_in(str(tmp_path)), bytes_in(str(tmp_path / "a")), bytes_in(str(tmp_path / "none"))) == (20, 10, 0)
    with reading_shown("reading", 10) as on_read:
        on_read(20)


@pytest.fixture(scope="module")
def filled(tmp_path_factory: pytest.TempPathFactory) -> Iterator[NodeProcess]:
    """A cluster of one with 4 MiB in it."""
    with ForkedCluster(tmp_path_factory.mktemp("filled"), 1) as cluster:
        cluster.start_all()
        node = cluster.nodes[1]
        when_led(node)
        with BlockingKeyValueClient(cluster.addresses) as kv:
            for number in range(16):
                kv.put(b"k/%d" % number, os.urandom(256 << 10))
        yield node


def on_terminal(words: list[str], seen: Callable[[str], bool]) -> tuple[str, str, int]:
    """Run a command whose stderr is a terminal, and press Ctrl-C once that shows something; both outputs, exit code."""
    ours, theirs = pty.openpty()
    environment = {**os.environ, "PYTHONPATH": import_path(), "TERM": "xterm", "COLUMNS": "200"}
    process = subprocess.Popen(
        [sys.executable, "-m", "raftkv", *words], env=environment, stdin=theirs, stdout=subprocess.PIPE, stderr=theirs
    )
    os.close(theirs)
    text, end, pressed = "", time.monotonic() + 20, False
    try:
        while time.monotonic() < end:
            ready, _, _ = select.select([ours], [], [], 0.2)
            try:
                text += os.read(ours, 65_536).decode("utf-8", "replace") if ready else ""
            except OSError:
                break  # the other end is closed
            if seen(text) and not pressed:
                process.send_signal(signal.SIGINT)
                pressed = True
        assert pressed, text
        out, _ = process.communicate(timeout=10)
        return text, out.decode(), process.returncode
    finally:
        os.close(ours)
        if process.poll() is None:
            process.kill()
            process.wait()


def test_a_backup_shows_how_far_it_is_and_can_be_gone_on_with_after_ctrl_c(filled, tmp_path):
    """On a real terminal: a part, a rate, the time left; then the words, and what was copied is there."""
    path = str(tmp_path / "a.backup")
    words = ["backup", path, "--rate-limit", "1MiB", "-a", filled.member.client_address]
    text, out, code = on_terminal(words, lambda text: "/s, " in text and " left" in text)
    assert code == 130 and out == "", text
    assert f"interrupted: what was copied is in {path}.part" in text.replace("\r\n", "")
    assert os.path.getsize(path + ".part") > 0
    again = invoke(*words[:2], *words[4:], "--json")
    assert again.exit_code == 0 and json.loads(again.stdout)["resumed_bytes"] > 0


def test_an_import_says_behind_which_key_it_goes_on_after_ctrl_c(filled, tmp_path):
    """On a real terminal: so much of the file, a rate, the time left; then what was set, and how to go on."""
    path = str(tmp_path / "many.jsonl")
    with open(path, "w") as file:
        file.writelines(json.dumps({"key": f"i/{number:06}", "value": "x" * 200}) + "\n" for number in range(50_000))
    words = ["import", path, "-a", filled.member.client_address]
    text, out, code = on_terminal(words, lambda text: "imported: " in text and " left" in text)
    assert code == 130 and out == "", text
    assert "interrupted: what was set stays; the batch that was under way may be set, too" in text.replace("\r\n", "")
    (after,) = re.findall(r"keys were done\. Go on with --after ([0-9a-f]+)", text.replace("\r\n", ""))
    assert bytes.fromhex(after).startswith(b"i/0")


@pytest.mark.parametrize("words", [("export", "-"), ("import", "-")], ids=["export", "import"])
def test_a_pipe_that_stands_still_does_not_hold_ctrl_c_up(words, filled):
    """Nobody takes what is exported, or nobody says what else is to be imported; what was done is said all the same."""
    process = subprocess.Popen(
        [sys.executable, "-m", "raftkv", *words, "-a", filled.member.client_address],
        env={**os.environ, "PYTHONPATH": import_path()},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    try:
        if words[0] == "import":
            records = (json.dumps({"key": f"p/{number:03}", "value": "x"}) + "\n" for number in range(BATCH_KEYS + 1))
            process.stdin.write("".join(records).encode())
            process.stdin.flush()
            with BlockingKeyValueClient([filled.member.client_address]) as kv:
                until(lambda: kv.get(b"p/%03d" % (BATCH_KEYS - 1)) is not None, "the first batch is set")
        else:
            until(lambda: waiting_in(process.stdout) >= 1 << 16, "the pipe is full")
        process.send_signal(signal.SIGINT)
        code, said = process.wait(10), process.stderr.read().decode()
    finally:
        process.kill()
        process.communicate()
    assert code == 130, said
    done = f"{BATCH_KEYS} keys were done. Go on with --after" if words[0] == "import" else "0 keys were done"
    assert done in said and "interrupted: what was" in said


def test_ctrl_c_before_a_command_has_begun_ends_it_in_words_too():
    """Its modules take a moment to be read; a stack of imports says nothing to anybody."""
    program = """
import sys
class Interrupting:
    def find_spec(self, name, *_):
        if name == "raftkv.cli.app":
            raise KeyboardInterrupt
sys.meta_path.insert(0, Interrupting())
from raftkv.cli import main
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (INTERRUPTED, "")
    assert done.stderr == "interrupted: nothing was begun\n"


@pytest.mark.parametrize("is_ignored", [False, True], ids=["shown", "in-background"])
def test_sigterm_ends_a_command_as_ctrl_c_does(is_ignored, filled):
    """`timeout` and supervisors send it: what was done is said all the same, and how to go on. A shell has programs in
    the background ignore Ctrl-C; they hear of this signal alone."""
    process = subprocess.Popen(
        [sys.executable, "-m", "raftkv", "import", "-", "-a", filled.member.client_address],
        env={**os.environ, "PYTHONPATH": import_path()},
        stdin=subprocess.PIPE,
        stderr=subprocess.PIPE,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_IGN if is_ignored else signal.SIG_DFL),
    )
    key = f"t/{is_ignored}/"
    try:
        records = (json.dumps({"key": f"{key}{number:03}", "value": "x"}) + "\n" for number in range(BATCH_KEYS + 1))
        process.stdin.write("".join(records).encode())
        process.stdin.flush()
        with BlockingKeyValueClient([filled.member.client_address]) as kv:
            until(lambda: kv.get(f"{key}{BATCH_KEYS - 1:03}".encode()) is not None, "the first batch is set")
        process.send_signal(signal.SIGTERM)
        code, said = process.wait(10), process.stderr.read().decode()
    finally:
        process.kill()
        process.communicate()
    assert code == TERMINATED == 143 and TERMINATED in EXIT_CODES, said
    assert f"{BATCH_KEYS} keys were done. Go on with --after" in said and "interrupted: what was set stays" in said
    assert "Traceback" not in said


def waiting_in(pipe) -> int:
    """How many bytes nobody has read yet."""
    return struct.unpack("i", fcntl.ioctl(pipe, termios.FIONREAD, b"\0" * 4))[0]
