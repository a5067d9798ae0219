"""The guide as a site, built once."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from e2e.testbed.documents import PROJECT


def built(project: Path, folder: Path) -> subprocess.CompletedProcess[str]:
    """What `make docs` does."""
    return subprocess.run(
        [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(folder)],
        cwd=project,
        env={**os.environ, "NO_MKDOCS_2_WARNING": "1"},
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
    )


@pytest.fixture(scope="session")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The site, built as `make docs` does: a link or anchor that leads nowhere, or a page that nothing leads to, fails it."""
    folder = tmp_path_factory.mktemp("site")
    done = built(PROJECT, folder)
    assert done.returncode == 0, done.stdout + done.stderr
    return folder
