"""Memory that a training step frees and the next one asks for again."""

import ctypes
import platform

_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3  # malloc.h
_KEPT = 256 << 20


def keep_freed_memory() -> bool:
    """Let the C library keep freed blocks of up to 32 MB for the next allocation, and say whether it will.

    By default glibc hands a tensor of some megabytes back to the system when it is freed, and the next step pays a page
    fault for every 4 KB of the new one: more than half of a LightGCN epoch. For the whole process; glibc only.
    """
    if platform.libc_ver()[0] != "glibc":
        return False
    mallopt = ctypes.CDLL(None).mallopt
    return bool(mallopt(_M_MMAP_THRESHOLD, 32 << 20)) and bool(mallopt(_M_TRIM_THRESHOLD, _KEPT))
