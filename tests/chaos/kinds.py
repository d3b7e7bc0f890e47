"""Every kind of fault that a run of chaos chooses from, and how many of which a long run owes."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable
from functools import partial

import msgspec

from tests.chaos import certificates, filesystem, links, strangers, syscalls
from tests.chaos.clocks import RATES, ClockWrong
from tests.chaos.damage import Damage
from tests.chaos.differences import STOPPED_LONG_S, SlowFollower, Surroundings
from tests.chaos.expiry import CertificatesRunOut
from tests.chaos.fault import RealFault
from tests.chaos.forks import Forks
from tests.chaos.foundings import Founded
from tests.chaos.fullness import DiskFilled
from tests.chaos.host import HostClock
from tests.chaos.kills import PAUSED_LONG_S, LeaderKilled, NodesKilled, Paused, RollingRestart
from tests.chaos.lineages import BackupRestored, SurvivorRecovered
from tests.chaos.moves import SeedGone
from tests.chaos.names import NamesLost
from tests.chaos.points import HandoverDropped, KilledAt, PowerCutAt
from tests.chaos.power import CutAtMoment, PowerCut, WholePowerCut, all_nodes, one_node
from tests.chaos.proxy import LinkProxy
from tests.chaos.restarts import KilledTwice
from tests.chaos.rights import RightsChanged
from tests.chaos.rotation import SecretReplaced
from tests.chaos.scans import Scanned
from tests.chaos.sinks import LogUnread
from tests.chaos.stage import ChaosStage
from tests.chaos.syscalls import ERRORS, INTERRUPTED, CallsFail, SlowDisk
from tests.chaos.transfers import SETTINGS, TransferCut
from tests.chaos.vandals import FILE_FLIPPED, DirectoryLost, FilesDamaged, ForeignFiles

Make = Callable[[ChaosStage], RealFault]

MALFORMED = 40_000
"""Frames in a round."""

ARGUMENTS = SETTINGS
"""What `raftkv serve` is told so that all of these can happen."""


def _proxy(stage: ChaosStage) -> LinkProxy:
    assert stage.proxy is not None, "this kind of fault needs a proxy on every link"
    return stage.proxy


def _link(make: Callable[..., RealFault], **more: bool) -> Make:
    return lambda stage: make(_proxy(stage), stage.dice, **more)


def _power(make: Callable[..., RealFault], file_system: str) -> Make:
    return lambda stage: make(file_system, stage.dice)


FILE_SYSTEMS = [kind for kind in filesystem.KINDS if filesystem.missing(kind) is None]
"""On which power can be cut here."""

_REASONS = {
    **{f"power-{kind}": filesystem.missing(kind) for kind in filesystem.KINDS},
    "disk-full": filesystem.missing("ext4"),
    "disk-fails": syscalls.missing(),
    "certificates": certificates.missing(),
}

SKIPPED = {name: reason for name, reason in _REASONS.items() if reason is not None}
"""What can't be done here, and why."""

_OF_CALLS: dict[str, Make] = (
    {
        "disk-fails": lambda stage: CallsFail(stage.dice.choice(ERRORS), stage.dice),
        "disk-interrupted": lambda stage: CallsFail(INTERRUPTED, stage.dice, ends=False),
        "disk-slow": lambda stage: SlowDisk(stage.dice),
    }
    if syscalls.missing() is None
    else {}
)

_OF_SPACE: dict[str, Make] = (
    {"disk-full": lambda stage: DiskFilled(stage.dice, stage.dice.randint(1, 3), of_leader=stage.dice.random() < 0.5)}
    if "ext4" in FILE_SYSTEMS
    else {}
)

_OF_TLS: dict[str, Make] = (
    {"certificates": lambda stage: CertificatesRunOut(stage.dice)} if certificates.missing() is None else {}
)

KINDS: dict[str, Make] = {
    "kill-leader": lambda stage: LeaderKilled(stage.dice),
    "kill-nodes": lambda stage: NodesKilled(stage.dice),
    "failpoints": lambda stage: KilledAt(stage.dice),
    "handover-dropped": lambda stage: HandoverDropped(),
    "pause": lambda stage: Paused(stage.dice),
    "pause-long": lambda stage: Paused(stage.dice, PAUSED_LONG_S, of_leader=True),
    "surroundings": lambda stage: Surroundings(stage.dice),
    "slow-follower": lambda stage: SlowFollower(stage.dice),
    "slow-follower-long": lambda stage: SlowFollower(stage.dice, STOPPED_LONG_S),
    "rolling-restart": lambda stage: RollingRestart(),
    "log-unread": lambda stage: LogUnread(stage.dice),
    "scans": lambda stage: Scanned(stage.dice),
    "seed-gone": lambda stage: SeedGone(stage.dice),
    "names": lambda stage: NamesLost(stage.dice),
    "clock-jumps": lambda stage: ClockWrong(stage.dice),
    "clock-rates": lambda stage: ClockWrong(stage.dice, HostClock(rate=stage.dice.choice(RATES))),
    "founding": lambda stage: Founded(stage.dice),
    "killed-twice": lambda stage: KilledTwice(stage.dice),
    "backups": lambda stage: BackupRestored(stage.dice),
    "survivors": lambda stage: SurvivorRecovered(stage.dice),
    "forks": lambda stage: Forks(stage.dice),
    "rights": lambda stage: RightsChanged(stage.dice),
    "secrets": lambda stage: SecretReplaced(stage.dice),
    "partitions": _link(links.Partitions),
    "every-shape": _link(links.EveryShape),
    "leader-cut-off": _link(links.LeaderCutOff),
    "bridge": _link(links.Bridge),
    "flapping": _link(links.Flapping),
    "rough": _link(links.rough),
    "replays": _link(links.replays),
    "flips-peers": _link(links.flips, of_clients=False),
    "flips-clients": _link(links.flips, of_clients=True),
    "slow-link": _link(links.throttle),
    "resets-peers": _link(links.Resets, of_clients=False),
    "resets-clients": _link(links.Resets, of_clients=True),
    "half-open-peers": _link(links.HalfOpen, of_clients=False),
    "half-open-clients": _link(links.HalfOpen, of_clients=True),
    "lost-replies": _link(links.LostReplies),
    "clients-cut-off": _link(links.ClientsCutOff),
    "transfer-cut": _link(TransferCut),
    "malformed": lambda stage: strangers.Malformed(stage.dice, MALFORMED),
    "slow-strangers": lambda stage: strangers.SlowStrangers(stage.dice),
    "crowd": lambda stage: strangers.VanishingCrowd(stage.dice),
    "file-flips": lambda stage: FilesDamaged(stage.dice),
    "file-damage": lambda stage: FilesDamaged(stage.dice, [Damage.CUT, Damage.GONE, Damage.OLDER]),
    "foreign-files": lambda stage: ForeignFiles(stage.dice),
    "directories": lambda stage: DirectoryLost(stage.dice),
    **_OF_TLS,
    **_OF_CALLS,
    **_OF_SPACE,
    **{f"power-{file_system}": _power(PowerCut, file_system) for file_system in FILE_SYSTEMS},
    **{f"power-all-{file_system}": _power(WholePowerCut, file_system) for file_system in FILE_SYSTEMS},
    **{f"power-points-{file_system}": _power(PowerCutAt, file_system) for file_system in FILE_SYSTEMS},
    **{f"power-names-{file_system}": _power(CutAtMoment, file_system) for file_system in FILE_SYSTEMS},
}


class Quota(msgspec.Struct, frozen=True):
    """What a run of twenty minutes owes: so many of these, counted together."""

    name: str
    wanted: int
    a_round: int
    """About so many come of one round."""
    kinds: dict[str, str]
    """Names in `KINDS`, and what they count as."""
    also: tuple[str, ...] = ()
    """What counts too, though it is owed for its own sake."""

    def done(self, fired: Counter[str]) -> int:
        """How many there were."""
        return sum(fired[counted] for counted in {*self.kinds.values(), *self.also})


QUOTAS = (
    Quota("kills", 300, 10, {"kill-leader": LeaderKilled.kind, "kill-nodes": NodesKilled.kind}),
    Quota("kills at failpoints", 72, 6, {"failpoints": KilledAt.kind}),
    Quota("pauses", 100, 4, {"pause": Paused.kind}, also=(Paused.long,)),
    Quota("pauses of half a minute", 1, 1, {"pause-long": Paused.long}),
    Quota("followers stopped for a minute", 1, 1, {"slow-follower-long": SlowFollower.long}),
    Quota(
        "partitions",
        100,
        links.SHAPES,
        {"partitions": links.Partitions.kind},
        also=(links.LeaderCutOff.kind, links.Bridge.kind, TransferCut.kind, links.EveryShape.kind),
    ),
    Quota("shapes of a partition, each once", 63, 63, {"every-shape": links.EveryShape.kind}),
    Quota("malformed frames", 200_000, MALFORMED, {"malformed": strangers.Malformed.kind}),
    Quota("foreign files", 20, 5, {"foreign-files": ForeignFiles.kind}),
    Quota("logs that nobody takes", 6, 1, {"log-unread": LogUnread.kind}),
    Quota("scans of everything", 3, 1, {"scans": Scanned.kind}),
    Quota("seeds that clients lost", 3, 1, {"seed-gone": SeedGone.kind}),
    Quota("lookups of names that are wrong", 8, 2, {"names": NamesLost.kind}),
    Quota("clocks that jump", 6, 1, {"clock-jumps": ClockWrong.kind}),
    Quota("clocks of a wrong rate", 6, 1, {"clock-rates": ClockWrong.rate}),
    Quota("foundings cut off", 6, 2, {"founding": Founded.kind}),
    *[Quota("certificates replaced", 3, 1, {name: CertificatesRunOut.kind}) for name in _OF_TLS],
    Quota("rights changed", 24, 8, {"rights": RightsChanged.kind}),
    Quota("cluster secrets replaced", 3, 1, {"secrets": SecretReplaced.kind}),
    Quota("nodes killed twice in a row", 6, 1, {"killed-twice": KilledTwice.kind}),
    Quota("backups restored", 20, 2, {"backups": BackupRestored.kind}),
    Quota("survivors recovered", 20, 2, {"survivors": SurvivorRecovered.kind}),
    Quota("forks under load", 24, 8, {"forks": Forks.kind}),
    Quota("flipped bits in files", 500, 40, {"file-flips": FILE_FLIPPED}),
    *[Quota(f"power cuts, {name}", 150, 12, {f"power-{name}": one_node(name)}) for name in FILE_SYSTEMS],
    *[Quota(f"power cuts of all, {name}", 50, 6, {f"power-all-{name}": all_nodes(name)}) for name in FILE_SYSTEMS],
)

LONG = ("every-shape", "pause-long", "slow-follower-long")
"""Kinds that take half a minute or more: once in a scene is enough."""

RUN_S = 1200.0
"""The length of a run that owes all of them; a shorter one owes its part."""


def owed(fired: Counter[str], played_s: float) -> list[Quota]:
    """Those that a run of so many seconds has not met yet, the most behind first."""
    part = min(1.0, played_s / RUN_S)
    behind = [quota for quota in QUOTAS if quota.done(fired) < quota.wanted * part]
    return sorted(behind, key=partial(_share, fired))


def expected(kinds: Iterable[str]) -> Counter[str]:
    """What will come of rounds of these kinds, as far as it is owed."""
    return Counter(
        {
            quota.kinds[kind]: quota.a_round * times
            for kind, times in Counter(kinds).items()
            for quota in QUOTAS
            if kind in quota.kinds
        }
    )


def _share(fired: Counter[str], quota: Quota) -> float:
    return quota.done(fired) / quota.wanted
