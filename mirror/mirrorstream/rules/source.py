"""The mirror rules as they are now: watches of the mirror sets and the Image config, turned into a MirrorPolicy.

A kind that the cluster does not have (IDMS and ITMS came late) contributes nothing. The Image config is different: it holds what
must not be imported, so while it cannot be read nothing may be imported.
"""

import threading
from collections.abc import Callable
from functools import partial

import structlog

from mirrorstream.kube.client import Client
from mirrorstream.kube.informer import Change, Informer
from mirrorstream.kube.objects import json_objects
from mirrorstream.rules.objects import RuleObjects, merged, read_object
from mirrorstream.rules.policy import MirrorPolicy

log = structlog.get_logger(__name__)

IMAGE_CONFIG = "images.config.openshift.io"
PATHS = {
    "imagecontentsourcepolicies.operator.openshift.io": (
        "/apis/operator.openshift.io/v1alpha1/imagecontentsourcepolicies",
        "ImageContentSourcePolicy",
    ),
    "imagedigestmirrorsets.config.openshift.io": ("/apis/config.openshift.io/v1/imagedigestmirrorsets", "ImageDigestMirrorSet"),
    "imagetagmirrorsets.config.openshift.io": ("/apis/config.openshift.io/v1/imagetagmirrorsets", "ImageTagMirrorSet"),
    IMAGE_CONFIG: ("/apis/config.openshift.io/v1/images", "Image"),
}
"""The cluster-wide objects that rules come from: resource -> (path, kind)."""

SETTLE_SECONDS = 0.1
"""Changes that come together (a list, an `oc apply` of many objects) make one new policy."""


AGAIN_SECONDS = 5.0
"""The pause after rules that could not be taken over."""


class PolicySource:
    """Keeps the current MirrorPolicy; `on_change` is called, from its own thread, with each new one that differs."""

    def __init__(self, client: Client, on_change: Callable[[MirrorPolicy], None], *, tags_through_digest_mirrors: bool) -> None:
        self._on_change = on_change
        self._tags_through_digest_mirrors = tags_through_digest_mirrors
        self._changed = threading.Event()
        self._stopped = threading.Event()
        self._thread: threading.Thread | None = None
        self._warned: frozenset[str] = frozenset()
        self._unread: str | None = None
        """Why the Image config could not be read, as it was logged last."""
        self.informers: dict[str, Informer[RuleObjects]] = {
            name: Informer(client, path, partial(_read, kind), self._changed_object, name=name, optional=True)
            for name, (path, kind) in PATHS.items()
        }
        self.current: MirrorPolicy | None = None
        """None until every kind has been asked for, and while the Image config cannot be read."""

    def _changed_object(self, _: Change[RuleObjects]) -> None:
        self._changed.set()

    def start(self) -> None:
        """Watch, and build policies in a thread of its own."""
        for informer in self.informers.values():
            informer.start()
        self._thread = threading.Thread(target=self._run, name="policy", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """End all threads."""
        self._stopped.set()
        self._changed.set()
        for informer in self.informers.values():
            informer.stop()
        if self._thread:
            self._thread.join(timeout=5)

    def configure(self, *, tags_through_digest_mirrors: bool) -> None:
        """Take over a changed setting."""
        self._tags_through_digest_mirrors = tags_through_digest_mirrors
        self._changed.set()

    def problem(self) -> str | None:
        """Why there is no policy; None if there is one."""
        if self.current is not None:
            return None
        waiting = [name for name, informer in self.informers.items() if not informer.settled.is_set()]
        if waiting:
            return f"not read yet: {', '.join(waiting)}"
        return f"{self.informers[IMAGE_CONFIG].problem}: what must not be imported is unknown, so nothing is"

    def _run(self) -> None:
        for informer in self.informers.values():
            while not informer.settled.wait(0.5):
                if self._stopped.is_set():
                    return
        while not self._stopped.is_set():
            self._changed.clear()
            try:
                self._rebuild()
            except Exception:  # a bug must not leave the rules as they are for good
                log.exception("failed to apply the mirror rules, will retry")
                self._stopped.wait(AGAIN_SECONDS)
                self._changed.set()
            # An Image config that was refused may become readable without a change of any object.
            self._changed.wait(None if self.current is not None else 1.0)
            if self._changed.is_set():
                self._stopped.wait(SETTLE_SECONDS)

    def _rebuild(self) -> None:
        if not self.informers[IMAGE_CONFIG].synced.is_set():
            if (reason := self.informers[IMAGE_CONFIG].problem) != self._unread:
                log.warning("cannot read the Image config, importing nothing", reason=reason)
            self._unread = reason
            return
        policy = self.build()
        if policy == self.current:
            return
        warnings = frozenset(str(warning) for warning in policy.warnings)
        for warning in policy.warnings:
            if str(warning) not in self._warned:
                log.warning(
                    "part of a mirror rule cannot be used", object=warning.object, field=warning.field, reason=warning.message
                )
        self._warned = warnings
        self.current = policy
        log.info("applied mirror rules", objects=sum(i.count() for i in self.informers.values()), warnings=len(warnings))
        self._on_change(policy)

    def build(self) -> MirrorPolicy:
        """The policy of the objects as they are now."""
        parts = [part for informer in self.informers.values() for part in informer.objects()]
        return MirrorPolicy(merged(parts), tags_through_digest_mirrors=self._tags_through_digest_mirrors, previous=self.current)


def _read(kind: str, raw: bytes) -> RuleObjects:
    """An object's part of the rules, read once and not for each new policy."""
    return read_object(json_objects(raw), kind)
