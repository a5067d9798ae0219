"""100,000 reviews of random pods, and of bytes that somebody broke: nothing is denied, nothing fails inside."""

import base64
import json
import random
from typing import Any

import pytest
from mirrorstream.runtime.metrics import Metrics
from mirrorstream_webhook.metrics import ReviewMetrics

from e2e.testbed.simulator.patches import json_patch
from tests.webhook.builders import MIRROR_SET, SOURCE, Bed, digest, imported, stream, tag
from tests.webhook.http import application, post

Object = dict[str, Any]
REVIEWS = 100_000
SEEDS = 8
TEXTS = ["", "a", "app", "Ünïcödé", "x" * 300, "\u0000", "null", "-1", "a/b", "a~1b", '"', "\\", "\U0001f600"]
IMAGES = [
    f"{SOURCE}:v1",
    f"{SOURCE}@{digest(1)}",
    f"{SOURCE}:v1@{digest(2)}",
    "registry.svc:5000/openshift/app:v1",
    "busybox",
    "quay.io/a/b:latest",
    "UPPER/case",
    "a" * 2000,
    "[::1]:5000/a",
    "localhost/x",
    "sha256:" + "0" * 64,
    *TEXTS,
]


class Grammar:
    """Random pods: valid ones with anything optional left out or there, and junk in places that nobody reads."""

    def __init__(self, seed: int) -> None:
        self.chance = random.Random(seed)  # noqa: S311  the same every time

    def maybe(self, value: Any) -> list[Any]:
        """The value or nothing, as a list."""
        return [value] if self.chance.random() < 0.5 else []

    def junk(self, depth: int = 0) -> Any:
        """Any JSON value."""
        kind = self.chance.randrange(7 if depth < 4 else 5)
        if kind == 5:
            return [self.junk(depth + 1) for _ in range(self.chance.randrange(4))]
        if kind == 6:
            return {self.chance.choice(TEXTS): self.junk(depth + 1) for _ in range(self.chance.randrange(4))}
        return [None, True, self.chance.randrange(-(2**63), 2**63), self.chance.random(), self.chance.choice(TEXTS)][kind]

    def containers(self, prefix: str) -> Any:
        """A list of containers, or null."""
        if self.chance.random() < 0.1:
            return None
        found = []
        for number in range(self.chance.choice([0, 1, 1, 1, 2, 5])):
            container: Object = {"name": f"{prefix}{number}"}
            for image in self.maybe(self.chance.choice(IMAGES)) or self.maybe(f"{SOURCE}:v1"):
                container["image"] = image
            for value in self.maybe(self.junk()):
                container["env"] = value
            found.append(container)
        return found

    def pod(self) -> Object:
        """A pod in which only what is read has its type."""
        metadata: Object = {}
        for labels in self.maybe(
            {"app": "x", **({"mirrorstream.github.io/rewrite": "disabled"} if self.chance.random() < 0.1 else {})}
        ):
            metadata["labels"] = labels
        for text in self.maybe(self.chance.choice(["{}", '{"c0":"x"}', *TEXTS])):
            metadata["annotations"] = {"mirrorstream.github.io/original-images": text, "other": self.chance.choice(TEXTS)}
        for owner in self.maybe({"apiVersion": "apps/v1", "kind": "ReplicaSet", "name": "x", "uid": "y"}):
            metadata["ownerReferences"] = [owner]
        spec: Object = {"containers": self.containers("c")}
        for key, prefix in (("initContainers", "i"), ("ephemeralContainers", "e")):
            for _ in self.maybe(0):
                spec[key] = self.containers(prefix)
        for volumes in self.maybe(
            [{"name": "v", "image": {"reference": self.chance.choice(IMAGES)}}, {"name": "w", "emptyDir": {}}]
        ):
            spec["volumes"] = volumes
        for secrets in self.maybe([{"name": self.chance.choice(["mine", "default-dockercfg-x"])}]):
            spec["imagePullSecrets"] = secrets
        for key in ("tolerations", "affinity", "dnsConfig"):
            for value in self.maybe(self.junk()):
                spec[key] = value
        return {"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": spec, "status": self.junk()}

    def review(self) -> Object:
        """A well-formed review."""
        operation = self.chance.choice(["CREATE", "CREATE", "UPDATE", "DELETE", "CONNECT"])
        request: Object = {
            "uid": str(self.chance.random()),
            "kind": {"group": "", "version": "v1", "kind": self.chance.choice(["Pod"] * 9 + ["Node"])},
            "operation": operation,
            "namespace": self.chance.choice(["team", "openshift", "kube-system", ""]),
            "object": self.pod() if self.chance.random() < 0.97 else self.junk(),
            "oldObject": self.pod() if operation == "UPDATE" else None,
            "userInfo": self.junk(),
            "dryRun": self.chance.choice([True, False, None]),
        }
        for name in self.maybe("ephemeralcontainers"):
            request["subResource"] = name
        return {"apiVersion": "admission.k8s.io/v1", "kind": "AdmissionReview", "request": request}

    def broken(self, body: bytes) -> bytes:
        """The same with some bytes changed, taken out, put in or cut off."""
        found = bytearray(body)
        for _ in range(self.chance.randrange(1, 6)):
            place = self.chance.randrange(len(found) or 1)
            match self.chance.randrange(4):
                case 0:
                    found[place : place + 1] = bytes([self.chance.randrange(256)])
                case 1:
                    del found[place : place + self.chance.randrange(1, 20)]
                case 2:
                    found[place:place] = self.chance.choice([b'"', b"{", b"}", b"[", b"\\u0000", b"\xff", b"null", b"1e999", b","])
                case _:
                    del found[self.chance.randrange(len(found) or 1) :]
        return bytes(found)


@pytest.mark.parametrize("seed", range(SEEDS))
def test_whatever_comes_is_allowed_or_is_no_review(seed: int) -> None:
    """Well-formed reviews get 200, are allowed, and their patch applies; all else gets 200 or 400; nothing fails inside."""
    bed = Bed(stream("app", tag("v1", f"{SOURCE}:v1", imported(1), imported(2))), rules=(MIRROR_SET,))
    metrics = Metrics()
    asked = application(bed, ReviewMetrics(metrics))
    grammar = Grammar(seed)
    patched = 0
    for _ in range(REVIEWS // SEEDS // 2):
        review = grammar.review()
        body = json.dumps(review).encode()
        status, answer = post(asked, body)
        response = json.loads(answer)["response"]
        assert (status, response["allowed"], response["uid"]) == (200, True, review["request"]["uid"])
        if "patch" in response:
            patched += 1
            json_patch(review["request"]["object"], json.loads(base64.b64decode(response["patch"])))
        status, answer = post(asked, grammar.broken(body))
        assert status in (200, 400)
        if status == 200:
            assert json.loads(answer)["response"]["allowed"] is True
        else:
            assert answer.count(b"\n") == 1
    assert patched > 100
    assert metrics.registry.get_sample_value("mirrorstream_webhook_reviews_total", {"outcome": "failed"}) == 0
