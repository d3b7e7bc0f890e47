"""The cluster secret: what the nodes of a cluster know and nobody else. It is proven to peers, and never said."""

from __future__ import annotations

import hmac
import os
import stat
from collections.abc import Sequence

from raftkv.errors import ConfigError
from raftkv.transport.files import mark_of

SECRET_BYTES_MIN = 16
"""Whoever has recorded a handshake may try secrets at leisure, so those that can be guessed are none."""

SECRETS_MAX = 2
"""An old one and a new one, while nodes change from one to the other."""

FILE_BYTES_MAX = 4096

MARK_BYTES = 2
"""Of a secret's mark: enough to tell an old secret from a new one, and too few to tell whether a guess is right."""

_MARKED = b"raftkv mark of a cluster secret"
"""No handshake says this, so a mark is no part of a proof."""

_OTHERS = stat.S_IRWXG | stat.S_IRWXO


class PeerSecret:
    """One secret, or two while nodes change from one to the other: the first one proves, and any is accepted.

    Handshakes that begin use what `take` was given last; connections that stand are not touched. No text shows it.
    """

    not_taken = ""
    """Why the present file could not be taken up, so that what was read before is in use; empty when it was."""

    def __init__(self, secrets: Sequence[bytes]) -> None:
        self._secrets = tuple(secrets)

    def take(self, secrets: Sequence[bytes]) -> None:
        """Use these from now on."""
        self._secrets = tuple(secrets)

    @property
    def marks(self) -> tuple[str, ...]:
        """By what operators tell secrets apart: of the one that proves first, then of the other one. The same secret
        has the same mark on every node. It tells sixteen bits of the secret: nothing of a random one, but it would rule
        out most guesses of one that was made up."""
        return tuple(hmac.digest(each, _MARKED, "sha256")[:MARK_BYTES].hex() for each in self._secrets)

    def prove(self, said: bytes) -> bytes:
        """What only one who knows the secret can make of what was said."""
        return hmac.digest(self._secrets[0], said, "sha256")

    def is_proof(self, proof: bytes, said: bytes) -> bool:
        """Whether one who knows a secret that is accepted has made `proof` of what was said."""
        return any(hmac.compare_digest(hmac.digest(each, said, "sha256"), proof) for each in self._secrets)


class SecretFile(PeerSecret):
    """The secret in a file, which is read again when it was replaced."""

    kind = "peer_secret"

    def __init__(self, path: str) -> None:
        """Raises `ConfigError`, which says what is wrong with the file, and never what is in it."""
        self.path = path
        self._mark = mark_of(path)
        super().__init__(read_secrets(path))

    def is_replaced(self) -> bool:
        """Whether the file is another one than was read."""
        return mark_of(self.path) != self._mark

    def renew(self) -> None:
        """Read the file again. Raises `ConfigError`; what was read before goes on being used then."""
        mark = mark_of(self.path)
        self.take(read_secrets(self.path))
        self._mark = mark

    def describe(self) -> dict[str, str]:
        """For the log: where it is from."""
        return {"path": self.path}


def read_secrets(path: str) -> tuple[bytes, ...]:
    """The secrets in a file, a line each. Raises `ConfigError`."""
    name = f"peer_secret_file = {path!r}"
    content = _read(path, name)
    found = tuple(line.strip() for line in content.splitlines() if line.strip())
    if not found:
        raise ConfigError(f"{name}: there is no secret in it: write one line of random text, the same on all nodes")
    if len(found) > SECRETS_MAX:
        raise ConfigError(
            f"{name}: {len(found)} lines: at most {SECRETS_MAX}, the secret that this node proves to know, and one "
            "more that it accepts"
        )
    for number, secret in enumerate(found, 1):
        if len(secret) < SECRET_BYTES_MIN:
            raise ConfigError(
                f"{name}: the secret number {number} has {len(secret)} bytes: at least {SECRET_BYTES_MIN}, drawn at "
                "random, as by `openssl rand -hex 32`"
            )
    return found


def _read(path: str, name: str) -> bytes:
    try:
        # Without O_NONBLOCK, to open a pipe would wait for who writes to it.
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError as exc:
        raise ConfigError(
            f"{name}: {exc.strerror}: put the cluster's secret there, readable for this process alone"
        ) from exc
    try:
        about = os.fstat(descriptor)
        if not stat.S_ISREG(about.st_mode):
            raise ConfigError(f"{name}: it is no file")
        if about.st_mode & _OTHERS:
            raise ConfigError(
                f"{name}: others than its owner may use it (mode {stat.S_IMODE(about.st_mode):04o}): chmod 600 it, and "
                "draw a new secret if somebody may have read it"
            )
        content = os.read(descriptor, FILE_BYTES_MAX + 1)
    except OSError as exc:
        raise ConfigError(f"{name}: {exc.strerror}") from exc
    finally:
        os.close(descriptor)
    if len(content) > FILE_BYTES_MAX:
        raise ConfigError(f"{name}: it has more than {FILE_BYTES_MAX} bytes, so it is no file of secrets")
    return content
