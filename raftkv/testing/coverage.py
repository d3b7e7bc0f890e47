"""Which rows of the table of faults a simulated world can bring about, and by what."""

from __future__ import annotations

from collections.abc import Mapping

ROWS: dict[str, str] = {
    "crash": "F1-F6",
    "crash in an operation": "F1-F8 F12 F59 F60",
    "crash of all": "F2 F4 F5 F7",
    "lost unsynced changes": "F4 F7 F8 F12",
    "restart": "F37 F48 F66",
    "graceful stop": "F37",
    "pause": "F16 F34 F38 F72",
    "cut": "F38 F39 F43",
    "partition": "F26 F38 F40",
    "one-way cut": "F40",
    "cuts of any shape": "F39 F40 F41",
    "heal": "F38 F43",
    "reset": "F43 F66 F74",
    "slow network": "F30 F62 F65",
    "slow link": "F30 F65",
    "bit flip": "F61 F66 F74",
    "lost frame": "F45 F66 F74",
    "repeated frame": "F28 F29 F48 F66",
    "frame out of order": "F28 F29 F31 F66",
    "slow disk": "F16 F31",
    "hanging disk": "F16",
    "failing disk": "F15",
    "full disk": "F13 F14",
    "clock": "F73",
    "rot": "F9 F10 F61 F70",
    "stale write": "F19",
    "wiped directory": "F20",
    "older copy": "F21",
    "transfer": "F45 F48",
    "snapshot": "F59 F62 F69",
    "add": "F52 F54 F55",
    "promote": "F54 F55",
    "remove": "F37 F50 F53 F55",
}
"""By kind of fault, as `Report.faults` counts them."""


def table(faults: Mapping[str, int]) -> list[tuple[str, str, int]]:
    """Each kind with its rows and how often it met something; those that never did, too."""
    return [(kind, rows, faults.get(kind, 0)) for kind, rows in ROWS.items()]
