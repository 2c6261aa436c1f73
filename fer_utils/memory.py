"""Memory for large tensors, which the C library would map anew for each operation."""

import ctypes
from contextlib import suppress


def keep_freed_memory() -> None:
    """Let glibc keep what was freed for the next operation, until the process ends.

    By default it returns large blocks to the system, which maps them page by page again: 5 to 30% of the time
    of a training step, and half the time in which FaceNet predicts batches.
    """
    m_trim_threshold, m_top_pad, m_mmap_threshold = -1, -2, -3  # malloc.h
    with suppress(OSError, AttributeError):  # where there is no glibc
        libc = ctypes.CDLL("libc.so.6")
        for option, value in ((m_mmap_threshold, 2**30), (m_trim_threshold, 2**31 - 1), (m_top_pad, 2**28)):
            libc.mallopt(option, value)
