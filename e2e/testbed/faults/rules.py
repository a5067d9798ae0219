"""One namespace's mirror sets, which administrators keep changing."""

import threading

from e2e.testbed.cluster import Namespace

KINDS = {"ImageDigestMirrorSet": "digest", "ImageTagMirrorSet": "tag"}


class Rules:
    """One namespace's mirror sets: for each kind the mirrors' prefixes, in their order; none, if there is no set."""

    def __init__(self, ns: Namespace) -> None:
        self._ns, self._lock = ns, threading.Lock()
        self._names: dict[str, str] = {}
        self.mirrors: dict[str, tuple[str, ...]] = dict.fromkeys(KINDS, ())
        self.edits = 0

    def put(self, kind: str, prefixes: tuple[str, ...]) -> None:
        """Create, change or delete the set of a kind."""
        mirrors = [self._ns.mirror("good", prefix) for prefix in prefixes]
        with self._lock:
            if self.mirrors[kind] == prefixes:
                return
            self.edits += 1
            if not prefixes:
                self._ns.remove_mirror_set(self._names.pop(kind))
            elif kind in self._names:
                self._ns.change_mirrors(self._names[kind], *mirrors)
            else:
                source = self._ns.source("", "other").rstrip("/")
                self._names[kind] = self._ns.mirror_set(kind, source, *mirrors, name=f"{self._ns.name}-{KINDS[kind]}")
            self.mirrors[kind] = prefixes
