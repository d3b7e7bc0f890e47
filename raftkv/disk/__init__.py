"""The interface through which all file work goes, with the real disk and a simulated one."""

from raftkv.disk.interface import Disk, DiskSpace, File, Lock
from raftkv.disk.real import RealDisk
from raftkv.disk.simulated import SimDisk

__all__ = ["Disk", "DiskSpace", "File", "Lock", "RealDisk", "SimDisk"]
