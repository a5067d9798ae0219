"""`python read_only.py COMMAND …`: run a command that may write no file, as root too.

As in a container with a read-only root filesystem and no volume that can be written to. It is a Landlock rule set, which needs no
privilege (https://docs.kernel.org/userspace-api/landlock.html).
"""

import ctypes
import os
import struct
import sys

_CREATE_RULESET, _ADD_RULE, _RESTRICT_SELF = 444, 445, 446  # the same on every architecture
_VERSION, _PATH_BENEATH, _NO_NEW_PRIVS = 1, 1, 38
_WRITE_FILE = 1 << 1
# Writing to files, removing and making anything; moving and truncating where the kernel is new enough to know.
_CHANGES = _WRITE_FILE | sum(1 << bit for bit in range(4, 13))
_REFER, _TRUNCATE = 1 << 13, 1 << 14
_libc = ctypes.CDLL(None, use_errno=True)


def supported() -> bool:
    """Whether this kernel can do it."""
    return bool(_libc.syscall(_CREATE_RULESET, None, 0, _VERSION) > 0)


def restrict() -> None:
    """From now on this process, and what it starts, writes to nothing but /dev/null and files that are open. Raises OSError."""
    version = _checked(_libc.syscall(_CREATE_RULESET, None, 0, _VERSION))
    handled = _CHANGES | (_REFER if version >= 2 else 0) | (_TRUNCATE if version >= 3 else 0)
    attributes = struct.pack("=Q", handled)
    rules = _checked(_libc.syscall(_CREATE_RULESET, attributes, len(attributes), 0))
    null = os.open(os.devnull, os.O_PATH)
    _checked(_libc.syscall(_ADD_RULE, rules, _PATH_BENEATH, struct.pack("=Qi", _WRITE_FILE, null), 0))
    _checked(_libc.prctl(_NO_NEW_PRIVS, 1, 0, 0, 0))
    _checked(_libc.syscall(_RESTRICT_SELF, rules, 0))


def _checked(result: int) -> int:
    if result < 0:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
    return result


if __name__ == "__main__":
    restrict()
    os.execv(sys.argv[1], sys.argv[1:])  # noqa: S606  that is what it is for
