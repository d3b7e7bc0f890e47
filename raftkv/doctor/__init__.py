"""What is wrong with a cluster or with a data directory, and what to do: conditions that are looked for in evidence."""

from raftkv.doctor.cluster import ClusterView, Silent
from raftkv.doctor.evidence import DirectorySeen, Event, Evidence, Heard, LogSeen, Trial
from raftkv.doctor.finding import Finding, Severity, Sign
from raftkv.doctor.table import TABLE, Condition, diagnose, exit_code_of

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
]
