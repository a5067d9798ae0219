"""`make lint`: actionlint and zizmor on .github/.

actionlint is built once of the Go module beside this file; zizmor is locked like every Python package. Neither asks the network.
If a tool is not available, a message names it.
"""

import subprocess
import sys
from pathlib import Path

from e2e.testbed.support.gobuild import BUILD, BuildError, built_once, cache_folder, go, version

MODULE = Path(__file__).parent
ROOT = MODULE.parents[1]
ACTIONLINT = "github.com/rhysd/actionlint/cmd/actionlint"
BUILD_SECONDS = 600
"""Nine seconds with Go's modules at hand; where packets are dropped, downloads have no other end."""


def actionlint() -> list[str]:
    """The command, built now if this version never was. Raises BuildError."""

    def build(folder: Path) -> None:
        print("lint: building actionlint, once …", file=sys.stderr, flush=True)  # noqa: T201
        go(MODULE, *BUILD, "-o", str(folder / "actionlint"), ACTIONLINT, seconds=BUILD_SECONDS)

    folder = built_once(cache_folder() / "actionlint" / version(MODULE), build)
    # What else is on the machine, shellcheck for example, must not decide what is found.
    return [str(folder / "actionlint"), "-shellcheck=", "-pyflakes="]


def zizmor() -> list[str]:
    """The command. Raises BuildError on a machine for which there is no wheel."""
    program = Path(sys.executable).with_name("zizmor")
    if not program.exists():
        raise BuildError(f"there is no {program}")
    return [str(program), "--offline", "--pedantic", "--quiet", "--no-progress"]


def check(project: Path = ROOT) -> bool:
    """Whether the workflows and Dependabot's configuration of a project are clean; findings are printed by the tools."""
    workflows = sorted(map(str, (project / ".github" / "workflows").glob("*.yml")))
    clean = True
    for tool, paths in ((actionlint, workflows), (zizmor, [str(project / ".github")])):
        try:
            command = tool()
        except BuildError as error:
            print(f"lint: the workflows are not checked with {tool.__name__}: {str(error).splitlines()[-1]}")  # noqa: T201
            continue
        clean &= subprocess.run([*command, *paths], check=False).returncode == 0  # noqa: S603  both are programs of ours
    return clean


if __name__ == "__main__":
    sys.exit(not check())
