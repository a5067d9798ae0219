"""Which tags are imported together, and that no tag pays for another one."""

from typing import Any

import pytest
from mirrorstream.imagestream.model import WHOLE_REPOSITORY, imagestream_from
from mirrorstream.kube.client import ApiError, ApiTimeout, ApiUnreachable, ClientError
from mirrorstream.kube.objects import Key
from mirrorstream.rules.candidates import Candidate
from mirrorstream.runtime.settings import Settings
from mirrorstream_controller.import_groups import ImportGroups, ImportJob
from mirrorstream_controller.import_worker import ImportWorker
from mirrorstream_controller.metrics import ControllerMetrics
from mirrorstream_controller.mirror_pace import REMEMBERED, MirrorPace
from mirrorstream_controller.plan import Action, TagPlan
from mirrorstream_controller.results import FailedImport, FetchedImport, ImportResult, UnmadeImport
from mirrorstream_controller.stream_state import Demand

from tests.controller.bed import Bed, Pool
from tests.controller.builders import POLICY, failure

Object = dict[str, Any]
HOST = "m.io"


class Mirror:
    """A platform whose mirror takes `seconds` for a tag, 0.01 by default, and lacks some; `requests` has each dry run's tags."""

    def __init__(self) -> None:
        self.requests: list[list[str]] = []
        self.seconds: dict[str, float] = {}
        self.missing: set[str] = set()
        self.refused: dict[str, ApiError] = {}
        """A tag for which the API server refuses the whole request."""
        self.uncreated: dict[str, Exception] = {}
        """Images that cannot be created."""

    def request(self, method: str, path: str, *, body: Any, timeout: float = 30.0, answered: Any = None) -> Any:
        """A dry run, or an Image."""
        if path.endswith("/images"):
            return self._create(body["metadata"]["name"])
        assert (method, path.rpartition("/")[2]) == ("POST", "imagestreamimports")
        tags = [image["to"]["name"] for image in body["spec"]["images"]]
        self.requests.append(tags)
        took = sum(self.seconds.get(tag, 0.01) for tag in tags)
        if took > timeout:
            raise ApiTimeout("Read timed out")
        answered(took)
        for tag in tags:
            if tag in self.refused:
                raise self.refused[tag]
        return {"status": {"images": [self._answer(tag) for tag in tags]}}

    def _create(self, digest: str) -> Object:
        if error := self.uncreated.get(digest):
            raise error
        return {}

    def _answer(self, tag: str) -> Object:
        if tag in self.missing:
            return {"status": {"status": "Failure", "reason": "NotFound", "message": f"{tag} not found"}}
        return {"status": {"status": "Success"}, "image": {"metadata": {"name": f"sha256:{tag}"}}}


def failed_stream(name: str, tags: list[str], generation: int = 2) -> Any:
    """A stream whose tags have all failed."""
    spec = [
        {"name": tag, "from": {"kind": "DockerImage", "name": f"src.io/team/{name}:{tag}"}, "generation": generation}
        for tag in tags
    ]
    return imagestream_from(
        {
            "metadata": {"name": name, "namespace": "ns", "uid": f"u-{name}", "generation": generation},
            "spec": {"tags": spec},
            "status": {"tags": [{"tag": tag, "conditions": [failure(generation)]} for tag in tags]},
        }
    )


def numbered(first: int, last: int) -> list[str]:
    """`v1`, `v2` and so on."""
    return [f"v{number}" for number in range(first, last + 1)]


@pytest.fixture
def mirror() -> Mirror:
    """A mirror with everything."""
    return Mirror()


@pytest.fixture
def bed(mirror: Mirror) -> Bed:
    """An observer, which asks the mirror and writes nothing, with the rules."""
    found = Bed(mirror, mode="observe")
    found.reconciler.on_policy(POLICY)
    return found


def see(bed: Bed, name: str, tags: list[str], generation: int = 2) -> None:
    """Have the watch bring a stream whose tags have failed, and do all that is to do."""
    bed.see(("ns", name), failed_stream(name, tags, generation))
    bed.settle()


def job(
    tag: str, *, stream: str = "app", insecure: bool = False, alone: bool = False, hosts: tuple[str, ...] = (HOST,)
) -> ImportJob:
    """An import through one candidate, or several."""
    candidates = tuple(Candidate(f"{host}/x/team/{stream}:{tag}", insecure, "IDMS/m") for host in hosts)
    return ImportJob(
        ("ns", stream), TagPlan(tag, Action.IMPORT, "", f"src.io/team/{stream}:{tag}", candidates=candidates), POLICY, alone=alone
    )


def quick() -> MirrorPace:
    """A mirror that has answered quickly."""
    pace = MirrorPace()
    pace.answered(HOST, ["other"], 0.01)
    return pace


@pytest.mark.parametrize(
    ("references", "seconds", "together"),
    [(1, 0.0, 3), (1, 0.1, 3), (1, 0.33, 3), (1, 0.4, 2), (1, 0.6, 1), (1, 15.0, 1), (3, 0.9, 3), (3, 1.4, 2), (2, 2.0, 1)],
)
def test_so_many_go_together_as_are_expected_within_a_second(references: int, seconds: float, together: int) -> None:
    """By the last answer of the host, of which each tag has its share."""
    pace = MirrorPace()
    assert pace.most_together(HOST) == 1, "nothing is known"
    pace.answered(HOST, [str(number) for number in range(references)], seconds)
    assert pace.most_together(HOST) == together
    assert pace.most_together("other.io") == 1
    pace.lost(HOST)
    assert pace.most_together(HOST) == 1


def test_a_slow_tag_is_known_until_it_is_fast() -> None:
    """Which one was slow is known only of a tag that was asked for alone."""
    pace = MirrorPace()
    pace.answered(HOST, ["a", "b"], 1.5)
    assert not pace.is_slow("a")
    pace.answered(HOST, ["a"], 1.5)
    assert pace.is_slow("a")
    assert not pace.is_slow("b")
    pace.answered(HOST, ["b"], 0.1)
    pace.answered(HOST, ["a"], 1.5)
    assert pace.most_together(HOST) == 3, "that a is slow was known"
    pace.answered(HOST, ["a"], 0.5)
    assert not pace.is_slow("a")


def test_what_is_remembered_of_mirrors_is_bounded() -> None:
    """Hosts and tags come and go; the latest are known."""
    pace = MirrorPace()
    for number in range(3 * REMEMBERED):
        pace.answered(f"{number}.io", [f"{number}.io/app:v1"], 2.0)
    assert sum(pace.is_slow(f"{number}.io/app:v1") for number in range(3 * REMEMBERED)) == REMEMBERED
    assert pace.is_slow(f"{3 * REMEMBERED - 1}.io/app:v1")
    assert len(pace._seconds) == REMEMBERED


@pytest.mark.parametrize(
    "other",
    [
        job("v2", stream="other"),
        job("v2", hosts=("other.io",)),
        job("v2", insecure=True),
        job("v2", alone=True),
        job(WHOLE_REPOSITORY),
        job("slow"),
    ],
    ids=["another stream", "another mirror", "another TLS setting", "asked for alone", "a whole repository", "slow before"],
)
def test_what_does_not_go_along(other: ImportJob) -> None:
    """Neither with one of the others, nor one of the others with it."""
    for order in (("first", "other"), ("other", "first")):
        pace = quick()
        pace.answered(HOST, [job("slow").candidate.reference], 3.0)
        pace.answered(HOST, ["other"], 0.01)
        jobs = {"first": job("v1"), "other": other}
        groups = ImportGroups(pace)
        for each in jobs.values():
            groups.add(each)
        assert [groups.take(jobs[name]) for name in order] == [[jobs[name]] for name in order]


def test_what_went_along_has_nothing_left_to_do() -> None:
    """Three go, the first to come first; nothing of them is remembered."""
    groups, jobs = ImportGroups(quick()), [job(tag) for tag in numbered(1, 4)]
    for each in jobs:
        groups.add(each)
    assert [groups.take(each) for each in jobs] == [jobs[:3], [], [], jobs[3:]]
    assert not groups._waiting


def test_an_import_that_another_one_of_its_tag_replaced_does_not_run() -> None:
    """The tag was changed while its import waited."""
    groups, old, new = ImportGroups(quick()), job("v1"), job("v1")
    for each in (old, new):
        groups.add(each)
    assert [groups.take(old), groups.take(new)] == [[], [new]]


def test_three_tags_of_a_stream_go_together_once_the_mirror_answered_quickly(bed: Bed, mirror: Mirror) -> None:
    """The first of a mirror goes alone; each tag is asked for once, and streams do not mix."""
    see(bed, "app", numbered(1, 6))
    see(bed, "other", numbered(1, 2))
    assert mirror.requests == [["v1"], ["v2", "v3", "v4"], ["v5", "v6"], ["v1", "v2"]]
    assert bed.counts() == {"observed": 8}


def test_the_tags_of_a_slow_mirror_go_alone(bed: Bed, mirror: Mirror) -> None:
    """As long as it is slow."""
    mirror.seconds = dict.fromkeys(numbered(1, 4), 0.7)
    see(bed, "app", numbered(1, 6))
    assert mirror.requests == [["v1"], ["v2"], ["v3"], ["v4"], ["v5"], ["v6"]]
    see(bed, "other", numbered(5, 7))
    assert mirror.requests[6:] == [["v5", "v6", "v7"]]


def test_a_tag_that_becomes_slow_delays_the_others_for_a_second_once(bed: Bed, mirror: Mirror) -> None:
    """Their request ends after a second, and each goes alone. From then on the others go without it."""
    mirror.seconds = {"v3": 20}
    see(bed, "app", numbered(1, 6))
    assert mirror.requests[:2] == [["v1"], ["v2", "v3", "v4"]]
    assert bed.pool.priority == [False] * 9, "other namespaces wait for none of it"
    assert sorted(mirror.requests[2:]) == [["v2"], ["v3"], ["v4"], ["v5"], ["v6"]]
    assert bed.counts() == {"observed": 6}
    del mirror.requests[:]
    see(bed, "app", numbered(1, 6), generation=3)
    assert mirror.requests == [["v1", "v2", "v4"], ["v3"], ["v5", "v6"]]


def test_a_tag_that_brings_no_answer_at_all_delays_the_others_once(bed: Bed, mirror: Mirror) -> None:
    """It is known as slow, as one that has its answer after a while."""
    mirror.seconds = {"v3": 3600}
    see(bed, "app", numbered(1, 4))
    assert sorted(mirror.requests) == [["v1"], ["v2"], ["v2", "v3", "v4"], ["v3"], ["v4"]]
    del mirror.requests[:]
    see(bed, "app", numbered(1, 4), generation=3)
    assert sorted(mirror.requests) == [["v1", "v2", "v4"], ["v3"]]


def test_a_tag_that_is_nowhere_costs_the_others_nothing(bed: Bed, mirror: Mirror) -> None:
    """Each has its own result; nothing is asked for twice."""
    mirror.missing = {"v3"}
    see(bed, "app", numbered(1, 4))
    assert mirror.requests == [["v1"], ["v2", "v3", "v4"]]
    assert bed.counts() == {"observed": 3, "failing": 1}


def test_a_request_that_is_refused_for_one_tag_costs_the_others_nothing(bed: Bed, mirror: Mirror) -> None:
    """A name that the API server takes for invalid, say: only that tag fails."""
    mirror.refused = {"v3": ApiError(422, "Invalid", "v3")}
    see(bed, "app", numbered(1, 4))
    assert mirror.requests[:2] == [["v1"], ["v2", "v3", "v4"]]
    assert sorted(mirror.requests[2:]) == [["v2"], ["v3"], ["v4"]]
    assert bed.counts() == {"observed": 3, "failing": 1}


def test_a_busy_api_server_is_not_asked_for_each_tag_alone(bed: Bed, mirror: Mirror) -> None:
    """It answers 429: more requests are what it does not want."""
    mirror.refused = {"v3": ApiError(429, "TooManyRequests", "", retry_after=7)}
    see(bed, "app", numbered(1, 4))
    assert mirror.requests == [["v1"], ["v2", "v3", "v4"]]
    mirror.refused = {}
    bed.time += 6.9
    assert bed.settle() == 0
    bed.time += 60
    bed.settle()
    assert mirror.requests[2:] == [["v2", "v3", "v4"]]


@pytest.mark.parametrize("demand", [Demand.WANTED, Demand.PRIORITY])
def test_what_goes_alone_has_priority_only_if_a_user_waits(mirror: Mirror, demand: Demand) -> None:
    """A namespace of slow images would overtake all others otherwise."""
    mirror.seconds = {"v3": 20}
    pool = Pool()
    fakes: list[Any] = [mirror, pool, ControllerMetrics(), Settings]
    worker = ImportWorker(*fakes, demand=lambda key, plan: demand, on_done=Done().take)
    worker.start([job(tag) for tag in numbered(1, 4)], priority=False)
    pool.run()
    assert pool.priority == [False] * 4 + [demand is Demand.PRIORITY] * 3


class Done(dict[str, ImportResult]):
    """What came of the imports."""

    def take(self, key: Key, result: ImportResult) -> bool:
        """Take in one result."""
        self[result.plan.tag] = result
        return True


def imported(mirror: Any, *jobs: ImportJob) -> Done:
    """Run imports to their end."""
    pool, done = Pool(), Done()
    fakes: list[Any] = [mirror, pool, ControllerMetrics(), Settings]
    worker = ImportWorker(*fakes, demand=lambda key, plan: Demand.WANTED, on_done=done.take)
    worker.start(jobs, priority=False)
    pool.run()
    return done


class TwoMirrors(Mirror):
    """The first one is too slow for the platform."""

    def __init__(self, error: ClientError) -> None:
        super().__init__()
        self.error, self.asked = error, list[str]()

    def request(self, method: str, path: str, *, body: Any, **more: Any) -> Any:
        """A dry run, or an Image."""
        if not path.endswith("/images"):
            (wanted,) = body["spec"].get("images") or [body["spec"].get("repository")]
            self.asked.append(wanted["from"]["name"].partition("/")[0])
            if self.asked[-1] == "slow.io":
                raise self.error
        return super().request(method, path, body=body, **more)


@pytest.mark.parametrize("error", [ApiTimeout("Read timed out"), ApiError(504, "Timeout", "")], ids=["ours", "the API server's"])
@pytest.mark.parametrize("tag", ["v1", WHOLE_REPOSITORY], ids=["a tag", "a whole repository"])
def test_a_mirror_that_brings_no_answer_in_time_keeps_no_other_from_being_asked(tag: str, error: ClientError) -> None:
    """A list of many images that each take seconds, say. And the user is told."""
    mirror = TwoMirrors(error)
    (slow,) = imported(mirror, job(tag, hosts=("slow.io",))).values()
    assert type(slow) is FailedImport
    assert [failure.kind for _, failure in slow.tried] == ["timeout"]
    if tag:
        assert type(imported(mirror, job(tag, hosts=("slow.io", HOST)))[tag]) is FetchedImport
        assert mirror.asked == ["slow.io", "slow.io", HOST]


@pytest.mark.parametrize("error", [ApiUnreachable("refused"), ApiError(503, "", ""), ApiError(429, "", ""), ApiError(422, "", "")])
def test_an_api_server_that_does_not_ask_a_mirror_tells_nothing_about_it(error: ClientError) -> None:
    """Nor is the next one asked."""
    mirror = TwoMirrors(error)
    assert type(imported(mirror, job("v1", hosts=("slow.io", HOST)))["v1"]) is UnmadeImport
    assert mirror.asked == ["slow.io"]


@pytest.mark.parametrize("error", [ApiError(500, "InternalError", "v3"), ValueError("on purpose")], ids=["refused", "a bug"])
def test_an_image_that_cannot_be_created_costs_the_others_nothing(mirror: Mirror, error: Exception) -> None:
    """Each tag's Image is a request of its own, and whatever happens there concerns that tag alone."""
    mirror.uncreated = {"sha256:v3": error}
    done = imported(mirror, *[job(tag) for tag in numbered(1, 4)])
    assert mirror.requests == [["v1"], ["v2", "v3", "v4"]]
    unmade = [tag for tag, result in done.items() if type(result) is UnmadeImport]
    assert (len(done), unmade) == (4, ["v3"])
