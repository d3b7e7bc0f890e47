"""Who a client is to its node, what that rests on, and whether it still holds."""

from __future__ import annotations

from ipaddress import ip_address
from typing import Any, Literal

import msgspec

from raftkv.access import Access
from raftkv.transport import alternative_names, common_names

CERTIFICATE_NAMES_MAX = 32

UNKNOWN = "this node serves only those who sign in: give a user and password, a token, or a user's certificate"


class Identity(msgspec.Struct, frozen=True):
    """A user as a connection has shown it, or nobody. It holds as long as what it rests on is there."""

    user: str | None = None
    """None: nobody."""
    by: Literal["nothing", "password", "token", "certificate", "this process"] = "nothing"
    """What was shown, whether it was right or not."""
    kept: str | bytes = b""
    """What the node had kept of it: the password's hash, the token's digest."""
    names: tuple[str, ...] = ()
    """Those of the certificate that was shown."""
    why: str = UNKNOWN
    """Why it is nobody."""
    as_of: int = 0
    """By which state of users and roles a password was nobody's: it is not kept, so it can't be looked at again."""

    def __repr__(self) -> str:
        return f"Identity({self.describe()})"

    @property
    def is_trusted(self) -> bool:
        """Whether it is of the program that the node runs in, which could do everything anyway."""
        return self.by == "this process"

    def describe(self) -> str:
        """For logs: who, and how that is known."""
        if self.is_trusted:
            return self.by
        return f"{self.user} by {self.by}" if self.user is not None else "nobody"

    def now(self, access: Access, now_ms: int) -> Identity:
        """Who it is by now: the same while what it rests on is there, and then nobody. Nobody with a certificate is a
        user as soon as there is one who lists it, and nobody with a token as soon as there is that token: it may be
        there for long, and this node have applied little of the log when it was shown."""
        if self.user is None:
            return self._found(access, now_ms)
        if self._holds(self.user, access, now_ms):
            return self
        why = f"{self.user} can't sign in by this {self.by} any more"
        return Identity(None, self.by, self.kept, self.names, why, access.generation)

    def may_be_known(self, access: Access) -> bool:
        """Whether its password, which was nobody's, may be somebody's by now. Any change counts, not only one of the
        user who was named: nobody shall learn in this way who there is."""
        return self.user is None and self.by == "password" and self.as_of != access.generation

    def _found(self, access: Access, now_ms: int) -> Identity:
        match self.by, self.kept:
            case "certificate", _:
                return of_certificate(self.names, access)
            case "token", bytes() as digest if (user := access.user_of_token(digest, now_ms)) is not None:
                return Identity(user, "token", digest)
            case _:
                return self

    def _holds(self, user: str, access: Access, now_ms: int) -> bool:
        match self.by:
            case "password":
                found = access.users.get(user)
                return found is not None and found.password == self.kept
            case "token":
                return isinstance(self.kept, bytes) and access.user_of_token(self.kept, now_ms) == user
            case _:
                return access.user_of_certificate(self.names) == user


NOBODY = Identity()

TRUSTED = Identity(by="this process")


def of_certificate(names: tuple[str, ...], access: Access) -> Identity:
    """Who shows a certificate with these names."""
    if not names:
        return NOBODY
    user = access.user_of_certificate(names)
    listed = ", ".join(names[:4])
    return Identity(user, "certificate", names=names, why=f"{UNKNOWN} (the certificate of {listed!r} is no user's)")


def certificate_names(certificate: Any) -> tuple[str, ...]:
    """The names in a certificate that TLS has accepted, as `ssl` tells them: the common name, then what it is for."""
    shown = certificate or {}
    names = (*common_names(shown), *alternative_names(shown, "DNS", "URI", "email", "IP Address"))
    return tuple(dict.fromkeys(names))[:CERTIFICATE_NAMES_MAX]


def host_of(peername: object) -> str:
    """Where a connection is from, without its port; one network of IPv6 that a single customer has is one place."""
    if not isinstance(peername, tuple) or not peername:
        return "unknown"
    host = str(peername[0])
    try:
        address = ip_address(host.partition("%")[0])
    except ValueError:
        return host
    mapped = getattr(address, "ipv4_mapped", None)
    if mapped is not None:
        return str(mapped)
    return f"{':'.join(address.exploded.split(':')[:4])}::/64" if address.version == 6 else str(address)
