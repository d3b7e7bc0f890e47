"""The settings of a client, with the reasons for their defaults; and how it signs in."""

from __future__ import annotations

from typing import TypedDict

import msgspec

from raftkv.addresses import is_loopback, split
from raftkv.config import MIB
from raftkv.errors import ConfigError
from raftkv.wire import SignIn

SECONDS_MAX = 366 * 86_400.0
"""A year: longer times are typing errors, and an infinite one can't be sent."""

SIGN_IN_CHARS_MAX = 1_024

SECRETS = frozenset({"password", "token"})


class SignInShort(TypedDict, total=False):
    """How one signs in, as arguments of a client; each is short for the field of `ClientOptions` of that name."""

    user: str | None
    password: str | None
    token: str | None
    insecure: bool | None


class Short(SignInShort, total=False):
    """The same of a client that calls commands and queries."""

    sessions: bool | None
    deadline_s: float | None


class ClientOptions(msgspec.Struct, frozen=True, kw_only=True):
    """How long a client tries, how fast, and how much it holds."""

    deadline_s: float = 10.0
    """For a call that names no deadline. Several elections fit into it, so callers don't notice a failover."""
    sessions: bool = True
    """Commands are applied exactly once. Without, a command whose answer is lost ends with `Indeterminate` at once."""
    connect_timeout_s: float = 1.0
    """For connecting and the handshake; a host that is gone must not use up the whole deadline. One that is reached and
    then too slow is waited for longer the next times. A name's look-up is not part of it: that goes on while others are
    tried."""
    head_start_s: float = 0.25
    """When an address has not answered after so long, the next one is tried beside it; as RFC 8305 has it."""
    refresh_s: float = 30.0
    """A client that has heard nothing from a leader for so long asks for the members, so that it knows live nodes when
    it is used again. Without an answer it asks less and less often, at last once in ten minutes."""
    silence_s: float = 2.0
    """When calls wait on a connection and no answer has come for so long, the connection is given up, even if its node
    is alive. Longer than an election, so that a healthy leader is hardly ever given up."""
    probe_s: float = 0.4
    """When calls wait on a connection and nothing has come for so long, the node is asked for a sign of life …"""
    probe_answer_s: float = 0.4
    """… and without one for so long, the connection is given up: the host may be dead, cut off or paused. A node that
    is slow, or has a slow disk, answers at once. Both together are about as long as an election takes."""
    probe_parked_s: float = 3.0
    """The same as `probe_s` when all that wait are calls that are answered when something happens: rarer, as very many
    clients may wait like this for long."""
    backoff_min_s: float = 0.01
    backoff_max_s: float = 0.1
    """Between two tries to find the leader; less than an election takes, so that a new one is found soon."""
    busy_backoff_max_s: float = 0.3
    """Between two tries at a busy leader: longer, so that it can catch up."""
    in_flight_max: int = 2_048
    """Requests outstanding on one connection; below what a server takes (`connection_requests_max`)."""
    waiting_max: int = 50_000
    """Calls that are not answered yet, whether sent or not; more get `Busy`."""
    frame_bytes_max: int = 9 * MIB
    """The largest frame, as the servers' `client_frame_bytes_max`."""
    write_bytes_max: int = 4 * MIB
    """Bytes that wait to be sent on a connection; above that, calls wait in the client."""
    user: str = ""
    """Who signs in, by `password`. Without, and without `token`, nodes may know a client by its certificate."""
    password: str = ""
    token: str = ""
    """Signs in as the user whom it was made for."""
    insecure: bool = False
    """Whether a password or token may be sent beyond this machine without TLS, where all on the way can read it."""

    def __post_init__(self) -> None:
        self._check_sign_in()
        for name in (
            "deadline_s",
            "connect_timeout_s",
            "head_start_s",
            "refresh_s",
            "silence_s",
            "probe_s",
            "probe_answer_s",
            "probe_parked_s",
            "backoff_min_s",
        ):
            if not 0 < getattr(self, name) <= SECONDS_MAX:
                raise ConfigError(f"{name} = {getattr(self, name)!r}: must be above 0 and at most {SECONDS_MAX:g}")
        for name in ("backoff_max_s", "busy_backoff_max_s"):
            if not self.backoff_min_s <= getattr(self, name) <= SECONDS_MAX:
                raise ConfigError(f"{name} = {getattr(self, name)!r}: must be from backoff_min_s to {SECONDS_MAX:g}")
        for name in ("in_flight_max", "waiting_max"):
            if getattr(self, name) < 1:
                raise ConfigError(f"{name} = {getattr(self, name)!r}: must be at least 1")
        for name in ("frame_bytes_max", "write_bytes_max"):
            if getattr(self, name) < 1024:
                raise ConfigError(f"{name} = {getattr(self, name)!r}: must be at least 1024")

    def _check_sign_in(self) -> None:
        for name in ("user", "password", "token"):
            value = getattr(self, name)
            if not isinstance(value, str) or len(value) > SIGN_IN_CHARS_MAX:
                raise ConfigError(f"{name}: must be a text of at most {SIGN_IN_CHARS_MAX} characters")
        if self.token and (self.user or self.password):
            raise ConfigError("token: it says who one is, so give no user and no password with it")
        if bool(self.user) is not bool(self.password):
            missing = "password" if self.user else "user"
            raise ConfigError(f"{missing}: one signs in by a user's name and password, or by a token alone")

    def __repr__(self) -> str:
        shown = (
            f"{name}={'…' if name in SECRETS and getattr(self, name) else repr(getattr(self, name))}"
            for name in self.__struct_fields__
        )
        return f"ClientOptions({', '.join(shown)})"

    @property
    def sign_in(self) -> SignIn | None:
        """What to show a node; None for a client that has neither password nor token."""
        return SignIn(self.user, self.password, self.token) if self.password or self.token else None

    def with_short(self, short: SignInShort) -> ClientOptions:
        """With what was given besides (None: as it is here). Raises `ConfigError`."""
        given = {name: value for name, value in short.items() if value is not None}
        unknown = sorted(given.keys() - Short.__annotations__.keys())
        if unknown:
            raise TypeError(f"{', '.join(unknown)}: no setting of a client")
        return msgspec.structs.replace(self, **given) if given else self

    def is_safe_at(self, host: str, *, has_tls: bool) -> bool:
        """Whether what it signs in by may be sent there."""
        return has_tls or self.insecure or self.sign_in is None or is_loopback(host)

    def check_addresses(self, addresses: tuple[str, ...], *, has_tls: bool) -> None:
        """Raises `ConfigError` where a password or token would be readable on its way."""
        for address in addresses:
            host, _ = split(address)
            if not self.is_safe_at(host, has_tls=has_tls):
                raise ConfigError(
                    f"{'password' if self.password else 'token'}: not sent to {address} without TLS, as everybody on "
                    "the way could read it: give TLS (ssl, --tls-ca), or say that the network may be trusted (insecure)"
                )
