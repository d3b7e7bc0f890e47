"""The file of the cluster secret: what is taken, what is refused, and that no text shows it."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from raftkv.errors import ConfigError
from raftkv.transport import SecretFile
from raftkv.transport.secret import FILE_BYTES_MAX, SECRET_BYTES_MIN

OLD, NEW = b"an old secret of thirty-two bytes", b"and a new one, which is as long"


def write(path: Path, content: bytes, mode: int = 0o600) -> str:
    """Write the file as an operator replaces it: beside it, and renamed."""
    beside = path.with_suffix(".new")
    beside.write_bytes(content)
    beside.chmod(mode)
    beside.rename(path)
    return str(path)


@pytest.mark.parametrize(
    ("content", "mode", "said"),
    [
        (b"", 0o600, "there is no secret in it"),
        (b"\n  \n", 0o600, "there is no secret in it"),
        (b"x" * (SECRET_BYTES_MIN - 1), 0o600, "the secret number 1 has 15 bytes: at least 16"),
        (OLD + b"\nshort\n", 0o600, "the secret number 2 has 5 bytes"),
        (b"\n".join([OLD, NEW, OLD + b"3"]), 0o600, "3 lines: at most 2"),
        (b"x" * (FILE_BYTES_MAX + 1), 0o600, "more than 4096 bytes"),
        (OLD, 0o640, r"others than its owner may use it \(mode 0640\): chmod 600 it"),
        (OLD, 0o602, r"mode 0602"),
    ],
)
def test_a_file_that_is_wrong_is_refused_by_name(content: bytes, mode: int, said: str, tmp_path: Path) -> None:
    """What is wrong with it is said, and nothing of what is in it."""
    path = write(tmp_path / "secret", content, mode)
    with pytest.raises(ConfigError, match=said) as caught:
        SecretFile(path)
    assert f"peer_secret_file = {path!r}" in str(caught.value)
    assert "secret of thirty" not in str(caught.value)


def test_what_is_no_file_is_refused_at_once(tmp_path: Path) -> None:
    """Nothing there, a directory, a pipe to which nobody writes: none holds up the start."""
    os.mkfifo(tmp_path / "pipe", 0o600)
    for name, said in (("nowhere", "No such file"), (".", "it is no file"), ("pipe", "it is no file")):
        with pytest.raises(ConfigError, match=said):
            SecretFile(str(tmp_path / name))


def test_the_first_proves_and_any_is_accepted(tmp_path: Path) -> None:
    """Two lines: so a node takes others' old proofs while it makes new ones."""
    both = SecretFile(write(tmp_path / "both", NEW + b"\n" + OLD + b"\n", 0o400))
    new, old = (SecretFile(write(tmp_path / name, text)) for name, text in (("new", NEW), ("old", b"  " + OLD)))
    assert both.prove(b"said") == new.prove(b"said") != old.prove(b"said")
    assert both.is_proof(old.prove(b"said"), b"said") and both.is_proof(new.prove(b"said"), b"said")
    assert not old.is_proof(both.prove(b"said"), b"said")
    assert not new.is_proof(new.prove(b"said"), b"other") and not new.is_proof(b"", b"said")


def test_a_file_that_was_replaced_is_read_again(tmp_path: Path) -> None:
    """And one that is wrong changes nothing: what was read before goes on being used."""
    kept = SecretFile(write(tmp_path / "secret", OLD))
    before = kept.prove(b"said")
    assert not kept.is_replaced()
    write(tmp_path / "secret", NEW, 0o644)
    assert kept.is_replaced()
    with pytest.raises(ConfigError, match="0644"):
        kept.renew()
    assert kept.is_replaced() and kept.prove(b"said") == before
    (tmp_path / "secret").chmod(0o600)
    kept.renew()
    assert not kept.is_replaced() and kept.prove(b"said") != before


def test_nothing_that_is_printed_shows_the_secret(tmp_path: Path) -> None:
    """Objects end up in logs and failures."""
    kept = SecretFile(write(tmp_path / "secret", OLD))
    for text in (repr(kept), str(kept), f"{kept.describe()}"):
        assert OLD.decode() not in text


def test_a_mark_tells_secrets_apart_and_nothing_of_them(tmp_path: Path) -> None:
    """The same for the same secret in whatever file and place, too short to try guesses by, and no part of a proof."""
    kept = SecretFile(write(tmp_path / "secret", OLD))
    other = SecretFile(write(tmp_path / "other", NEW + b"\n" + OLD + b"\n"))
    (old,) = kept.marks
    new, also = other.marks
    assert old == also != new and len(old) == len(new) == 4
    assert not kept.prove(b"said").hex().startswith(old)
    write(tmp_path / "secret", NEW)
    kept.renew()
    assert kept.marks == (new,)
