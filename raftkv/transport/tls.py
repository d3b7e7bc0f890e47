"""TLS that tells why a handshake failed, and whose files may be replaced while it is in use."""

from __future__ import annotations

import contextlib
import os
import ssl
from contextvars import ContextVar
from datetime import UTC, datetime
from typing import Any

import msgspec

from raftkv.errors import ConfigError
from raftkv.transport.certificate import Certificate, read_certificate
from raftkv.transport.files import mark_of

WARN_S = 30 * 24 * 3600
"""How long before a certificate expires operators are told: long enough to have a new one issued."""

_HANDSHAKE, _CERTIFICATE = 22, 11
"""Numbers of a record's and of a message's kind (RFC 8446)."""

SOCKET: ContextVar[int | None] = ContextVar("raftkv_tls_socket", default=None)
"""The descriptor of the connection that is being made, for a last alert: see `_Watched`."""


class TlsFiles(msgspec.Struct, frozen=True):
    """Where a node finds what it needs for TLS, each a PEM file."""

    ca: str
    cert: str
    key: str
    ca_setting: str = "tls_ca"

    @property
    def settings(self) -> tuple[tuple[str, str], ...]:
        """Each file with the setting that names it."""
        return (self.ca_setting, self.ca), ("tls_cert", self.cert), ("tls_key", self.key)

    def mark(self) -> tuple[object, ...]:
        """A value that changes when one of the files is replaced, written to, removed or made."""
        return tuple(mark_of(path) for _, path in self.settings)


class CertificateStatus(msgspec.Struct, kw_only=True):
    """A certificate that this node relies on."""

    role: str
    """ "node": this node shows it to others; "authority": it checks others' certificates."""
    name: str
    not_after: datetime
    expires_s: float
    """Seconds until it expires; negative afterwards."""
    not_taken: str = ""
    """Why the present files could not be loaded, so that older ones are in use; empty when they are in use."""


class Loaded(msgspec.Struct, frozen=True):
    """What was in the files at one time."""

    mark: tuple[object, ...]
    own: Certificate | None
    authorities: tuple[Certificate, ...]
    contexts: dict[ssl.Purpose, tuple[ssl.SSLContext, ssl.SSLContext]]
    """By purpose: a context for handshakes, which keeps the certificates that it sees, and one for the time after."""


def load(files: TlsFiles, demands: bool = True) -> Loaded:
    """Read the files. Unless `demands`, the listening side asks for no certificate.

    Raises `ConfigError`, which names the file that is wrong, and says what to do.
    """
    mark = files.mark()
    for setting, path in files.settings:
        try:
            with open(path, "rb") as file:
                file.read(1)
        except OSError as exc:
            raise ConfigError(
                f"{setting} = {path!r}: {exc.strerror}: put the PEM file there, readable for this process"
            ) from exc
    contexts = {
        purpose: (_context(purpose, files, watched=True), _context(purpose, files, watched=False))
        for purpose in (ssl.Purpose.CLIENT_AUTH, ssl.Purpose.SERVER_AUTH)
    }
    if not demands:
        for context in contexts[ssl.Purpose.CLIENT_AUTH]:
            context.verify_mode = ssl.CERT_NONE
    given = contexts[ssl.Purpose.SERVER_AUTH][1].get_ca_certs(binary_form=True)
    authorities = tuple(filter(None, map(read_certificate, given)))
    return Loaded(mark, _own(files), authorities, contexts)


def _own(files: TlsFiles) -> Certificate | None:
    with open(files.cert, encoding="ascii", errors="replace") as file:
        text = file.read()
    begin, end = text.find(ssl.PEM_HEADER), text.find(ssl.PEM_FOOTER)
    if begin < 0 or end < begin:
        return None
    return read_certificate(ssl.PEM_cert_to_DER_cert(text[begin : end + len(ssl.PEM_FOOTER)]))


def _context(purpose: ssl.Purpose, files: TlsFiles, *, watched: bool) -> ssl.SSLContext:
    try:
        context = ssl.create_default_context(purpose, cafile=files.ca)
    except (OSError, ValueError) as exc:  # an SSLError is one too
        raise ConfigError(
            f"{files.ca_setting} = {files.ca!r}: {exc}: it must hold the certificates of authorities, as PEM"
        ) from exc
    context.verify_mode = ssl.CERT_REQUIRED
    # An authority of its own may be an intermediate one: who trusts it need not trust all that the root has issued.
    context.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN
    try:
        context.load_cert_chain(files.cert, files.key, password=_no_password)
    except (OSError, ValueError) as exc:
        raise ConfigError(
            f"tls_cert = {files.cert!r}, tls_key = {files.key!r}: {exc}: they must be a certificate and the key that "
            "belongs to it, as PEM and without a password"
        ) from exc
    if watched:
        context.sslobject_class = _Watched
        context._msg_callback = _keep_certificate  # type: ignore[attr-defined]
    return context


def _no_password() -> str:
    raise ValueError("the key is encrypted")  # else OpenSSL would ask for the password at the terminal


def _keep_certificate(
    connection: ssl.SSLObject, direction: str, version: int, content: int, kind: int, data: bytes
) -> None:
    """A hook that OpenSSL calls for each message: keep the certificate that the other side shows.

    CPython has this hook "for debugging". Should it ever be gone, errors won't say whose certificate it was.
    """
    if isinstance(connection, _Watched) and direction == "read" and content == _HANDSHAKE and kind == _CERTIFICATE:
        connection.shown = read_certificate(_first_certificate(version, data))


def _first_certificate(version: int, message: bytes) -> bytes:
    """The first certificate of a Certificate message of TLS 1.2 (RFC 5246, 7.4.2) or TLS 1.3 (RFC 8446, 4.4.2)."""
    at = 4
    if version >= ssl.TLSVersion.TLSv1_3 and len(message) > at:
        at += 1 + message[at]
    size = int.from_bytes(message[at + 3 : at + 6])
    return message[at + 6 : at + 6 + size]


class TlsFailed(ssl.SSLError):
    """A handshake has failed, and the text says why."""


class _Watched(ssl.SSLObject):
    """A connection whose failed handshake says why, at both ends."""

    shown: Certificate | None = None
    """The certificate that the other side shows."""
    own: Certificate | None = None
    quiet: ssl.SSLContext
    """Takes over after the handshake, so that the hook is not called for each record."""
    outgoing: ssl.MemoryBIO
    descriptor: int | None = None

    def do_handshake(self) -> None:
        try:
            super().do_handshake()
        except (ssl.SSLWantReadError, ssl.SSLWantWriteError):
            raise
        except ssl.SSLError as exc:
            self._say_last_words()
            raise TlsFailed(exc.errno, explain(exc, self.own, self.shown)) from exc
        self.context = self.quiet

    def _say_last_words(self) -> None:
        """Send the alert by which the other side learns why: event loops close the connection at once, without it."""
        words = self.outgoing.read()
        if words and self.descriptor is not None:
            with contextlib.suppress(OSError):  # the other side may be gone
                os.write(self.descriptor, words)


_MEANINGS = {
    "WRONG_VERSION_NUMBER": "it does not speak TLS",
    "HTTP_REQUEST": "it does not speak TLS but HTTP",
    "UNSUPPORTED_PROTOCOL": "it speaks only a version of TLS that is too old",
    "PEER_DID_NOT_RETURN_A_CERTIFICATE": "it shows no certificate",
    "UNEXPECTED_EOF_WHILE_READING": "it closed the connection in the handshake",
}


def explain(exc: ssl.SSLError, own: Certificate | None, shown: Certificate | None = None) -> str:
    """Why a handshake failed: which certificate, whose name, which date."""
    if isinstance(exc, TlsFailed):
        return str(exc)
    reason = exc.reason or ""
    if isinstance(exc, ssl.SSLCertVerificationError):
        whose = shown.describe() if shown is not None else "certificate that can't be read"
        return f"TLS: {exc.verify_message.rstrip('.')}: it shows the {whose}"
    if "_ALERT_" in reason:
        what = reason.partition("_ALERT_")[2].replace("_", " ").lower()
        if not any(word in what for word in ("certificate", "unknown ca", "access denied")):
            return f"TLS: the other side gave up: {what}"
        whose = own.describe() if own is not None else "certificate shown to it"
        return f"TLS: the other side refuses the {whose}: {what}"
    meaning = _MEANINGS.get(reason)
    return f"TLS: {meaning}" if meaning is not None else f"TLS: {reason.replace('_', ' ').lower() or exc}"


class _Renewed(ssl.SSLContext):
    """Makes every handshake with the newest files. It has no certificates itself, and alone would accept nobody."""

    credentials: Credentials
    purpose: ssl.Purpose

    def wrap_bio(
        self,
        incoming: ssl.MemoryBIO,
        outgoing: ssl.MemoryBIO,
        server_side: bool = False,
        server_hostname: str | bytes | None = None,
        session: ssl.SSLSession | None = None,
    ) -> ssl.SSLObject:
        loaded = self.credentials.loaded
        context, quiet = loaded.contexts[self.purpose]
        made = context.wrap_bio(incoming, outgoing, server_side, server_hostname, session)
        assert isinstance(made, _Watched)
        made.own, made.quiet, made.outgoing, made.descriptor = loaded.own, quiet, outgoing, SOCKET.get()
        return made

    def wrap_socket(self, *args: Any, **more: Any) -> ssl.SSLSocket:
        return self.credentials.loaded.contexts[self.purpose][1].wrap_socket(*args, **more)


class Credentials:
    """The certificate that this side shows and the authorities that it trusts: `server` and `client` are contexts for
    both ways.

    New connections use the files that `take` was given last; existing ones are not touched.
    """

    kind = "tls_files"

    def __init__(self, files: TlsFiles, *, demands: bool = True) -> None:
        """Raises `ConfigError`. Without `demands`, clients of `server` need no certificate."""
        self.files = files
        self.demands = demands
        self.loaded = load(files, demands)
        self.not_taken = ""
        """Why the present files could not be loaded; set by the part that watches them."""
        self.server = self._renewed(ssl.PROTOCOL_TLS_SERVER, ssl.Purpose.CLIENT_AUTH)
        self.client = self._renewed(ssl.PROTOCOL_TLS_CLIENT, ssl.Purpose.SERVER_AUTH)

    def _renewed(self, protocol: int, purpose: ssl.Purpose) -> ssl.SSLContext:
        context = _Renewed(protocol)
        context.credentials, context.purpose = self, purpose
        context.verify_mode = ssl.CERT_REQUIRED
        return context

    def take(self, loaded: Loaded) -> None:
        """Use this for handshakes from now on."""
        self.loaded = loaded
        self.not_taken = ""

    def is_replaced(self) -> bool:
        """Whether the files are others than were read."""
        return self.files.mark() != self.loaded.mark

    def renew(self) -> None:
        """Read the files again. Raises `ConfigError` and `OSError`; what was read before goes on being used then.

        A certificate that has run out is not taken in the place of one that has not: nobody would accept it.
        """
        new, now = load(self.files, self.demands), datetime.now(UTC)
        old = self.loaded.own
        if new.own is not None and new.own.not_after <= now and (old is None or old.not_after > now):
            raise ConfigError(
                f"tls_cert = {self.files.cert!r}: the {new.own.describe()}, has run out: put a valid one there"
            )
        self.take(new)

    def describe(self) -> dict[str, str]:
        """For the log: the certificate that is shown."""
        own = self.loaded.own
        return {"certificate": own.describe() if own is not None else self.files.cert}

    def status(self) -> list[CertificateStatus]:
        """Every certificate that this relies on."""
        now = datetime.now(UTC)
        own = [("node", self.loaded.own)] if self.loaded.own is not None else []
        every = [*own, *(("authority", each) for each in self.loaded.authorities)]
        return [
            CertificateStatus(
                role=role,
                name=each.name,
                not_after=each.not_after,
                expires_s=(each.not_after - now).total_seconds(),
                not_taken=self.not_taken,
            )
            for role, each in every
        ]


def credentials_of(context: ssl.SSLContext | None) -> Credentials | None:
    """The credentials that a context comes from; None for a context that was made elsewhere."""
    return context.credentials if isinstance(context, _Renewed) else None


def asks_for_certificates(context: ssl.SSLContext) -> bool:
    """Whether nobody gets through a handshake with this server who shows none."""
    credentials = credentials_of(context)
    return credentials.demands if credentials is not None else context.verify_mode is ssl.CERT_REQUIRED
