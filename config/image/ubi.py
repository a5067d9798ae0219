"""The image on Red Hat's UBI as an OCI archive, for `make release BASE=ubi`: built by buildah on a base that a digest names.

The base is the Containerfile's, or BASE_IMAGE. Where that is a tag, the registry is asked for its digest: the image is built on
that, and a release writes it down, so that it can be built again.
"""

import os
import re
import shutil
import subprocess
from pathlib import Path

from config.image.debian import ROOT, BuildError, Labels, alone, archive_of, keep, say

NEEDED = ("buildah", "skopeo")
PYTHON = "python3.12"
_DEFAULT = re.compile(r"^ARG BASE_IMAGE=(\S+)$", re.MULTILINE)
_SECONDS = 60


def pinned_base() -> str:
    """The base by its digest. Raises BuildError when its registry does not tell."""
    found = _DEFAULT.search((ROOT / "Containerfile").read_text(encoding="utf-8"))
    base = os.environ.get("BASE_IMAGE") or (found[1] if found else "")
    if "@sha256:" in base:
        return base
    if not shutil.which("skopeo"):
        raise BuildError(f"needs skopeo to find the digest of {base}, or BASE_IMAGE=NAME@sha256:DIGEST")
    ask = ["skopeo", "inspect", "--no-tags", "--format", "{{.Digest}}", f"docker://{base}"]  # skopeo lists tags without mirrors
    try:
        done = subprocess.run(ask, capture_output=True, text=True, check=False, timeout=_SECONDS)  # noqa: S603  no shell, known programs
        problem = "" if done.returncode == 0 else (done.stderr.strip().splitlines() or ["no answer"])[-1]
    except subprocess.TimeoutExpired:
        problem = f"no answer within {_SECONDS} s"
    if problem:
        raise BuildError(
            f"BASE=ubi needs {base}, which cannot be reached; BASE_IMAGE= names a mirror's copy, BASE=debian needs none: {problem}"
        )
    name = re.sub(r":[^/:]+$", "", base)
    return f"{name}@{done.stdout.strip()}"


def image_archive(labels: Labels, base: str) -> Path:
    """The image on a base, from the user's cache or built now. Raises BuildError."""
    if not shutil.which("buildah"):
        raise BuildError("BASE=ubi needs buildah")
    archive = archive_of(base, labels)
    with alone() as builder:
        if not archive.exists():
            say(f"building the image on {base} …")
            builder.build(base, PYTHON, labels, archive, "--pull")
        keep(archive)
    return archive
