"""What images of test pods are built on: Debian's static busybox, which ends at once when it is told to."""

import functools
import io
import tarfile

from e2e.testbed.node.build import BUSYBOX
from e2e.testbed.registries.store import Base

APPLETS = ("cat", "date", "echo", "env", "false", "id", "ls", "nc", "sh", "sleep", "test", "touch", "true", "wget")
# As PID 1 it gets no signal that it does not ask for. A shell acts on one only between commands, or while it waits.
RUN = "trap 'exit 0' TERM INT; while :; do sleep 3600 & wait $!; done"


@functools.cache
def base() -> Base:
    """The layer, and a command that runs until TERM."""
    raw = io.BytesIO()
    with tarfile.open(fileobj=raw, mode="w") as tar:
        for name in ("bin", "tmp", "etc"):
            folder = tarfile.TarInfo(name)
            folder.type, folder.mode = tarfile.DIRTYPE, 0o1777 if name == "tmp" else 0o755
            tar.addfile(folder)
        program = tarfile.TarInfo("bin/busybox")
        content = BUSYBOX.read_bytes()
        program.size, program.mode = len(content), 0o755
        tar.addfile(program, io.BytesIO(content))
        for name in APPLETS:
            link = tarfile.TarInfo(f"bin/{name}")
            link.type, link.linkname = tarfile.SYMTYPE, "busybox"
            tar.addfile(link)
    return Base(raw.getvalue(), ("/bin/sh", "-c", RUN))
