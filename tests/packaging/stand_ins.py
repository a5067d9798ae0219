"""Programs in place of those that an image is built with."""

from pathlib import Path

PROGRAMS = {
    "apt-config": "echo 'Acquire::http::Proxy \"http://proxy.example.com:3128\";'",
    # … SUITE TARGET SOURCES
    "mmdebstrap": 'while [ $# -gt 2 ]; do shift; done; cp "$TMPDIR/apt.conf" "$FOLDER"; cp "$2" "$FOLDER/sources"; echo > "$1"',
    # … push … oci:LAYOUT:NAME
    "buildah": """
        case "$7" in push) for last; do :; done; last=${last#oci:}; layout=${last%%:*}; mkdir -p "$layout/blobs/sha256"
        echo blob > "$layout/blobs/sha256/1"; echo '{"manifests": [{"digest": "sha256:1"}]}' > "$layout/index.json";; esac""",
}


def replace(folder: Path, name: str, script: str) -> None:
    """A program that writes down that it was called, and then does what `script` says."""
    (folder / name).write_text(f'#!/bin/sh\necho "{name} $*" >> "$FOLDER/calls"\n{script}\n', encoding="utf-8")
    (folder / name).chmod(0o755)


def calls(folder: Path) -> list[str]:
    """The programs that were called, in order."""
    return (folder / "calls").read_text(encoding="utf-8").splitlines() if (folder / "calls").exists() else []


def cached(tmp_path: Path) -> list[str]:
    """What is in the cache, without digests."""
    return sorted(path.name.partition("-")[0] for path in (tmp_path / "cache" / "mirrorstream" / "image").glob("*"))
