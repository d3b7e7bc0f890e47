"""What is wrong with a cluster or with a data directory, and what to do: conditions that are looked for in evidence."""

import typing

from raftkv.lazy import exports as _exports

if typing.TYPE_CHECKING:
    from raftkv.doctor.cluster import ClusterView, Silent, stranger
    from raftkv.doctor.evidence import DirectorySeen, Event, Evidence, Heard, LogSeen, Trial
    from raftkv.doctor.finding import Finding, Severity, Sign
    from raftkv.doctor.table import TABLE, Condition, diagnose, exit_code_of
else:
    __getattr__, __dir__ = _exports(
        __name__,
        {
            "raftkv.doctor.cluster": "ClusterView Silent stranger",
            "raftkv.doctor.evidence": "DirectorySeen Event Evidence Heard LogSeen Trial",
            "raftkv.doctor.finding": "Finding Severity Sign",
            "raftkv.doctor.table": "TABLE Condition diagnose exit_code_of",
        },
    )

__all__ = [
    "TABLE",
    "ClusterView",
    "Condition",
    "DirectorySeen",
    "Event",
    "Evidence",
    "Finding",
    "Heard",
    "LogSeen",
    "Severity",
    "Sign",
    "Silent",
    "Trial",
    "diagnose",
    "exit_code_of",
    "stranger",
]
