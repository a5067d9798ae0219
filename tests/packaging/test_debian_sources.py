"""Which package sources `make image BASE=debian` takes from a machine."""

from pathlib import Path

import pytest

from config.image.debian_sources import SourcesError, deb822, machine_sources, machine_suite

BOOKWORM = 'ID=debian\nVERSION_CODENAME=bookworm\nPRETTY_NAME="Debian GNU/Linux 12 (bookworm)"\n'
USUAL = """\
# a comment
Types: deb deb-src
URIs: http://mirror.example.com/debian
Suites: bookworm bookworm-updates bookworm-backports
Components: main contrib
Signed-By: /usr/share/keyrings/debian-archive-keyring.gpg

Types: deb
URIs: https://download.example.com/docker
Suites: bookworm
Components: main stable
Signed-By: /etc/apt/keyrings/docker.asc
"""
ONE_LINE = """\
deb http://mirror.example.com/debian bookworm main contrib  # a comment
#deb http://mirror.example.com/debian bookworm-updates main
deb-src http://mirror.example.com/debian bookworm main
deb [arch=amd64 signed-by=/usr/share/keyrings/debian-archive-keyring.gpg] http://mirror.example.com/security bookworm-security main
deb https://packages.example.com/apt cloud-sdk-bookworm main
deb http://apt.example.com/pub bookworm-pgdg main
"""


def machine(folder: Path, files: dict[str, str], os_release: str = BOOKWORM) -> tuple[Path, Path]:
    """A machine's /etc/apt and /etc/os-release."""
    (folder / "apt" / "sources.list.d").mkdir(parents=True)
    for name, text in files.items():
        (folder / "apt" / name).write_text(text, encoding="utf-8")
    (folder / "os-release").write_text(os_release, encoding="utf-8")
    return folder / "apt", folder / "os-release"


@pytest.mark.parametrize(
    ("name", "text", "taken"),
    [
        pytest.param(
            "sources.list.d/debian.sources", USUAL, [("http://mirror.example.com/debian", "bookworm bookworm-updates")], id="deb822"
        ),
        pytest.param(
            "sources.list",
            ONE_LINE,
            [("http://mirror.example.com/debian", "bookworm"), ("http://mirror.example.com/security", "bookworm-security")],
            id="one-line",
        ),
    ],
)
def test_takes_debians_own_sources_of_the_release(name: str, text: str, taken: list[tuple[str, str]], tmp_path: Path) -> None:
    """Other vendors' repositories, other suites, sources and disabled lines are left out; `main` is enough."""
    found = deb822(machine_sources(*machine(tmp_path, {name: text})))
    assert [(stanza["URIs"], stanza["Suites"]) for stanza in found] == taken
    assert {(stanza["Types"], stanza["Components"]) for stanza in found} == {("deb", "main")}


def test_keeps_an_embedded_key(tmp_path: Path) -> None:
    """A mirror's own key is no keyring of Debian's: such a source is some other vendor's, but not without a key at all."""
    text = "Types: deb\nURIs: http://a.example.com\nSuites: bookworm\nComponents: main\nSigned-By:\n -----BEGIN\n .\n -----END\n"
    with pytest.raises(SourcesError, match="name no Debian source of bookworm"):
        machine_sources(*machine(tmp_path, {"sources.list.d/a.sources": text}))


@pytest.mark.parametrize(
    "text",
    [
        pytest.param("", id="nothing"),
        pytest.param(USUAL.replace("Types: deb deb-src", "Enabled: no\nTypes: deb"), id="switched-off"),
        pytest.param(USUAL.replace("bookworm", "trixie"), id="another-release"),
    ],
)
def test_says_so_when_there_is_none(text: str, tmp_path: Path) -> None:
    """With the places that were read."""
    with pytest.raises(SourcesError, match=r"sources\.list\.d name no Debian source of bookworm with the component main"):
        machine_sources(*machine(tmp_path, {"sources.list.d/debian.sources": text}))


def test_needs_debian(tmp_path: Path) -> None:
    """Another distribution's packages would make another base."""
    _, os_release = machine(tmp_path, {}, 'ID=fedora\nPRETTY_NAME="Fedora Linux 44"\n')
    with pytest.raises(SourcesError, match="this machine runs Fedora Linux 44"):
        machine_suite(os_release)
