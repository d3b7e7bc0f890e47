"""`raftkv backup --every`: made again and again, the oldest removed, never one that is not its own or not whole."""

from __future__ import annotations

import asyncio
from pathlib import Path

import msgspec
import pytest

from raftkv.cli.regularly import NAME, UNFINISHED, RegularBackups, name_of
from raftkv.client import Admin
from raftkv.disk import RealDisk
from raftkv.errors import InvalidArgument, Unavailable
from raftkv.snapshot.backup import TAIL_BYTES, SealedHead, check_backup


def run_until(directory: Path, address: str, count: int, *, keep: int = 2, fail: int = 0) -> list[str]:
    """Make backups, each as soon as the one before is there, until `count` were made; returns what was said."""
    said: list[str] = []

    async def story() -> None:
        stop, left = asyncio.Event(), fail

        def say(line: str) -> None:
            said.append(line)
            if sum(each.startswith("made") for each in said) >= count:
                stop.set()

        async with Admin([address]) as admin:

            async def make(path: str):
                nonlocal left
                if left:
                    left -= 1
                    raise Unavailable("no node answers")
                await admin.take_snapshot()
                return await admin.backup(path)

            await asyncio.wait_for(RegularBackups(str(directory), 0.01, keep, make, say).run(stop), 60)

    asyncio.run(story())
    return said


def whole(directory: Path) -> list[str]:
    """The backups that are there."""
    return sorted(each.name for each in directory.iterdir() if NAME.fullmatch(each.name))


def test_the_oldest_are_removed_and_all_that_stay_are_whole(run, one_node, tmp_path):
    """A failure in between is said, tried again, and costs no backup."""
    for number in range(2):
        run("put", "regular", str(number))
    said = run_until(tmp_path, one_node.member.client_address, 1, fail=1)
    assert said[0].startswith("FAILED") and said[1].startswith("made")
    for number in range(3):
        run("put", "regular", str(number))
        said += run_until(tmp_path, one_node.member.client_address, 1)
    names = whole(tmp_path)
    assert len(names) == 2
    assert sum(line.startswith("removed") for line in said) == 2
    indexes = [check_backup(RealDisk(), str(tmp_path / name)).snapshot.index for name in names]
    assert indexes == sorted(set(indexes))
    assert not (tmp_path / UNFINISHED).exists()


def test_a_node_whose_clock_is_ahead_does_not_make_the_newest(run, one_node, tmp_path):
    """Its backup, of the year 2096 as it says, is the older one all the same: the one just made stays."""
    path = tmp_path / UNFINISHED
    run("put", "ahead", "1")
    assert run("backup", str(path)).exit_code == 0
    sealed = check_backup(RealDisk(), str(path))
    content = path.read_bytes()[len(sealed.data) : -TAIL_BYTES]
    ahead = SealedHead.seal(msgspec.structs.replace(sealed.head, made_ms=4_000_000_000_000))
    path.write_bytes(ahead.data + content + ahead.tail)
    path.rename(tmp_path / name_of(ahead))
    run("put", "ahead", "2")
    plan = RegularBackups(str(tmp_path), 1, 1, None, print)
    assert run("backup", str(path)).exit_code == 0
    made = plan._accept(str(path))
    assert plan.prune(made.head.head.cluster_id) == [str(tmp_path / name_of(ahead))]
    assert whole(tmp_path) == [Path(made.path).name]


def test_one_that_is_removed_by_hand_meanwhile_does_not_end_it(run, one_node, tmp_path, monkeypatch):
    """Just before it would have been removed as the oldest: that is said, and the next one is made."""
    address = one_node.member.client_address
    run("put", "removed", "1")
    run_until(tmp_path, address, 1)
    (oldest,) = whole(tmp_path)
    remove, removed = RealDisk.remove, []

    def remove_after_somebody(disk: RealDisk, path: str) -> None:
        if not removed:
            removed.append(path)
            Path(path).unlink()
        remove(disk, path)

    monkeypatch.setattr(RealDisk, "remove", remove_after_somebody)
    run("put", "removed", "2")
    said = run_until(tmp_path, address, 1, keep=1)
    assert removed == [str(tmp_path / oldest)]
    assert said[0].startswith("FAILED") and oldest in said[0] and said[1].startswith("made")


def test_a_damaged_one_does_not_count_and_is_left_there(run, one_node, tmp_path):
    """With the newest of them damaged, an older one stays in its place; it is named once. Strangers stay, too."""
    address = one_node.member.client_address
    for number in range(2):
        run("put", "damaged", str(number))
        run_until(tmp_path, address, 1)
    first, second = whole(tmp_path)
    content = bytearray((tmp_path / second).read_bytes())
    content[-90] ^= 1
    (tmp_path / second).write_bytes(content)
    (tmp_path / "notes.txt").write_text("mine")
    run("put", "damaged", "x")
    said = run_until(tmp_path, address, 1)
    assert sum(line.startswith("DAMAGED") for line in said) == 1
    assert {first, second} <= set(whole(tmp_path)) and (tmp_path / "notes.txt").exists()


def test_one_that_was_made_and_not_named_is_taken_over(run, one_node, tmp_path):
    """As when the process was killed just then; a damaged one is moved away, and said."""
    run("put", "over", "1")
    path = tmp_path / UNFINISHED
    assert run("backup", str(path)).exit_code == 0
    run_until(tmp_path, one_node.member.client_address, 1)
    assert len(whole(tmp_path)) == 1 and not path.exists()
    path.write_bytes(b"nonsense")
    said = run_until(tmp_path, one_node.member.client_address, 1)
    assert said[0].startswith("FAILED") and Path(f"{path}.damaged").exists()


def test_what_makes_no_sense_is_refused(run, tmp_path):
    """No directory, one option without the other, nothing to keep."""
    assert run("backup", str(tmp_path / "none"), "--every", "1h", "--keep", "2").exit_code == 2
    assert run("backup", str(tmp_path), "--every", "1h").exit_code == 2
    assert run("backup", str(tmp_path), "--every", "1h", "--keep", "0").exit_code == 2
    with pytest.raises(InvalidArgument):
        RegularBackups(str(tmp_path), 0, 1, None, print)
