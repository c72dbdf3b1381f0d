"""Contents of small files of our own. Whatever lies at the path, reading it ends: in bytes or in OSError.

Opening a pipe waits for whoever writes into it, and a device may have no end. A hand, a mistaken link or a
copied folder puts such things where a key or a checkpoint should be.
"""

import errno
import os
import stat
from pathlib import Path
from typing import BinaryIO


def opened(path: Path) -> BinaryIO:
    """The file opened for reading. Raises OSError, also for what is no plain file."""
    file = os.fdopen(os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC), "rb")
    if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
        file.close()
        raise OSError(errno.EINVAL, "is no plain file", str(path))
    return file


def content_of(path: Path, *, max_bytes: int | None = None) -> bytes:
    """The whole file. Raises OSError, also for what is no plain file or longer than `max_bytes`."""
    with opened(path) as file:
        size = os.fstat(file.fileno()).st_size
        if max_bytes is not None and size > max_bytes:
            raise OSError(
                errno.EFBIG, f"holds {size:,} bytes, expected at most {max_bytes:,}", str(path)
            )
        return file.read()
