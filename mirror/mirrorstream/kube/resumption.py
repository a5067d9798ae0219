"""How an informer goes on after a watch or a list ended: from which version, and after how many failures. Pure."""

from dataclasses import dataclass, field

from mirrorstream.kube.errors import ApiError, ClientError
from mirrorstream.kube.objects import Broken, Key

LASTED_SECONDS = 1.0
"""A watch that lasted this long went well."""
QUIET_SECONDS = 30.0
"""Watches that bring no newer version for this long are doubtful."""
REFUSED_AGAIN = 3
"""After this many refusals of a watch from the same version, or of the same page of a list, everything is listed again: the server
may never serve it. After etcd was restored from a backup, say, the version of the list's first pages does not exist any more."""


@dataclass
class Listing:
    """A list whose pages are being read; `next` is the token of the next one, empty before the first. `keys`: what it had so far.

    `advanced`: a page has come since one failed. Those that a list before had already, `reread` pages, are no news.
    A page that fails is asked for again, with the wait that `Resumption` says, for as long as the server knows its token:
    kube-apiserver answers 410 once etcd was compacted, which is every five minutes, and then the list begins again.
    """

    next: str = ""
    keys: set[Key] = field(default_factory=set)
    advanced: bool = False
    reread: int = 0
    _pages: int = 0
    _refusals: int = 0

    def came(self, following: str) -> bool:
        """A page came, and the token of the `following` one; whether there is one."""
        self._pages += 1
        self.next, self.advanced, self._refusals = following, self._pages > self.reread, 0
        return bool(following)

    def failed(self, error: ClientError) -> bool:
        """The request of a page failed; whether to ask for the same page again, or else for a new list.

        A 429 is no refusal of this page: a server that has too much to do is not asked for all pages again.
        """
        self.advanced = False
        self._refusals += isinstance(error, ApiError) and error.status != 429
        return self._refusals < REFUSED_AGAIN

    def again(self) -> "Listing":
        """A new list in place of this one."""
        return Listing(reread=max(self.reread, self._pages))


@dataclass
class Resumption:
    """`version` is where the next watch begins; if empty, everything is listed first. `failures` decides how long to wait before.

    `doubtful` means that the server may have gone back behind `version` unnoticed, as after etcd was restored from a backup:
    then kube-apiserver accepts the watch, and sends nothing until it has reached `version` again.
    """

    version: str = ""
    failures: int = 0
    doubtful: bool = False
    _quiet: float = 0.0
    _expiries: int = 0
    _refused: str = ""
    _refusals: int = 0

    def listed(self, version: str) -> None:
        """Everything was listed, at `version`."""
        self.version = version
        self.checked()

    def checked(self) -> None:
        """The server is not behind `version`."""
        self.doubtful, self._quiet = False, 0.0

    def ended(self, version: str, lasted: float) -> None:
        """The server ended the watch at `version`, after so many seconds."""
        self._expiries = self._refusals = 0
        # One that ends at once must not become a tight loop.
        self.failures = 0 if lasted >= LASTED_SECONDS else self.failures + 1
        self._reach(version, lasted)

    def expired(self) -> None:
        """What is known is too old for a watch. The server is well, so a list comes at once, unless that did not help before."""
        self.version = ""
        self.failures = self._expiries
        self._expiries += 1

    def broke(self, broken: Broken, lasted: float) -> None:
        """The watch ended in the middle. Resuming from the last good event loses nothing."""
        self.failures = 1 if lasted >= LASTED_SECONDS else self.failures + 1
        self._expiries = 0
        self._reach(broken.version, lasted)
        if broken.refused:
            self._refuse()

    def failed(self, error: ClientError, *, advanced: bool = False) -> None:
        """A request failed; `advanced` if others of the same list have succeeded since one failed before."""
        self.failures = 1 if advanced else self.failures + 1
        self.doubtful = True
        if isinstance(error, ApiError):
            self._refuse()

    def start_over(self) -> None:
        """What is known cannot be relied on."""
        self.failures += 1
        self.version = ""

    def _reach(self, version: str, lasted: float) -> None:
        self._quiet = self._quiet + lasted if version == self.version else 0.0
        self.doubtful = self.doubtful or self._quiet >= QUIET_SECONDS
        self.version = version

    def _refuse(self) -> None:
        self._refusals = self._refusals + 1 if self.version == self._refused else 1
        self._refused = self.version
        if self._refusals >= REFUSED_AGAIN:
            self.version, self._refusals = "", 0
