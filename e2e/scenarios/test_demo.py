"""The demonstration that README begins with."""

import subprocess
import sys

from e2e.testbed.documents import PROJECT


def test_the_demo_is_what_the_readme_says() -> None:
    """`make demo` shows tags that heal and pods that start, and ends well."""
    recipe = subprocess.run(
        ["make", "--dry-run", "--no-print-directory", "demo", "READY="], cwd=PROJECT, capture_output=True, text=True, check=True
    ).stdout
    assert recipe.split()[-2:] == ["-m", "e2e.demo"]
    done = subprocess.run([sys.executable, "-m", "e2e.demo"], cwd=PROJECT, capture_output=True, text=True, check=False, timeout=600)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "tags healed" in done.stdout
    further = done.stdout[done.stdout.index("Look further") :]
    for command in ("status", "missing", "retry", "explain"):
        assert f"mirrorstream {command} " in further
    assert "--kubeconfig" not in further
