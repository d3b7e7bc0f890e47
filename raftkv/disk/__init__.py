"""The interface through which all file work goes, with the real disk and a simulated one."""

import typing

from raftkv.lazy import exports as _exports

if typing.TYPE_CHECKING:
    from raftkv.disk.interface import Disk, DiskSpace, File, Lock
    from raftkv.disk.real import RealDisk
    from raftkv.disk.simulated import SimDisk
else:
    __getattr__, __dir__ = _exports(
        __name__,
        {
            "raftkv.disk.interface": "Disk DiskSpace File Lock",
            "raftkv.disk.real": "RealDisk",
            "raftkv.disk.simulated": "SimDisk",
        },
    )

__all__ = ["Disk", "DiskSpace", "File", "Lock", "RealDisk", "SimDisk"]
