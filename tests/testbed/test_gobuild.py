"""Building with Go: what goes wrong is said."""

from pathlib import Path

import pytest

from e2e.testbed.support.gobuild import BuildError, go


def test_a_build_that_takes_too_long_ends(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Behind a firewall that drops packets, downloads of modules never end by themselves."""
    program = tmp_path / "go"
    program.write_text("#!/bin/sh\nexec sleep 600\n", encoding="utf-8")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=":")
    with pytest.raises(BuildError, match="`go build` took longer than 1 s"):
        go(tmp_path, "build", seconds=1)
