"""What users, registries and administrators do to some streams, at random and all at once."""

import random
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial

from e2e.testbed.cluster import Namespace
from e2e.testbed.faults.contents import ALL, DEAD, MISSING, PREFIXES, REPOSITORIES, Contents
from e2e.testbed.faults.history import History
from e2e.testbed.faults.rules import KINDS, Rules
from e2e.testbed.faults.streams import OPTED_OUT, Object, items_of, spec_tags, statuses
from e2e.testbed.faults.users import ACROSS, Users
from e2e.testbed.streams import following, tag

Act = Callable[[], None]
STREAMS = ("a", "b", "c")
IMPORTED, FOLLOWING, PUSHED = ("main", "extra"), "latest", "pushed"
"""The tags' names; each keeps one kind, so that a history says where its images may come from."""
RETRY = "mirrorstream.github.io/retry"
PAUSES = (0, 0, 0.02, 0.1, 0.3, 1.2)
"""Between two rounds, in seconds: from none to long enough for something to heal."""


class Crowd:
    """Everybody who does something. What they do comes from `seed`; when exactly, and so what comes of it, does not."""

    def __init__(self, namespaces: list[Namespace], contents: dict[str, Contents], history: History, seed: int) -> None:
        self._random = random.Random(seed)
        self._namespaces, self._contents, self._users = namespaces, contents, Users(history)
        self.rules = {ns.name: Rules(ns) for ns in namespaces}
        self._focus: tuple[Namespace, str] | None = None
        self.actions = 0
        self.retries = 0
        self._actions: dict[Callable[[], Act], int] = {
            self._import_image: 24,
            self._other_source: 14,
            self._other_policy: 10,
            self._add_tag: 10,
            self._remove_tag: 4,
            self._delete_tag: 5,
            self._new_stream: 5,
            self._delete_stream: 1,
            self._annotate: 8,
            self._push: 4,
            self._change_rules: 10,
            self._upstream: 14,
            self._mirror: 8,
            self._images: 14,
        }

    def begin(self, pool: ThreadPoolExecutor) -> None:
        """Make the streams, below rules, of repositories most of which are lost."""
        for ns in self._namespaces:
            for repository in REPOSITORIES:
                self._contents[ns.name].upstream_answers(repository, self._random.choice((None, *DEAD)))
            self.rules[ns.name].put("ImageDigestMirrorSet", PREFIXES)
            list(pool.map(lambda name, ns=ns: self._users.create(ns, name, self._tags(ns)), STREAMS))

    def rounds(self, number: int, pool: ThreadPoolExecutor, after_each: Callable[[], None]) -> None:
        """Let a few of them act at once, again and again; nobody waits for anything to settle."""
        for _ in range(number):
            # At times they all want the same stream.
            self._focus = self._stream() if self._random.random() < 0.4 else None
            acts = [choice() for choice in self._random.choices(*_weighted(self._actions), k=self._random.randint(2, 8))]
            self._focus = None
            self.actions += len(acts)
            for future in [pool.submit(act) for act in acts]:
                future.result()
            # The time that goes by is part of what is random here.
            threading.Event().wait(self._random.choice(PAUSES))
            after_each()

    # Streams, as users write them. Each chooses now, and acts when it is called.

    def _stream(self) -> tuple[Namespace, str]:
        return self._focus or (self._random.choice(self._namespaces), self._random.choice(STREAMS))

    def _imported(self, ns: Namespace, name: str) -> Object:
        source = self._contents[ns.name].reference(self._random.choice(ALL))
        policy = {"scheduled": self._random.random() < 0.25, "importMode": self._random.choice(("Legacy", "PreserveOriginal"))}
        return tag(name, source, importPolicy=policy, referencePolicy={"type": self._random.choice(("Local", "Source"))})

    def _tags(self, ns: Namespace) -> list[Object]:
        tags = [self._imported(ns, IMPORTED[0]), *self._random.choice(([], [self._imported(ns, IMPORTED[1])]))]
        return tags + self._random.choice(([], [following(FOLLOWING, IMPORTED[0])]))

    def _new_stream(self) -> Act:
        ns, name = self._stream()
        tags, again = self._tags(ns), self._random.random() < 0.7

        def act() -> None:
            if again:
                self._users.remove(ns, name)
            self._users.create(ns, name, tags)

        return act

    def _delete_stream(self) -> Act:
        return partial(self._users.remove, *self._stream())

    def _import_image(self) -> Act:
        ns, name = self._stream()
        tag_name = self._random.choice(IMPORTED)
        new = self._imported(ns, tag_name) if self._random.random() < 0.15 else None
        return partial(self._users.import_image, ns, name, tag_name, new)

    def _other_source(self) -> Act:
        return self._change_tag(lambda tag, new: tag.update({"from": new["from"]}))

    def _other_policy(self) -> Act:
        fields = self._random.choice((("importPolicy",), ("referencePolicy",), ("importPolicy", "referencePolicy")))
        return self._change_tag(lambda tag, new: tag.update({field: new[field] for field in fields}))

    def _change_tag(self, change: Callable[[Object, Object], None]) -> Act:
        ns, name = self._stream()
        tag_name = self._random.choice(IMPORTED)
        new = self._imported(ns, tag_name)

        def write(stream: Object) -> None:
            if tag := spec_tags(stream).get(tag_name):
                change(tag, new)

        return partial(self._users.write, ns, name, write)

    def _add_tag(self) -> Act:
        ns, name = self._stream()
        other = {**following(ACROSS, f"{self._random.choice([s for s in STREAMS if s != name])}:{IMPORTED[0]}")}
        follows = following(FOLLOWING, self._random.choice(IMPORTED))
        new = self._random.choice((*(self._imported(ns, tag_name) for tag_name in IMPORTED), follows, follows, other))

        def write(stream: Object) -> None:
            tags = [tag for tag in stream["spec"].get("tags") or [] if tag["name"] != new["name"]]
            stream["spec"]["tags"] = [*tags, new]

        return partial(self._users.write, ns, name, write)

    def _remove_tag(self) -> Act:
        ns, name = self._stream()
        gone = self._random.choice((*IMPORTED, FOLLOWING, ACROSS))

        def write(stream: Object) -> None:
            stream["spec"]["tags"] = [tag for tag in stream["spec"].get("tags") or [] if tag["name"] != gone]

        return partial(self._users.write, ns, name, write)

    def _delete_tag(self) -> Act:
        """`oc tag -d`."""
        ns, name = self._stream()
        gone = self._random.choice((*IMPORTED, FOLLOWING, ACROSS, PUSHED))
        return partial(self._users.delete_tag, ns, name, gone)

    def _annotate(self) -> Act:
        ns, name = self._stream()
        retry = (RETRY, str(self._random.random()))
        key, value = self._random.choice((retry, retry, (OPTED_OUT, "disabled"), *[(OPTED_OUT, "enabled")] * 3))
        self.retries += key == RETRY
        return partial(self._users.write, ns, name, lambda stream: _annotations(stream).update({key: value}))

    def _push(self) -> Act:
        """An image of the stream is pushed to a tag that no spec names, as the internal registry records it."""
        ns, name = self._stream()

        def write(stream: Object) -> None:
            repository = stream["status"].get("dockerImageRepository")
            found = [items_of(entry)[0] for entry in statuses(stream).values() if items_of(entry)]
            if found and repository:
                reference, generation = f"{repository}@{found[0]['image']}", stream["metadata"]["generation"]
                event = {**found[0], "dockerImageReference": reference, "generation": generation}
                tags = [entry for entry in stream["status"]["tags"] if entry["tag"] != PUSHED]
                stream["status"]["tags"] = [*tags, {"tag": PUSHED, "items": [event]}]

        return partial(self._users.write, ns, name, write, status=True)

    # Registries and rules.

    def _change_rules(self) -> Act:
        ns, kind = self._random.choice(self._namespaces), self._random.choice(list(KINDS))
        return partial(
            self.rules[ns.name].put, kind, self._random.choice(((), PREFIXES[:1], PREFIXES[1:], PREFIXES, PREFIXES[::-1]))
        )

    def _upstream(self) -> Act:
        contents = self._contents[self._random.choice(self._namespaces).name]
        failure = self._random.choice((None, None, MISSING, *DEAD))
        return partial(contents.upstream_answers, self._random.choice(REPOSITORIES), failure)

    def _mirror(self) -> Act:
        contents = self._contents[self._random.choice(self._namespaces).name]
        failure = self._random.choice((None, None, None, MISSING, *DEAD[:2]))
        return partial(contents.mirror_answers, self._random.choice(PREFIXES), self._random.choice(REPOSITORIES), failure)

    def _images(self) -> Act:
        contents, source = self._contents[self._random.choice(self._namespaces).name], self._random.choice(ALL)
        prefix = self._random.choice(PREFIXES)
        return self._random.choice(
            (
                partial(contents.release, source),
                partial(contents.sync, prefix, source),
                partial(contents.sync, prefix, source),
                partial(contents.drop, prefix, source),
            )
        )

    # The end.

    def settle(self) -> None:
        """Bring registries, rules and streams into a state that lasts: nothing is scheduled, no mirror is lost."""
        for ns in self._namespaces:
            contents, rules = self._contents[ns.name], self.rules[ns.name]
            for repository in REPOSITORIES:
                contents.upstream_answers(repository, self._random.choice((None, MISSING, *DEAD)))
                for prefix in PREFIXES:
                    contents.mirror_answers(prefix, repository, None)
            for source in ALL:
                for prefix in PREFIXES:
                    if self._random.random() < 0.8:
                        contents.sync(prefix, source)
            for kind, chance in (("ImageDigestMirrorSet", 0.8), ("ImageTagMirrorSet", 0.4)):
                rules.put(kind, self._random.choice((PREFIXES, PREFIXES[::-1])) if self._random.random() < chance else ())
            left_alone = self._random.random() < 0.2
            for name in STREAMS:
                missing = {tag["name"]: tag for tag in (*self._tags(ns), self._imported(ns, IMPORTED[1]))}
                self._users.create(ns, name, [])  # if it is not there
                self._users.write(ns, name, partial(_last_write, missing=missing, left_alone=left_alone))

    def import_all(self, pool: ThreadPoolExecutor) -> None:
        """`oc import-image --all` of every stream."""
        for ns in self._namespaces:
            for stream in ns.streams():
                name = stream["metadata"]["name"]
                list(pool.map(lambda tag_name, ns=ns, name=name: self._users.import_image(ns, name, tag_name), IMPORTED))


def _last_write(stream: Object, missing: dict[str, Object], *, left_alone: bool) -> None:
    """Add tags that are not there, and have nothing happen by itself."""
    stream["spec"]["tags"] = [*({**missing, **spec_tags(stream)}).values()]
    for found in stream["spec"]["tags"]:
        found.get("importPolicy", {}).pop("scheduled", None)
    if not left_alone:
        _annotations(stream).update({OPTED_OUT: "enabled"})


def _weighted(actions: dict[Callable[[], Act], int]) -> tuple[list[Callable[[], Act]], list[int]]:
    return list(actions), list(actions.values())


def _annotations(stream: Object) -> Object:
    annotations: Object = stream["metadata"].setdefault("annotations", {})
    return annotations
