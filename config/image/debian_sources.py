"""Which of a machine's package sources are Debian's own: apt's two formats, read as sources.list(5) defines them."""

import re
from pathlib import Path

OS_RELEASE = Path("/etc/os-release")
APT = Path("/etc/apt")
KEYRING = re.compile(r"debian-archive-[\w-]*keyring|debian-archive-[\w-]*\.(asc|pgp|gpg)")
_ONE_LINE = re.compile(r"deb\s+(?:\[(?P<options>[^]]*)\]\s+)?(?P<uri>\S+)\s+(?P<suite>\S+)\s+(?P<components>.+)")


class SourcesError(Exception):
    """The machine has no usable Debian sources; the text says what is missing."""


def machine_suite(os_release: Path = OS_RELEASE) -> str:
    """The release's name, `bookworm` for example. Raises SourcesError on a machine without Debian."""
    text = os_release.read_text(encoding="utf-8") if os_release.exists() else ""
    fields = {key: value.strip("\"'") for key, _, value in (line.partition("=") for line in text.splitlines())}
    if fields.get("ID") != "debian" or not fields.get("VERSION_CODENAME"):
        found = fields.get("PRETTY_NAME") or "something else"
        raise SourcesError(f"BASE=debian takes the machine's own Debian sources, and this machine runs {found}")
    return fields["VERSION_CODENAME"]


def machine_sources(apt: Path = APT, os_release: Path = OS_RELEASE) -> str:
    """Debian's own sources of the running release, in the deb822 format. Raises SourcesError when there are none."""
    suite = machine_suite(os_release)
    stanzas = []
    for path in [apt / "sources.list", *sorted((apt / "sources.list.d").glob("*"))]:
        if path.suffix not in (".list", ".sources") or not path.is_file():
            continue
        text = path.read_text(encoding="utf-8")
        stanzas += debian_stanzas(deb822(text) if path.suffix == ".sources" else one_line(text), suite)
    if not stanzas:
        raise SourcesError(f"{apt}/sources.list and {apt}/sources.list.d name no Debian source of {suite} with the component main")
    return "\n".join("".join(f"{key}: {value}\n" for key, value in stanza.items()) for stanza in stanzas)


def debian_stanzas(stanzas: list[dict[str, str]], suite: str) -> list[dict[str, str]]:
    """Debian's own, which no other key signs: `main` of the release, its updates and its security updates."""
    wanted = {suite, f"{suite}-updates", f"{suite}-security", f"{suite}/updates"}
    found = []
    for stanza in stanzas:
        suites = [name for name in stanza.get("Suites", "").split() if name in wanted]
        signed = stanza.get("Signed-By", "")
        is_debians = not signed or KEYRING.search(signed)
        is_on = stanza.get("Enabled", "yes").lower() not in ("no", "false", "0", "off", "without", "disable")
        if suites and is_on and is_debians and "deb" in stanza["Types"].split() and "main" in stanza.get("Components", "").split():
            found.append({**stanza, "Types": "deb", "Suites": " ".join(suites), "Components": "main"})
    return found


def deb822(text: str) -> list[dict[str, str]]:
    """Stanzas of a .sources file."""
    stanzas: list[dict[str, str]] = [{}]
    key = ""
    for line in text.splitlines():
        if line.startswith("#"):
            continue
        if not line.strip():
            stanzas.append({})
        elif line[0].isspace():
            stanzas[-1][key] += f"\n{line}"
        else:
            key, _, value = line.partition(":")
            stanzas[-1][key] = value.strip()
    return [stanza for stanza in stanzas if "Types" in stanza]


def one_line(text: str) -> list[dict[str, str]]:
    """Lines of a .list file, as stanzas."""
    stanzas = []
    for line in text.splitlines():
        if not (found := _ONE_LINE.fullmatch(line.partition("#")[0].strip())):
            continue
        options = dict(word.split("=", 1) for word in (found["options"] or "").split() if "=" in word)
        stanza = {"Types": "deb", "URIs": found["uri"], "Suites": found["suite"], "Components": found["components"]}
        names = {"signed-by": "Signed-By", "trusted": "Trusted", "arch": "Architectures", "check-valid-until": "Check-Valid-Until"}
        stanzas.append(stanza | {names[key]: value for key, value in options.items() if key in names})
    return stanzas
