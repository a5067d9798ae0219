"""`make audit`: known vulnerabilities of everything that the lock files name, as the database OSV has them.

pip-audit is not used. Where the database cannot be reached it ends with a traceback and the status of a finding; where an index has
no JSON API it says that nothing is known; and it brings packages that nothing else needs. Two requests of OSV's API are enough.
"""

import json
import os
import re
import sys
import urllib.error
import urllib.request
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote

Object = dict[str, Any]
ROOT = Path(__file__).resolve().parents[2]
LOCKS = ("requirements.lock", "requirements-build.lock", "requirements-dev.lock")
DATABASE = "https://api.osv.dev"
SECONDS = 15.0
AT_ONCE = 500
"""OSV takes up to 1,000 questions in one request."""
LARGEST = 32 * 1024 * 1024
ACCEPTED: dict[str, str] = {}
"""Identifiers of what does not concern us, each with the reason."""
_PINNED = re.compile(r"^([A-Za-z0-9._-]+)==([^\s;\\]+)", re.MULTILINE)


class UnreachableError(Exception):
    """The database gave no answer that can be read."""


@dataclass(frozen=True, slots=True)
class Package:
    """A locked package, and the lock files that have it."""

    name: str
    version: str
    locks: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Finding:
    """Something that is known against a package."""

    package: Package
    identifier: str
    summary: str

    def __str__(self) -> str:
        where = ", ".join(self.package.locks)
        return f"{self.package.name} {self.package.version} ({where}): {self.identifier}  {self.summary}".rstrip()


def locked(folder: Path = ROOT) -> list[Package]:
    """Everything that the lock files in `folder` name."""
    found: dict[tuple[str, str], list[str]] = {}
    for lock in LOCKS:
        for pinned in _PINNED.findall((folder / lock).read_text(encoding="utf-8")):
            found.setdefault(pinned, []).append(lock)
    return [Package(name, version, tuple(locks)) for (name, version), locks in sorted(found.items())]


def audit(packages: list[Package], database: str) -> list[Finding]:
    """What the database has against `packages`. Raises UnreachableError."""
    found: list[Finding] = []
    waiting = [(package, "") for package in packages]
    while waiting:
        asked, waiting = waiting[:AT_ONCE], waiting[AT_ONCE:]
        queries = [_query(package, page) for package, page in asked]
        results = _ask(f"{database}/v1/querybatch", {"queries": queries}).get("results")
        if not isinstance(results, list) or len(results) != len(asked):
            raise UnreachableError(f"{database} did not answer all questions")
        for (package, _), result in zip(asked, results, strict=True):
            for known in (result or {}).get("vulns") or []:
                identifier = str(known["id"])
                details = _ask(f"{database}/v1/vulns/{quote(identifier, safe='')}")
                if identifier not in ACCEPTED and not details.get("withdrawn"):
                    found.append(Finding(package, identifier, " ".join(str(details.get("summary") or "").split())))
            if page := (result or {}).get("next_page_token"):
                waiting.append((package, page))
    return found


def _query(package: Package, page: str) -> Object:
    query: Object = {"package": {"name": package.name, "ecosystem": "PyPI"}, "version": package.version}
    return {**query, "page_token": page} if page else query


def _ask(url: str, body: Object | None = None) -> Object:
    """POST a body, or GET; the answer. Raises UnreachableError."""
    if not url.startswith(("https://", "http://127.0.0.1:")):
        raise UnreachableError(f"{url} is no https address")
    data = None if body is None else json.dumps(body).encode()
    request = urllib.request.Request(url, data, {"Content-Type": "application/json"})  # noqa: S310  the scheme was looked at above
    try:
        with urllib.request.urlopen(request, timeout=SECONDS) as answer:  # noqa: S310  the scheme was looked at above
            found: Object = json.loads(answer.read(LARGEST))
    except (OSError, ValueError) as error:
        raise UnreachableError(f"{url}: {error}") from error
    if not isinstance(found, dict):
        raise UnreachableError(f"{url}: the answer is none of OSV's")
    return found


def main(database: str, folder: Path = ROOT) -> int:
    """Say what is known; 1 if that is anything, 0 otherwise, also when nobody can be asked."""
    packages = locked(folder)
    try:
        found = audit(packages, database.rstrip("/"))
    except (UnreachableError, KeyError, TypeError, AttributeError) as error:
        # Whatever is no answer of OSV's: a proxy's page, say.
        print(f"make audit: skipped: the database cannot be reached ({error or type(error).__name__})")  # noqa: T201
        return 0
    for finding in found:
        print(finding)  # noqa: T201
    print(f"make audit: {len(found) or 'nothing'} known against {len(packages)} packages")  # noqa: T201
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main(os.environ.get("OSV_URL") or DATABASE))
