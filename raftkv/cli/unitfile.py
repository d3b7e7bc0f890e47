"""A systemd unit for a node: started again when it fails, left alone when its data is in doubt, and shut in."""

from __future__ import annotations

import os
import re
import shutil
import sys

import msgspec

from raftkv.errors import ConfigError

STATE_ROOT = "/var/lib/"
"""Directories below it are made by systemd, for the unit's user."""

UNIT = """\
# Made by `raftkv monitoring systemd`. Write it to /etc/systemd/system/raftkv.service, then
#   systemctl daemon-reload && systemctl enable --now raftkv
[Unit]
Description=raftkv node
Wants=network-online.target
After=network-online.target time-sync.target
# A node that can't start yet, as of a name that does not resolve, is tried for as long as it takes.
StartLimitIntervalSec=0

[Service]
Type=notify
NotifyAccess=main
User={user}
ExecStart={command}
# New files of TLS and of the cluster secret are taken up.
ExecReload=/bin/kill -HUP $MAINPID
Restart=on-failure
RestartSec=2
# 5: its data is in doubt, and it has said what to do. 6: it was removed from its cluster.
RestartPreventExitStatus=5 6
# To read a large state takes as long as it takes; `systemctl status` says so meanwhile.
TimeoutStartSec=infinity
# A leader hands over within 3 s; to kill a node is safe.
TimeoutStopSec=30
# Above the 30 s after which a node stops by itself because its disk hangs, and says so.
WatchdogSec=60

LimitNOFILE=65536
LimitCORE=0
OOMScoreAdjust=-500
UMask=0077
{directory}
NoNewPrivileges=yes
CapabilityBoundingSet=
ProtectSystem=strict
ProtectHome=read-only
PrivateTmp=yes
PrivateDevices=yes
ProtectClock=yes
ProtectControlGroups=yes
ProtectHostname=yes
ProtectKernelLogs=yes
ProtectKernelModules=yes
ProtectKernelTunables=yes
RestrictAddressFamilies=AF_INET AF_INET6 AF_UNIX
RestrictNamespaces=yes
RestrictRealtime=yes
RestrictSUIDSGID=yes
LockPersonality=yes
SystemCallArchitectures=native
SystemCallFilter=@system-service

[Install]
WantedBy=multi-user.target
"""


class Unit(msgspec.Struct, frozen=True, kw_only=True):
    """What differs from one machine to another."""

    user: str
    config: str
    data_dir: str
    program: tuple[str, ...]
    """The command before `serve`."""

    def text(self) -> str:
        """The file. Raises `ConfigError` for what systemd would not take."""
        if not re.fullmatch(r"[a-z_][a-z0-9_-]{0,30}", self.user):
            raise ConfigError(f"user = {self.user!r}: must be the name of a user of the system, such as raftkv")
        for name, path in (("config", self.config), ("data-dir", self.data_dir), ("program", self.program[0])):
            if not os.path.isabs(path):
                raise ConfigError(
                    f"{name} = {path!r}: must be an absolute path, as systemd starts it from no directory"
                )
        words = (*self.program, "serve", "--config", self.config, "--data-dir", self.data_dir)
        return UNIT.format(user=self.user, command=" ".join(map(_quoted, words)), directory=self._directory())

    def _directory(self) -> str:
        """The line by which the unit may write its data directory, and nothing else."""
        path = os.path.normpath(self.data_dir)
        if path.startswith(STATE_ROOT):
            return f"StateDirectory={_quoted(path.removeprefix(STATE_ROOT))}\nStateDirectoryMode=0700"
        return f"ReadWritePaths={_quoted(path)}"


def this_program() -> tuple[str, ...]:
    """How this very program is started: by its script if there is one, else by its interpreter."""
    script = shutil.which("raftkv", path=os.path.dirname(sys.executable)) or shutil.which("raftkv")
    return (os.path.abspath(script),) if script is not None else (sys.executable, "-m", "raftkv")


def _quoted(word: str) -> str:
    """As systemd reads it: `%` and `$` mean something to it, and so do blanks and quotes."""
    if not word.isprintable():
        raise ConfigError(f"{word!r}: a unit file can't hold it")
    word = word.replace("%", "%%").replace("$", "$$")
    if re.fullmatch(r"[\w/.:@=,+%$-]+", word):
        return word
    escaped = word.replace("\\", "\\\\").replace('"', '\\"')
    return f'"{escaped}"'
