"""Locks of files and folders, where the file system has them."""

from __future__ import annotations

import errno

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None  # type: ignore[assignment]

# What flock and fsync of a folder answer where a file system has none, or it cannot be listed.
UNSUPPORTED = frozenset(
    getattr(errno, name)
    for name in ("EINVAL", "ENOLCK", "ENOSYS", "EOPNOTSUPP", "ENOTSUP", "EBADF", "EACCES")
)


def supported() -> bool:
    """Return whether this system has locks; without them an open file cannot be renamed either."""
    return fcntl is not None


def lock(descriptor: int) -> bool | None:
    """Lock an open file or folder.

    Args:
        descriptor: Of the open file.

    Returns:
        False if another holds it, `None` if locks are not supported.
    """
    if fcntl is None:
        return None
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError as error:
        if error.errno not in UNSUPPORTED:
            raise
        return None
    return True


def unlock(descriptor: int) -> None:
    """End a lock. Closing is not enough: a process that was forked meanwhile shares it.

    Args:
        descriptor: Of the open file.
    """
    fcntl.flock(descriptor, fcntl.LOCK_UN)
