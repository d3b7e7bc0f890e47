"""Where the failpoints stand: what a node that is killed there leaves on its disk is what the meaning of each says."""

from __future__ import annotations

import pytest

from raftkv import failpoints
from raftkv.disk.simulated import SimDisk
from raftkv.snapshot import Receipts
from raftkv.snapshot.verify import snapshot_name
from tests.snapshot.worlds import OWNER, Ends, contents, meta, open_store, publish


@pytest.fixture
def passed(monkeypatch):
    """Points that are passed, and what `look` gives at each; those of files that are replaced whole are left out."""
    found = []

    def reach(name):
        if not name.startswith("atomic") and passed.look is not None:
            found.append((name, passed.look()))
        return False

    def passed(look):
        found.clear()
        passed.look = look
        return found

    passed.look = None
    monkeypatch.setattr(failpoints, "reach", reach)
    return passed


def test_a_snapshot_is_published_between_its_points(passed):
    """It is a draft, gets its manifest, a receipt, and only then its name."""
    disk = SimDisk()
    store = open_store(disk, "/s")
    publish(store, meta(10), contents(1))
    name = snapshot_name(meta(20))

    def look():
        receipts = len(Receipts.open(disk, "/s.receipts", OWNER)._body.accepted)
        places = [place for place in disk.listdir("/s") if place != snapshot_name(meta(10))]
        (place,) = places
        return receipts, "named" if place == name else "draft", disk.exists(f"/s/{place}/MANIFEST")

    found = passed(look)
    publish(store, meta(20), contents(2))
    assert found == [
        ("snapshot.seal.before", (1, "draft", False)),
        ("snapshot.manifest.before", (1, "draft", False)),
        ("snapshot.manifest.after", (1, "draft", True)),
        ("receipts.before_save", (1, "draft", True)),
        ("receipts.after_save", (2, "draft", True)),
        ("snapshot.rename.before", (2, "draft", True)),
        ("snapshot.rename.after", (2, "named", True)),
        ("snapshot.published", (2, "named", True)),
    ]


def test_a_snapshot_is_pruned_between_its_points(passed):
    """It has lost its name, and all of its files are there."""
    disk = SimDisk()
    store = open_store(disk, "/s")
    for index in (10, 20):
        publish(store, meta(index), contents(index))
    found = passed(lambda: [len(disk.listdir(f"/s/{name}")) for name in disk.listdir("/s") if name.startswith("tmp")])
    store.prune(store.retire(1))
    assert found == [("snapshot.prune.renamed", [5])]


def test_a_snapshot_is_received_between_its_points(passed):
    """All has arrived; the files that are still open are synced and closed between the two."""
    ends = Ends()
    found = passed(lambda: len(ends.disk.open_files()))
    ends.channel().run()
    points = [each for each in found if each[0].endswith("_sync")]
    assert [name for name, _ in points] == ["receive.before_sync", "receive.after_sync"]
    assert points[0][1] > points[1][1] == 0
