"""Damage on a real disk under a real node: found while it runs, and shown to whoever asks how it is (F9, F61, F70)."""

from __future__ import annotations

from pathlib import Path

from raftkv.client import Admin
from raftkv.kv import KeyValueClient
from tests.chaos.stage import ChaosStage
from tests.forked import ForkedCluster
from tests.integration.nodes import start, tell


def harm_shared_file(place: Path) -> str:
    """Flip a bit in a file of the state that both snapshots have, too; its name."""
    files = place.glob("state/*.sst")
    path = next(path for path in files if len([*place.glob(f"snapshots/*/{path.name}")]) == 2)
    content = bytearray(path.read_bytes())
    content[100] ^= 1
    with path.open("r+b") as file:
        file.write(content)
    return path.name


def test_rot_in_all_snapshots_and_in_the_state_is_found_and_said(tmp_path: Path) -> None:
    """RocksDB's own files are shared by hard links, so both snapshots are damaged at once, and the state with them."""
    arguments = ["--set", "scrub_interval_s=0.1", "--set", "scrub_rate_bytes_s=64MiB"]
    with ForkedCluster(tmp_path, 1, arguments=arguments) as cluster:

        async def story(stage: ChaosStage) -> None:
            await stage.leader()

            async with KeyValueClient(cluster.addresses) as client, Admin(cluster.addresses) as admin:
                for turn in range(2):
                    await client.put(b"key-%d" % turn, b"x" * 5_000)
                    await admin.take_snapshot(30.0)
            name = harm_shared_file(Path(cluster.nodes[1].data_dir))
            problems = await stage.until(lambda: _problems(stage), "the damage being said")
            assert any(name in text and "--rebuild" in text for text in problems)
            assert sum("is not used" in text for text in problems) == 2

        tell(story(start(cluster, tmp_path)))


async def _problems(stage: ChaosStage) -> list[str] | None:
    status = await stage.status(1)
    return status.problems() if status is not None and status.damage_found >= 2 else None
