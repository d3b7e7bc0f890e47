"""Settings that change while a node runs: what may, what is kept, what wins at a start, and that parts heed them."""

from __future__ import annotations

import msgspec
import pytest

from raftkv.config import LIVE, Config
from raftkv.disk.simulated import SimDisk
from raftkv.errors import Corruption, InvalidArgument, WrongDataDir
from raftkv.log import Identity
from raftkv.node.live import LiveSettings, load_settings, save_settings
from tests.logged import capture_logs

OWNER = Identity("c", 1, "i")


def live(kept=None, given=None, **base):
    """A node's settings at its start."""
    return LiveSettings(Config(**base), given or {}, kept or {}, lambda: OWNER)


def change(settings, **values):
    """Change them, as an order does."""
    settings.take(*settings.changed(values), values)


def one(settings, name):
    """A setting's value and where it is from."""
    (found,) = [each for each in settings.all() if each.name == name]
    return found.value, found.source


def test_each_that_may_change_is_a_setting_and_none_that_nodes_must_agree_on():
    """What the core calculates with, and what decides how entries are applied, is given at a start only."""
    assert set(LIVE) <= {field.name for field in msgspec.structs.fields(Config)} and len(set(LIVE)) == len(LIVE)
    before = Config()
    for name in LIVE:
        value = not before.auto_upgrade if name == "auto_upgrade" else getattr(before, name) + 1
        config, _ = live().changed({name: value})
        assert getattr(config, name) == value
        assert config.raft() == before.raft(), name
    assert not {name for name in LIVE if name.startswith(("session", "command", "election", "heartbeat", "query"))}


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({"nonsense": 1}, "nonsense: no such setting; those that may change are snapshot_log_bytes, "),
        ({"nonsense": None}, "nonsense: no such setting"),
        ({"tick_ms": 20}, "tick_ms can't change while a node runs: give it to raftkv serve"),
        ({"snapshot_entries": 0}, "snapshot_entries = 0: must be a whole number"),
        ({"snapshot_entries": True}, "snapshot_entries = True: must be a whole number"),
        ({"snapshot_interval_s": float("nan")}, "snapshot_interval_s = nan"),
        ({"auto_upgrade": 1}, "auto_upgrade = 1: must be true or false"),
        ({"keep_bytes": 5, "snapshots_kept": 0}, "snapshots_kept = 0"),
    ],
)
def test_what_is_not_allowed_changes_nothing(values, said):
    """The text says what is; of several values all count, or none."""
    settings = live()
    with pytest.raises(InvalidArgument, match=said):
        settings.changed(values)
    assert (settings.config, settings.kept) == (Config(), {})


def test_a_change_counts_over_the_start_until_it_is_taken_back():
    """And each value says where it is from."""
    settings = live(given={"keep_bytes": "--set"}, keep_bytes=7, snapshots_kept=5)
    assert one(settings, "keep_bytes") == (7, "--set")
    assert one(settings, "snapshots_kept") == (5, "the program")
    assert one(settings, "snapshot_entries") == (Config().snapshot_entries, "the default")
    change(settings, keep_bytes=8, snapshot_entries=100)
    assert one(settings, "keep_bytes") == (8, "set while it ran")
    assert one(settings, "snapshot_entries") == (100, "set while it ran")
    change(settings, keep_bytes=None, snapshot_entries=None)
    assert one(settings, "keep_bytes") == (7, "--set")
    assert one(settings, "snapshot_entries") == (Config().snapshot_entries, "the default")
    assert settings.kept == {}


def test_what_is_kept_counts_at_the_next_start_unless_that_says_something_else():
    """What a start says wins, and the log says what is not used; what is not known any more stops nobody."""
    settings = live()
    change(settings, keep_bytes=8, snapshot_entries=100)
    assert live(settings.kept).config == Config(keep_bytes=8, snapshot_entries=100)
    with capture_logs() as events:
        again = live({**settings.kept, "gone": 1, "snapshots_kept": 0}, {"keep_bytes": "--set"}, keep_bytes=7)
    assert one(again, "keep_bytes") == (7, "--set") and one(again, "snapshot_entries") == (100, "set while it ran")
    assert again.config == Config(keep_bytes=7, snapshot_entries=100)
    assert [(event["event"], event["name"]) for event in events] == [
        ("setting_not_used", "gone"),
        ("setting_not_used", "keep_bytes"),
        ("setting_not_used", "snapshots_kept"),
    ]
    assert again.kept["keep_bytes"] == 8, "it counts again when the start says nothing any more"


def test_the_file_is_its_directorys_own():
    """Saved through a crash, refused from another directory or damaged, with what to do."""
    disk = SimDisk()
    assert load_settings(disk, "settings", OWNER) == {}
    save_settings(disk, "settings", OWNER, {"keep_bytes": 8, "auto_upgrade": False, "snapshot_interval_s": 1.5})
    disk.crash()
    found = load_settings(disk, "settings", OWNER)
    assert found == {"keep_bytes": 8, "auto_upgrade": False, "snapshot_interval_s": 1.5}
    assert [type(value) for value in found.values()] == [int, bool, float]
    with pytest.raises(WrongDataDir, match="Remove that file, and give the order again"):
        load_settings(disk, "settings", Identity("c", 2, "other"))
    content = bytearray(disk.read_bytes("settings"))
    content[-1] ^= 1
    disk.write_atomic("settings", bytes(content))
    with pytest.raises(Corruption, match="Remove that file, and give the order again"):
        load_settings(disk, "settings", OWNER)
