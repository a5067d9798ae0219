"""What one namespace's upstream repositories and their mirrors hold and answer, changing at any time."""

import json
import threading
from dataclasses import dataclass

from e2e.testbed.cluster import Namespace
from e2e.testbed.registries.registry import Failure

UPSTREAM, MIRRORS = "other", "good"
"""The registries, by the names that the cluster knows them under."""
PREFIXES = ("near", "far")
"""Two mirrors, by the prefix of their repositories."""
REPOSITORIES = ("one", "two", "many")
"""Those that begin with `m` hold manifest lists."""
TAGS = ("v1", "v2")
DEAD = (Failure(close=True), Failure(500), Failure(403, "DENIED"), Failure(401, "UNAUTHORIZED"))
"""Ways not to answer for an image, which mirrors may stand in for."""
MISSING = Failure(404, "MANIFEST_UNKNOWN")
"""The source's own answer, which they may not."""
Source = tuple[str, str]
"""A repository and a tag."""
ALL: tuple[Source, ...] = tuple((repository, tag) for repository in REPOSITORIES for tag in TAGS)


@dataclass(frozen=True)
class Version:
    """An image: what a Legacy import takes of it, and what PreserveOriginal does."""

    legacy: str
    whole: str

    def digest(self, mode: str) -> str:
        """What an import with that mode records."""
        return self.whole if mode == "PreserveOriginal" else self.legacy


class Contents:
    """The repositories that streams of a namespace import from, and the mirrors of them."""

    def __init__(self, ns: Namespace) -> None:
        self._ns = ns
        self._lock = threading.Lock()
        self._numbers = dict.fromkeys(ALL, 0)
        self._origins: dict[str, Source] = {}
        self._now: dict[tuple[str, Source], Version] = {}
        registries = ns.cluster.registries
        self._upstream, self._mirrors = registries.servers[UPSTREAM], registries.servers[MIRRORS]
        for source in ALL:
            self.release(source)
            for prefix in PREFIXES:
                self.sync(prefix, source)

    def reference(self, source: Source) -> str:
        """How a stream's spec names it."""
        return self._ns.source(":".join(source), UPSTREAM)

    def source(self, reference: str) -> Source:
        """What `reference` made, with a tag or a digest; the repository may be a mirror's."""
        repository, _, tag = reference.rpartition("/")[2].partition("@")[0].partition(":")
        return repository, tag

    def origin(self, digest: str) -> Source | None:
        """The only source that an image ever belonged to."""
        return self._origins.get(digest)

    def release(self, source: Source) -> None:
        """The upstream's tag moves to a new image."""
        with self._lock:
            self._numbers[source] += 1
            self._put("", source)

    def sync(self, prefix: str, source: Source) -> None:
        """A mirror gets what the upstream has."""
        with self._lock:
            self._put(prefix, source)

    def drop(self, prefix: str, source: Source) -> None:
        """A mirror loses a tag."""
        with self._lock:
            self._mirrors.store.remove(f"{prefix}-{self._ns.name}/{source[0]}", source[1])
            self._now.pop((prefix, source), None)

    def upstream_answers(self, repository: str, failure: Failure | None) -> None:
        """The upstream of a repository is lost, or comes back."""
        self._answer(self._upstream.failures, f"{self._ns.name}/{repository}", failure)

    def mirror_answers(self, prefix: str, repository: str, failure: Failure | None) -> None:
        """A mirror of a repository is lost, or comes back."""
        self._answer(self._mirrors.failures, f"{prefix}-{self._ns.name}/{repository}", failure)

    def at_upstream(self, source: Source) -> Version | Failure:
        """What the upstream serves now."""
        return self._upstream.failures.get(f"{self._ns.name}/{source[0]}") or self._now["", source]

    def at_mirror(self, prefix: str, source: Source) -> Version | None:
        """What a mirror serves now."""
        failing = f"{prefix}-{self._ns.name}/{source[0]}" in self._mirrors.failures
        return None if failing else self._now.get((prefix, source))

    @staticmethod
    def _answer(failures: dict[str, Failure], repository: str, failure: Failure | None) -> None:
        if failure is None:
            failures.pop(repository, None)
        else:
            failures[repository] = failure

    def _put(self, prefix: str, source: Source) -> None:
        repository, tag = source
        name = f"{prefix}-{self._ns.name}/{repository}" if prefix else f"{self._ns.name}/{repository}"
        store = (self._mirrors if prefix else self._upstream).store
        kind, seed = (
            "list" if repository.startswith("m") else "docker",
            f"{self._ns.name}/{repository}:{tag}/{self._numbers[source]}",
        )
        whole = store.put(name, tag, kind, seed)
        parts = [entry["digest"] for entry in json.loads(store.manifests[name, whole][1]).get("manifests", ())]
        for digest in (whole, *parts):
            self._origins[digest] = source
        # A Legacy import takes the first one, amd64.
        self._now[prefix, source] = Version(parts[0] if parts else whole, whole)
