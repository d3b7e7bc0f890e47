"""The applied state in RocksDB, without its write-ahead log. The only module that knows rocksdict."""

from __future__ import annotations

import errno
import os
import shutil
import tempfile
import time
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager

import rocksdict

from raftkv import failpoints
from raftkv.disk.advice import AGAIN, advice, advice_in
from raftkv.errors import DataDirLocked, DiskError, DiskFull, NodeStopped, StateCorruption
from raftkv.state.gaps import Gap, Guideposts
from raftkv.state.interface import (
    META_KEY,
    OWNER_FILE,
    STEP_KEYS,
    Applied,
    Changes,
    States,
    StateView,
    Store,
    decode_meta,
    encode_meta,
)
from raftkv.state.ordered import OrderedKeys

_WRITE_BUFFER_BYTES = 32 << 20
_BLOCK_CACHE_BYTES = 64 << 20
_BLOCK_BYTES = 16 << 10
_BLOOM_BITS_PER_KEY = 10
_LOG_FILES_MAX = 2
_COMPACTION_POLL_S = 0.005
_DELETIONS_WINDOW, _DELETIONS_MANY, _DELETIONS_PART = 1_000, 500, 0.5
"""When `_DELETIONS_MANY` of `_DELETIONS_WINDOW` neighbours in a file are deletions, or `_DELETIONS_PART` of all its
entries, RocksDB rewrites it in the background: else every search for the next living key would go over all of them."""

_INCOMPLETE = "Result incomplete"
_NOT_FOUND = "key not found"
_IMMUTABLE = (".sst", ".blob")
_NOT_COPIED = ("LOCK", "LOG", "IDENTITY", OWNER_FILE)
"""Files of the open database that are not content; a copy has its own."""

_FREE_SPACE = f"free some space, {AGAIN}"

failpoints.declare(
    __name__,
    {
        "state.flush.before": "the state's newest changes are in memory only",
        "state.flush.after": "the state is flushed",
        "state.checkpoint.before_links": "the state was flushed for a snapshot",
        "state.checkpoint.between_links": "some of the state's files are in the snapshot's draft",
        "state.thaw.before": "a snapshot's files are complete, and the state's files still stand still",
    },
    raises=DiskError,
)


@contextmanager
def _translated(what: str, path: str) -> Iterator[None]:
    """RocksDB's errors are plain exceptions whose text begins with a kind; only here they become ours."""
    try:
        yield
    except (NodeStopped, RecursionError):
        raise  # the latter is the command's that reads, and not the database's
    except OSError as exc:
        if exc.errno in (errno.ENOSPC, errno.EDQUOT):
            raise DiskFull(f"{what} {path}: {exc}: {_FREE_SPACE}") from exc
        raise DiskError(f"{what} {path}: {exc}; {advice(exc.errno)}, {AGAIN}") from exc
    except Exception as exc:
        text = str(exc)
        message = f"{what} {path}: {text}"
        if "No space left" in text or "NoSpace" in text:
            raise DiskFull(f"{message}: {_FREE_SPACE}") from exc
        if "lock hold" in text or "While lock file" in text:
            raise DataDirLocked(f"{message}: another process uses it") from exc
        if text.startswith("IO error") and "No such file" not in text:
            raise DiskError(f"{message}; {advice_in(text)}, {AGAIN}") from exc
        raise StateCorruption(message) from exc


def _options() -> rocksdict.Options:
    """Passed at every opening: else rocksdict reads its own file of options, which it does not write atomically."""
    options = rocksdict.Options(raw_mode=True)
    options.create_if_missing(True)
    # With checks off, a database whose file is missing would open without an error.
    options.set_paranoid_checks(True)
    options.set_write_buffer_size(_WRITE_BUFFER_BYTES)
    options.set_max_background_jobs(2)
    options.set_compression_type(rocksdict.DBCompressionType.lz4())
    options.set_keep_log_file_num(_LOG_FILES_MAX)
    options.set_max_log_file_size(1 << 20)
    # Background writes are synced in small pieces, instead of one for which the log's syncs would have to wait.
    options.set_bytes_per_sync(1 << 20)
    options.add_compact_on_deletion_collector_factory(_DELETIONS_WINDOW, _DELETIONS_MANY, _DELETIONS_PART)
    table = rocksdict.BlockBasedOptions()
    table.set_block_cache(rocksdict.Cache(_BLOCK_CACHE_BYTES))
    table.set_block_size(_BLOCK_BYTES)
    table.set_bloom_filter(_BLOOM_BITS_PER_KEY, False)
    table.set_checksum_type(rocksdict.ChecksumType.xxh3())
    options.set_block_based_table_factory(table)
    return options


def _look(
    source: rocksdict.Rdict, directory: str, low: bytes, high: bytes, *, reverse: bool, whole: bool = False
) -> tuple[rocksdict.RdictIter, bool]:
    """An iterator at the first key from `low` on and below `high` (in reverse at the last, which may be below `low`),
    and whether it gave up: it does so after `STEP_KEYS` deleted keys, unless `whole`.

    Iterating holds the interpreter's lock all the while: without this bound a node would look dead.
    """
    with _translated("reading", directory):
        options = rocksdict.ReadOptions()
        options.set_iterate_upper_bound(high)
        if not whole:
            options.set_max_skippable_internal_keys(STEP_KEYS)
        iterator = source.iter(options)
        if reverse:
            iterator.seek_to_last()
        else:
            iterator.seek(low)
    return iterator, _gave_up(iterator, directory)


def _gave_up(iterator: rocksdict.RdictIter, directory: str) -> bool:
    """Whether it stands at no key because too many were deleted, and not because it is at its end."""
    if iterator.valid():
        return False
    try:
        iterator.status()
    except Exception as exc:
        if str(exc).startswith(_INCOMPLETE):
            return True
        with _translated("reading", directory):
            raise exc  # not the end, but damage
    return False


def _steps(
    source: rocksdict.Rdict, directory: str, posts: Guideposts, start: bytes, end: bytes, reverse: bool
) -> Iterator[tuple[bytes, bytes | None]]:
    """What `Reader.steps` gives, of a database as it is now."""
    while start < end:
        iterator, gave_up = _look(source, directory, start, end, reverse=reverse)
        move = iterator.prev if reverse else iterator.next
        valid, key_of, value_of = iterator.valid, iterator.key, iterator.value
        while valid():
            try:
                key, value = key_of(), value_of()
            except Exception as exc:
                with _translated("reading", directory):
                    raise exc
            if not start <= key < end:
                return
            yield key, value
            if reverse:
                end = key
            else:
                start = key + b"\0"
            try:
                move()
            except Exception as exc:
                with _translated("reading", directory):
                    raise exc
        if not gave_up and not _gave_up(iterator, directory):
            return
        del iterator, move, valid, key_of, value_of
        for position, value in _over_gap(source, directory, posts, start, end, reverse):
            yield position, value
            if value is not None:
                start, end = _behind(position, start, end, reverse)
                break
        else:
            return


def _behind(key: bytes, start: bytes, end: bytes, reverse: bool) -> tuple[bytes, bytes]:
    """The rest of a range after `key`."""
    return (start, key) if reverse else (key + b"\0", end)


def _over_gap(
    source: rocksdict.Rdict, directory: str, posts: Guideposts, start: bytes, end: bytes, reverse: bool
) -> Iterator[tuple[bytes, bytes | None]]:
    """Like `_steps`, up to the next living key or the end, when too many deleted keys come before that."""
    while start < end:
        post = posts.next(start, end, reverse=reverse)
        gap = Gap(post, end, reverse=True) if reverse else Gap(start, post)
        while not gap.is_over:
            low, high = gap.probe
            # Upwards even in reverse: a downward search does not end at `low`, but goes over deleted keys below it.
            found, gave_up = _look(source, directory, low, high, reverse=False, whole=gap.is_smallest)
            lives = found.valid()
            if lives and reverse:
                found, gave_up = _look(source, directory, low, high, reverse=True, whole=gap.is_smallest)
            if lives and not gave_up:
                with _translated("reading", directory):
                    yield found.key(), found.value()
                return
            del found
            if gave_up:
                gap.too_much()
            else:
                gap.empty()
            yield gap.position, None
        start, end = (start, gap.position) if reverse else (gap.position, end)


class RocksView(StateView):
    """A view on a snapshot of RocksDB, from which rocksdict gets values, but which it can't iterate.

    So the view iterates the database as it is now, and looks keys that were written since up in the snapshot. A write
    tells its keys before it is done, and a reader asks for them after it has read, so none is missed. They are kept
    in memory, which is a reason to close a view soon.
    """

    def __init__(self, store: RocksStore) -> None:
        self._store = store
        self._snapshot: rocksdict.Snapshot | None = store.db.snapshot()
        self._directory = store.directory
        self._applied = store.applied
        self.fresh: deque[bytes] = deque()
        """Keys that were written since and are not in `_changed` yet; another thread puts them here."""
        self._changed = OrderedKeys()

    @property
    def applied(self) -> Applied:
        return self._applied

    @property
    def changes(self) -> int:
        return len(self.fresh) + len(self._changed)

    def get(self, key: bytes) -> bytes | None:
        if self._snapshot is None:
            raise ValueError("the view is closed")
        try:
            value: bytes = self._snapshot[key]
        except Exception as exc:
            if str(exc) == _NOT_FOUND:
                return None
            with _translated("reading", self._directory):
                raise exc
        return value

    def _between(self, low: bytes, high: bytes) -> list[bytes]:
        """Keys from `low` to before `high` that were written since the view was taken."""
        changed = self._changed
        while self.fresh:
            changed.add(self.fresh.popleft())
        return changed.between(low, high) if changed else []

    def steps(self, start: bytes, end: bytes, *, reverse: bool = False) -> Iterator[tuple[bytes, bytes | None]]:
        store = self._store
        for key, value in _steps(store.db, self._directory, store.posts, start, end, reverse):
            changed = self._between(key, end) if reverse else self._between(start, key + b"\0")
            at_key = bool(changed) and key == changed[0 if reverse else -1]
            if at_key and value is None and not reverse:
                changed.pop()  # what lies before the position was searched, but not the position itself
            yield from self._as_they_were(changed, reverse)
            if value is None:
                yield key, None
            elif not at_key:
                yield key, value
            if reverse:
                end = key
            else:
                start = key if value is None else key + b"\0"
        yield from self._as_they_were(self._between(start, end), reverse)

    def _as_they_were(self, keys: list[bytes], reverse: bool) -> Iterator[tuple[bytes, bytes | None]]:
        for key in reversed(keys) if reverse else keys:
            yield key, self.get(key)

    def close(self) -> None:
        self._snapshot = None
        self._store.views.discard(self)


def _linked(directory: str) -> tempfile.TemporaryDirectory[str]:
    """A directory with links to all files of a store, without those that rocksdict writes even where it only reads."""
    links = tempfile.TemporaryDirectory(prefix="raftkv-look-")
    with _translated("looking at", directory):
        for name in os.listdir(directory):
            if not name.startswith(("rocksdict-", "LOCK", "LOG")):
                os.symlink(os.path.join(os.path.abspath(directory), name), os.path.join(links.name, name))
    return links


class RocksStore(Store):
    """A store on RocksDB.

    One column family, so that what a flush makes durable is the effect of a prefix of the log. Iterating a damaged
    file just ends early, so everything here that iterates asks for the iterator's status.
    """

    def __init__(self, directory: str, *, read_only: bool = False) -> None:
        self._directory = directory
        self._links = _linked(directory) if read_only else None
        self._write_options = rocksdict.WriteOptions()
        # A property, whatever the stub says.
        self._write_options.disable_wal = True  # type: ignore[method-assign, assignment]
        try:
            self._db = self._open()
        except BaseException:
            self._unlink()
            raise
        self._closed = False
        self.posts = Guideposts()
        self.views: set[RocksView] = set()
        try:
            self._applied = self._read_applied()
        except BaseException:
            self.close()
            raise

    def _open(self) -> rocksdict.Rdict:
        with _translated("opening", self._directory):
            if self._links is not None:
                access = rocksdict.AccessType.read_only(False)
                return rocksdict.Rdict(self._links.name, _options(), access_type=access)
            os.makedirs(self._directory, exist_ok=True)
            return rocksdict.Rdict(self._directory, _options(), access_type=rocksdict.AccessType.read_write())

    def _unlink(self) -> None:
        if self._links is not None:
            self._links.cleanup()

    def _read_applied(self) -> Applied:
        meta = self.get(META_KEY)
        if meta is None and next(self.scan(b"", None), None) is None:
            return Applied()
        return decode_meta(meta, self._directory)

    @property
    def db(self) -> rocksdict.Rdict:
        """The open database, for views."""
        return self._db

    @property
    def directory(self) -> str:
        """Where it is."""
        return self._directory

    @property
    def applied(self) -> Applied:
        return self._applied

    def get(self, key: bytes) -> bytes | None:
        try:
            return self._db.get(key)
        except Exception as exc:
            with _translated("reading", self._directory):
                raise exc

    def scan(self, start: bytes, end: bytes | None, *, reverse: bool = False) -> Iterator[tuple[bytes, bytes]]:
        with _translated("reading", self._directory):
            options = rocksdict.ReadOptions()
            iterator = self._db.iter(options)
            if reverse and end is None:
                iterator.seek_to_last()
            elif reverse:
                iterator.seek_for_prev(end)  # type: ignore[arg-type]
                if iterator.valid() and iterator.key() == end:
                    iterator.prev()
            else:
                iterator.seek(start)
        move = iterator.prev if reverse else iterator.next
        while True:
            with _translated("reading", self._directory):
                if not iterator.valid():
                    iterator.status()  # raises when this is not the end but damage
                    return
                key, value = iterator.key(), iterator.value()
                if key < start if reverse else end is not None and key >= end:
                    return
            yield key, value
            with _translated("reading", self._directory):
                move()

    def steps(self, start: bytes, end: bytes, *, reverse: bool = False) -> Iterator[tuple[bytes, bytes | None]]:
        return _steps(self._db, self._directory, self.posts, start, end, reverse)

    def view(self) -> RocksView:
        with _translated("reading", self._directory):
            view = RocksView(self)
        self.views.add(view)
        return view

    def write(self, changes: Changes, applied: Applied) -> None:
        batch = rocksdict.WriteBatch(raw_mode=True)
        put, delete = batch.put, batch.delete
        for key, value in changes.items():
            if value is not None:
                put(key, value)
            else:
                delete(key)
                self.posts.deleted(key)
        put(META_KEY, encode_meta(applied))
        for view in self.views:
            view.fresh.extend(changes)
        with _translated("writing to", self._directory):
            self._db.write(batch, self._write_options)
        self._applied = applied

    def flush(self) -> None:
        with _translated("flushing", self._directory):
            failpoints.reach("state.flush.before")
            self._db.flush()
            failpoints.reach("state.flush.after")

    def freeze(self) -> None:
        with _translated("copying", self._directory):
            self._db.set_options({"disable_auto_compactions": "true"})
            while self._db.property_int_value("rocksdb.num-running-compactions"):
                time.sleep(_COMPACTION_POLL_S)

    def checkpoint(self, directory: str) -> None:
        """Links the files instead of using RocksDB's own checkpoint, which holds the interpreter's lock while it syncs
        names, for tens of milliseconds on a busy disk. Without compaction and writers the files don't change.
        """
        with _translated("copying", self._directory):
            self._db.flush()
            failpoints.reach("state.checkpoint.before_links")
            os.makedirs(directory)
            for name in sorted(os.listdir(self._directory)):
                source, target = os.path.join(self._directory, name), os.path.join(directory, name)
                if name.endswith(_IMMUTABLE):
                    os.link(source, target)
                elif not name.startswith(_NOT_COPIED):
                    shutil.copyfile(source, target)
                failpoints.reach("state.checkpoint.between_links")

    def thaw(self) -> None:
        with _translated("copying", self._directory):
            failpoints.reach("state.thaw.before")
            self._db.set_options({"disable_auto_compactions": "false"})

    def verify(self) -> int:
        return sum(1 for _ in self.scan(b"", None)) - (self._applied.index > 0)

    def approximate_bytes(self) -> int:
        with _translated("looking at", self._directory):
            files = self._db.property_int_value("rocksdb.total-sst-files-size") or 0
            return files + (self._db.property_int_value("rocksdb.cur-size-all-mem-tables") or 0)

    @property
    def deletions(self) -> int:
        return self.posts.deletions

    def keys_about(self) -> int:
        return self._number("rocksdb.estimate-num-keys")

    def is_rewriting(self) -> bool:
        return any(self._number(f"rocksdb.{name}") for name in ("num-running-compactions", "compaction-pending"))

    def _number(self, name: str) -> int:
        with _translated("looking at", self._directory):
            return self._db.property_int_value(name) or 0

    def close(self) -> None:
        if not self._closed:
            self._closed = True
            with _translated("closing", self._directory):
                self._db.close()
            self._unlink()


class RocksStates(States):
    """Stores on RocksDB, in real directories."""

    def __init__(self, *, read_only: bool = False) -> None:
        """With `read_only` nothing on disk changes, and a store that is not there is `StateCorruption`."""
        self._read_only = read_only

    def open(self, directory: str) -> RocksStore:
        return RocksStore(directory, read_only=self._read_only)

    def destroy(self, directory: str) -> None:
        try:
            shutil.rmtree(directory)
        except FileNotFoundError:
            return
        except OSError as exc:
            raise DiskError(f"removing {directory}: {exc}") from exc
