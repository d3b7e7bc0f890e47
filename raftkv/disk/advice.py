"""What to do about an error of the file system: most are no fault of the disk."""

from __future__ import annotations

import errno
import os

_ADVICE = {
    errno.EACCES: "let the user that runs raftkv read and write there (chown, chmod)",
    errno.EPERM: "let the user that runs raftkv read and write there (chown, chmod, chattr)",
    errno.EROFS: "mount that file system for writing, after a look at why it is not (dmesg)",
    # Before EMFILE, whose text is the beginning of this one's.
    errno.ENFILE: "raise the system's limit of open files (fs.file-max)",
    errno.EMFILE: "raise the limit of open files (ulimit -n)",
    errno.ENOTDIR: "give a directory that is one, or move what stands in its place",
    errno.EISDIR: "move the directory that stands in the file's place",
    errno.ENAMETOOLONG: "give a data directory with a shorter path",
    errno.ELOOP: "mend the symbolic links on that path",
    errno.EFBIG: "raise the limit of a file's size (ulimit -f)",
    errno.ENOSPC: "free some space",
    errno.EDQUOT: "free some space, or raise the user's quota",
}

CHECK_DISK = "check the disk"

AGAIN = "then start the node again"
"""What to do once that is done; the end of what a node says of its disk."""


def advice(number: int | None) -> str:
    """What to do about this error of the system, before the node is started again."""
    return _ADVICE.get(number or 0, CHECK_DISK)


def advice_in(text: str) -> str:
    """Like `advice`, for an error of which there is only a text (RocksDB's) that ends with the system's words."""
    return next((words for number, words in _ADVICE.items() if os.strerror(number) in text), CHECK_DISK)
