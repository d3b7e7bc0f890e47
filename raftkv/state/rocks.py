"""The applied state in RocksDB, without its write-ahead log. The only module that knows rocksdict."""

from __future__ import annotations

import errno
import os
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager

import rocksdict

from raftkv import failpoints
from raftkv.errors import DataDirLocked, DiskError, DiskFull, NodeStopped, StateCorruption
from raftkv.state.port import META_KEY, OWNER_FILE, Applied, Changes, States, Store, decode_meta, encode_meta

_WRITE_BUFFER_BYTES = 32 << 20
_BLOCK_CACHE_BYTES = 64 << 20
_BLOCK_BYTES = 16 << 10
_BLOOM_BITS_PER_KEY = 10
_LOG_FILES_MAX = 2
_COMPACTION_POLL_S = 0.005
_IMMUTABLE = (".sst", ".blob")
_NOT_COPIED = ("LOCK", "LOG", "IDENTITY", OWNER_FILE)
"""What belongs to the open database and not to its content; a copy makes its own."""

_FREE_SPACE = "free some space, then start the node again"
_CHECK_DISK = "check the disk, then start the node again"


@contextmanager
def _translated(what: str, path: str) -> Iterator[None]:
    """RocksDB's errors are plain exceptions with a word in front; here, and only here, they get their types."""
    try:
        yield
    except NodeStopped:
        raise
    except OSError as exc:
        if exc.errno in (errno.ENOSPC, errno.EDQUOT):
            raise DiskFull(f"{what} {path}: {exc}: {_FREE_SPACE}") from exc
        raise DiskError(f"{what} {path}: {exc}; {_CHECK_DISK}") from exc
    except Exception as exc:
        text = str(exc)
        message = f"{what} {path}: {text}"
        if "No space left" in text or "NoSpace" in text:
            raise DiskFull(f"{message}: {_FREE_SPACE}") from exc
        if "lock hold" in text or "While lock file" in text:
            raise DataDirLocked(f"{message}: another process uses it") from exc
        if text.startswith("IO error") and "No such file" not in text:
            raise DiskError(f"{message}; {_CHECK_DISK}") from exc
        raise StateCorruption(message) from exc


def _options() -> rocksdict.Options:
    """Always given: what rocksdict writes beside the database about itself is not written atomically."""
    options = rocksdict.Options(raw_mode=True)
    options.create_if_missing(True)
    # With checks off, a database with a missing file opens without a word.
    options.set_paranoid_checks(True)
    options.set_write_buffer_size(_WRITE_BUFFER_BYTES)
    options.set_max_background_jobs(2)
    options.set_compression_type(rocksdict.DBCompressionType.lz4())
    options.set_keep_log_file_num(_LOG_FILES_MAX)
    options.set_max_log_file_size(1 << 20)
    # A background write is synced in small pieces, instead of one that the log's syncs have to wait for.
    options.set_bytes_per_sync(1 << 20)
    table = rocksdict.BlockBasedOptions()
    table.set_block_cache(rocksdict.Cache(_BLOCK_CACHE_BYTES))
    table.set_block_size(_BLOCK_BYTES)
    table.set_bloom_filter(_BLOOM_BITS_PER_KEY, False)
    table.set_checksum_type(rocksdict.ChecksumType.xxh3())
    options.set_block_based_table_factory(table)
    return options


class RocksStore(Store):
    """A store on RocksDB.

    One column family, so that whatever a flush makes durable is the effect of a prefix of the log.
    Iterating a damaged file ends early and says nothing; `scan`, the only place that iterates, asks.
    """

    def __init__(self, directory: str) -> None:
        self._directory = directory
        self._write_options = rocksdict.WriteOptions()
        # A property, whatever the stub says.
        self._write_options.disable_wal = True  # type: ignore[method-assign, assignment]
        with _translated("opening", directory):
            os.makedirs(directory, exist_ok=True)
            self._db = rocksdict.Rdict(directory, _options(), access_type=rocksdict.AccessType.read_write())
        self._closed = False
        try:
            self._applied = self._read_applied()
        except BaseException:
            self.close()
            raise

    def _read_applied(self) -> Applied:
        meta = self.get(META_KEY)
        if meta is None and next(self.scan(b"", None), None) is None:
            return Applied()
        return decode_meta(meta, self._directory)

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

    def write(self, changes: Changes, applied: Applied) -> None:
        batch = rocksdict.WriteBatch(raw_mode=True)
        put, delete = batch.put, batch.delete
        for key, value in changes.items():
            if value is not None:
                put(key, value)
            else:
                delete(key)
        put(META_KEY, encode_meta(applied))
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
        """RocksDB's own checkpoint holds the interpreter while it syncs names, up to tens of milliseconds on a busy
        disk. With no compaction and no writer its files stand still, so they are linked here, beside the loop.
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

    def close(self) -> None:
        if not self._closed:
            self._closed = True
            with _translated("closing", self._directory):
                self._db.close()


class RocksStates(States):
    """Stores on RocksDB, in real directories."""

    def open(self, directory: str) -> RocksStore:
        return RocksStore(directory)

    def destroy(self, directory: str) -> None:
        try:
            shutil.rmtree(directory)
        except FileNotFoundError:
            return
        except OSError as exc:
            raise DiskError(f"removing {directory}: {exc}") from exc
