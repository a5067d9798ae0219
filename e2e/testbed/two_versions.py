"""An image with two versions: what tests of version bumps have in common."""

from e2e.testbed.cluster import Namespace
from e2e.testbed.registries.registry import Failure
from e2e.testbed.streams import Object, tag


class App:
    """An image with two versions, imported by the platform from an upstream that is gone then; a mirror has both.

    Its stream's tag is `now`, and its `from` the first version.
    """

    def __init__(self, ns: Namespace, name: str = "app") -> None:
        self.ns, self.name = ns, name
        self.one, self.two = (ns.put("good", f"{name}:{version}") for version in (1, 2))
        for version in (1, 2):
            ns.cluster.put("other", f"{ns.name}/{name}", str(version), seed=f"{ns.name}/{name}:{version}")

    def reference(self, version: int) -> str:
        """What pods and `from` name."""
        return self.ns.source(f"{self.name}:{version}", "other")

    def create(self) -> None:
        """Make the stream, and wait until the platform has imported the first version."""
        self.ns.create(self.name, tag("now", self.reference(1)))
        self.ns.wait_healed(self.name, "now", self.one)

    def lose_upstream(self) -> None:
        """From now on the upstream serves nothing."""
        self.ns.cluster.registries.servers["other"].failures[f"{self.ns.name}/{self.name}"] = Failure(status=503)

    def slow_mirror(self, seconds: float) -> None:
        """Have each answer of the mirror take so long."""
        failures, repository = self.ns.cluster.registries.servers["good"].failures, f"mirror-{self.ns.name}/{self.name}"
        failures.pop(repository, None)
        if seconds:
            failures[repository] = Failure(seconds=seconds)

    def bump(self, version: int = 2) -> None:
        """Change the tag's `from`."""

        def change(stream: Object) -> None:
            stream["spec"]["tags"][0]["from"]["name"] = self.reference(version)

        self.ns.change(self.name, change)

    def history(self) -> list[str]:
        """The digests of the tag's items, newest first."""
        return [item["image"] for item in self.ns.tag_status(self.name, "now")["items"]]

    def wait_followed(self) -> None:
        """Wait until the tag has the second version; the first one stays in its history."""
        self.ns.wait_healed(self.name, "now", self.two)
        assert self.history() == [self.two, self.one]
