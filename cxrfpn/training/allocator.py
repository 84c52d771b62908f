"""glibc's memory allocator, set for long runs on a CPU."""

import ctypes
import sys

# glibc's mallopt (malloc.h): the parameter and the value that a training run wants.
_TRIM_THRESHOLD, _TOP_PAD, _MMAP_MAX = -1, -2, -4
_SETTINGS = {_MMAP_MAX: 0, _TRIM_THRESHOLD: 2**31 - 1, _TOP_PAD: 2**28}


def keep_freed_memory() -> bool:
    """Keep freed memory in the process, instead of giving it back to the kernel after every step.

    By default glibc maps each large tensor again, and the kernel clears its pages each time: a long run then spends up
    to half of its time in the kernel. Call it before the first tensor is made; it cannot be undone.

    Returns:
        whether this system's C library took the settings; on any other than Linux with glibc, nothing happens.
    """
    if sys.platform != "linux":
        return False
    try:
        mallopt = ctypes.CDLL("libc.so.6").mallopt
    except (OSError, AttributeError):
        return False
    return all(mallopt(parameter, value) == 1 for parameter, value in _SETTINGS.items())
