"""Every byte, sector, length and file of a small log, damaged in turn."""

from __future__ import annotations

import pytest

from raftkv.disk.simulated import SECTOR_BYTES, SimDisk
from raftkv.errors import Corruption, FormatError
from raftkv.log import Log
from raftkv.model import HardState, LogStart
from tests.campaign.large import IS_LARGE
from tests.log.logs import DIRECTORY, IDENTITY, SEGMENT_BYTES
from tests.log.workload import Workload

MANIFEST = f"{DIRECTORY}/MANIFEST"

EVERY = 1 if IS_LARGE else 3
"""A plain run damages every third of the places, which is coprime to sizes of fields: each kind of them is met."""


def shorter(work):
    """The last write takes back more than it appends."""
    work.append([40] * 6)
    work.cast(HardState(3, 1))
    work.append([40, 40], cut=work.state.last.index - 4)


def only_cut(work):
    """The last write takes something back, and appends nothing."""
    work.append([40] * 6)
    work.append(cut=work.state.last.index - 2)


def plain(work):
    """The last write appends."""
    work.append([40] * 3)
    work.append([40, 100])


def rolled(work):
    """The last write is alone in the last segment."""
    work.append([40])
    work.append([1_900])


def lone(work):
    """The last write replaces, in a new segment, an end that is longer."""
    work.append([40] * 6)
    work.cast(HardState(3, 1))
    work.append([1_900], cut=work.state.last.index - 3)


ENDINGS = [shorter, only_cut, plain, rolled, lone]


class Written:
    """A log that was written, its disk, and what it held before and after its last write."""

    def __init__(self, ending, *, is_closed):
        work = Workload(SimDisk())
        work.open()
        work.cast(HardState(1, 1))
        for sizes in ([400, 600], [40], [700], [600], [600]):
            work.append(sizes)
        work.cast(HardState(2, 1))
        work.append([300, 300], cut=5)
        work.compact(3)
        states = {}
        write = work.log.write

        def noted(writes):
            cut = writes[0].truncate_from or work.state.last.index + 1
            # Where a new segment begins, a truncation comes first, alone.
            states["before"] = [(work.log.start, [*state.entries]) for state in (work.state, work.state.cut(cut))]
            states["image"] = work.disk.image()
            write(writes)

        work.log.write = noted
        ending(work)
        work.log.write = write
        self.without_last = states["before"]
        self.before_last = states["image"]
        self.whole = (work.log.start, [*work.state.entries])
        self.durable_index = work.log.durable_index if is_closed else 0
        if is_closed:
            work.close()
        self.disk = work.disk.copy()
        self.image = self.disk.image()
        self.files = [f"{DIRECTORY}/{name}" for name in self.disk.listdir(DIRECTORY)]
        self.segments = [path for path in self.files if path != MANIFEST]
        assert len(self.segments) >= 2
        assert self.whole[0].index > 0

    def last_write(self):
        """Where the last write is: its file, and the first and the last offset that it changed."""
        path = self.segments[-1]
        before, after = self.before_last.get(path, b""), self.image[path]
        if path not in self.before_last:
            return path, 0, len(after.rstrip(b"\0"))
        before = before.ljust(len(after), b"\0")
        changed = [at for at in range(len(after)) if before[at] != after[at]]
        return path, changed[0], changed[-1] + 1

    def open(self, disk):
        """What a log on `disk` holds; None when it is refused, and then nothing was changed and the text helps."""
        entries, starts = [], []
        before = disk.image()
        try:
            log = Log.open(
                disk,
                DIRECTORY,
                owner=IDENTITY,
                segment_bytes=SEGMENT_BYTES,
                cache_bytes=10**6,
                durable_index=self.durable_index,
                on_start=starts.append,
                on_entries=entries.extend,
            )
        except FormatError as exc:
            assert "this raftkv reads version" in str(exc)
        except Corruption as exc:
            assert "remove it from the cluster and add it again under a new id" in str(exc)
        else:
            log.close()
            return log.start, entries
        assert disk.image() == before, "what is damaged was changed before anybody could look at it"
        return None


@pytest.fixture(scope="module", params=ENDINGS, ids=[ending.__name__ for ending in ENDINGS])
def closed(request):
    """A log that was closed in good order."""
    return Written(request.param, is_closed=True)


@pytest.fixture(scope="module", params=ENDINGS, ids=[ending.__name__ for ending in ENDINGS])
def unclean(request):
    """A log that nobody closed, and of whose entries the vote file knows nothing."""
    return Written(request.param, is_closed=False)


def flips(written):
    """Each byte of each file, with one bit changed, and where. Of zeros that follow, one in a while."""
    for path, data in written.image.items():
        if path not in written.files:
            continue
        used = len(data.rstrip(b"\0"))
        for at in [*range(0, used, EVERY), *range(used, len(data), 41 * EVERY)]:
            disk = written.disk.copy()
            disk.flip(path, at, (at * 5 + at // 8) % 8)
            yield path, at, disk


def test_each_flipped_byte_after_a_clean_end(closed):
    """It is refused, or the log is what was written; never one entry more, less or other (F9, F19)."""
    refused = dict.fromkeys(closed.files, 0)
    for path, at, disk in flips(closed):
        found = closed.open(disk)
        assert found in (None, closed.whole), f"byte {at} of {path}"
        refused[path] += found is None
    assert all(count > 30 // EVERY for count in refused.values()), refused


def test_each_flipped_byte_after_an_unclean_end(unclean):
    """Damage to the last write looks torn, and may take it back; all other damage is refused (F8, F9)."""
    last_path, first, end = unclean.last_write()
    taken_back = 0
    for path, at, disk in flips(unclean):
        found = unclean.open(disk)
        if path == last_path and first <= at < end and found in unclean.without_last:
            taken_back += 1
        else:
            assert found in (None, unclean.whole), f"byte {at} of {path}"
    assert taken_back > 40 // EVERY


def zeroed(written):
    """Each sector of each file as zeros, and where."""
    for path in written.files:
        for at in range(0, len(written.image[path]), SECTOR_BYTES):
            disk = written.disk.copy()
            disk.overwrite(path, at, bytes(min(SECTOR_BYTES, len(written.image[path]) - at)))
            yield path, at, disk


def test_each_zeroed_sector_after_a_clean_end(closed):
    """As a disk leaves it that lost a write, or remapped a sector: refused, or harmless (F9, F19)."""
    found = [closed.open(disk) for _, _, disk in zeroed(closed)]
    assert all(state in (None, closed.whole) for state in found)
    assert found.count(None) > 5


def test_each_zeroed_sector_after_an_unclean_end(unclean):
    """Only the last write, and what shares its first sector, may be taken for torn (F8, F9, F19)."""
    last_path, first, end = unclean.last_write()
    for path, at, disk in zeroed(unclean):
        found = unclean.open(disk)
        if path != last_path or at >= end or at + SECTOR_BYTES <= first:
            assert found in (None, unclean.whole), f"sector at {at} of {path}"
        elif at >= first - SECTOR_BYTES and found is not None:
            assert found in (unclean.whole, *unclean.without_last) or is_prefix(found, unclean.without_last[0])


def is_prefix(found, whole):
    """Whether `found` is how `whole` begins."""
    return found[0] == whole[0] and found[1] == whole[1][: len(found[1])]


def test_each_cut_after_a_clean_end(closed):
    """A file of any smaller length is refused, unless only zeros are missing (F8, F11)."""
    for path in closed.files:
        for size in range(0, len(closed.image[path]), 3 * EVERY):
            disk = closed.disk.copy()
            disk.open(path).truncate(size)
            found = closed.open(disk)
            is_harmless = not any(closed.image[path][size:])
            assert found == (closed.whole if is_harmless else None), f"{path} cut to {size}"


def test_each_cut_after_an_unclean_end(unclean):
    """A cut within the last write takes that back; one before it goes unseen in the last segment only (F8, F11)."""
    last_path, first, _ = unclean.last_write()
    for path in unclean.files:
        for size in range(0, len(unclean.image[path]), 3 * EVERY):
            disk = unclean.disk.copy()
            disk.open(path).truncate(size)
            found = unclean.open(disk)
            if not any(unclean.image[path][size:]):
                assert found == unclean.whole
            elif path == last_path and size >= SECTOR_BYTES:
                if size >= first:
                    assert found in unclean.without_last
                elif found is not None:
                    assert is_prefix(found, unclean.without_last[0])
            else:
                assert found is None, f"{path} cut to {size}"


def test_each_missing_file(closed, unclean):
    """No file is missing without a word, and a log without a manifest is not taken for a new one (F11)."""
    for written in (closed, unclean):
        for path in written.files:
            disk = written.disk.copy()
            disk.remove(path)
            assert written.open(disk) is None, path
    for path in closed.segments:
        disk = closed.disk.copy()
        for name in (path, MANIFEST):
            disk.remove(name)
        assert closed.open(disk) is None
    disk = closed.disk.copy()
    disk.remove_tree(DIRECTORY)
    assert closed.open(disk) is None, "the vote file remembers that there was something"


def test_files_in_each_others_place(closed, unclean):
    """Swapped or copied, the number within the file tells (F19)."""
    for written in (closed, unclean):
        for path in written.files:
            for other in written.files:
                if path == other:
                    continue
                disk = written.disk.copy()
                disk.open(path).truncate(0)
                disk.overwrite(path, 0, written.image[other])
                assert written.open(disk) is None, f"{other} copied over {path}"
                disk.open(other).truncate(0)
                disk.overwrite(other, 0, written.image[path])
                assert written.open(disk) is None, f"{other} and {path} swapped"


def test_each_piece_in_another_place(closed):
    """A misdirected write: a sector's content, written over each other one (F19)."""
    pieces = [
        (path, at, closed.image[path][at : at + SECTOR_BYTES])
        for path in closed.segments
        for at in range(0, len(closed.image[path]), SECTOR_BYTES)
    ]
    for _, _, piece in pieces[::3]:
        for path, at, old in pieces:
            disk = closed.disk.copy()
            disk.overwrite(path, at, piece[: len(old)])
            assert closed.open(disk) in (None, closed.whole)


def test_an_older_copy_of_each_file(closed):
    """Put back from before the last write: it is missed, whatever it would have brought back (F19, F21)."""
    for path in closed.files:
        disk = closed.disk.copy()
        if path not in closed.before_last:
            continue
        disk.open(path).truncate(0)
        disk.overwrite(path, 0, closed.before_last[path])
        found = closed.open(disk)
        if path == closed.last_write()[0]:
            assert found is None
        assert found in (None, closed.whole)


def test_an_older_manifest_after_an_unclean_end():
    """It does not name the last segment: that is not taken for a leftover, as it has entries (F19)."""
    written = Written(rolled, is_closed=False)
    disk = written.disk.copy()
    disk.open(MANIFEST).truncate(0)
    disk.overwrite(MANIFEST, 0, written.before_last[MANIFEST])
    with pytest.raises(Corruption, match=r"MANIFEST is an old one: it ends with segment \d+, but \d+ has entries too"):
        Log.open(disk, DIRECTORY, owner=IDENTITY, segment_bytes=SEGMENT_BYTES, cache_bytes=0, durable_index=0)
    assert written.segments[-1] in disk.image()


def test_a_log_of_another_node():
    """A segment of the same number behind another entry does not continue this log (F19, F21)."""
    first = Written(plain, is_closed=False)
    other = Workload(SimDisk())
    other.open()
    other.cast(HardState(7, 1))
    other.reset(LogStart(first.whole[0].index, 1, 99, 9))
    while other.disk.listdir(DIRECTORY)[-2] < first.segments[-1].rpartition("/")[2]:
        other.append([900])
    name = first.segments[-1]
    assert name in other.disk.image()
    disk = first.disk.copy()
    disk.open(name).truncate(0)
    disk.overwrite(name, 0, other.disk.image()[name])
    assert first.open(disk) is None


def test_a_segment_that_is_still_empty_is_checked_too():
    """Without a batch, only its header can tell that it does not continue the log (F19, F21)."""
    disk = SimDisk()
    work = Workload(disk)
    work.open()
    work.append([900, 900])
    before = disk.image()

    def fault(kind, path):
        if kind == "write" and path.endswith("2.log") and disk.exists(path) and disk.size(path):
            raise KeyboardInterrupt  # the segment is there, its first batch is not

    disk.fault = fault
    with pytest.raises(KeyboardInterrupt):
        work.append([900])
    disk.fault = None
    path = next(path for path in disk.image() if path.endswith("2.log") and path not in before)
    Workload(disk.copy(), work.state).open()
    other = Workload(SimDisk())
    other.open()
    other.cast(HardState(7, 1))
    other.append([900, 900])
    other.append([900])
    disk.overwrite(path, 0, other.disk.image()[path][:SECTOR_BYTES])
    with pytest.raises(Corruption, match=r"2\.log does not continue the log"):
        Log.open(disk, DIRECTORY, owner=IDENTITY, segment_bytes=SEGMENT_BYTES, cache_bytes=0, durable_index=0)


@pytest.mark.parametrize("ending", [plain, rolled])
def test_what_the_vote_file_remembers(ending):
    """A log whose end looks torn has lost something if more of it had been durable (F7, F9, F19)."""
    written = Written(ending, is_closed=False)
    path, first, _ = written.last_write()
    disk = written.disk.copy()
    disk.open(path).truncate(max(first, SECTOR_BYTES))
    assert written.open(disk.copy()) in written.without_last
    written.durable_index = written.without_last[1][1][-1].index + 1
    assert written.open(disk) is None
    with pytest.raises(Corruption, match=rf"ends at entry \d+, but {written.durable_index} had been durable"):
        Log.open(
            disk,
            DIRECTORY,
            owner=IDENTITY,
            segment_bytes=SEGMENT_BYTES,
            cache_bytes=0,
            durable_index=written.durable_index,
        )
