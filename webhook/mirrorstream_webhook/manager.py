"""The webhook as a process: what it is made of, in which order it starts, and how it ends."""

import gc
import signal
import sys
import threading
from collections.abc import Iterable
from typing import Any

import structlog
from mirrorstream.kube.client import load_client
from mirrorstream.kube.credentials import own_name, own_namespace
from mirrorstream.kube.informer import Change, Informer
from mirrorstream.rules.policy import MirrorPolicy
from mirrorstream.rules.source import PolicySource
from mirrorstream.runtime.certs import validity_gauges, validity_of
from mirrorstream.runtime.health import HealthServer
from mirrorstream.runtime.informer_metrics import informer_gauges, stale_informer
from mirrorstream.runtime.metrics import Metrics, Sample, observe_mode
from mirrorstream.runtime.settings import Settings, SettingsFile

from mirrorstream_webhook.access import Access
from mirrorstream_webhook.app import Deps, create_application
from mirrorstream_webhook.architecture import api_server_architecture
from mirrorstream_webhook.claims import StreamClaims, read_claims
from mirrorstream_webhook.decider import Decider
from mirrorstream_webhook.guards import Guards, SignaturePolicies, SignaturePolicy, decode_signature_policy, signature_paths
from mirrorstream_webhook.index import Index
from mirrorstream_webhook.metrics import ReviewMetrics
from mirrorstream_webhook.pending_pods.loop import load_pending_pods
from mirrorstream_webhook.review import Reviewer
from mirrorstream_webhook.self_signed import SelfSigned
from mirrorstream_webhook.server import Server

log = structlog.get_logger(__name__)

STREAMS = "/apis/image.openshift.io/v1/imagestreams"
DRAIN_SECONDS = 5.0
"""How long connections are still accepted after SIGTERM: until every API server has heard that this replica is going."""
GRACE_SECONDS = 1.0
"""How long those that were accepted last have for their review to arrive."""
SWITCH_SECONDS = 0.001
"""How long a thread keeps the interpreter from another that waits for it, where Python's default is 5 ms.

A review takes it several times, and each time a thread that works long, at new mirror rules say, makes it wait so long: while one
of 10,000 rules changed the longest review took 47 ms and 76 ms, and 14 to 24 ms with this. As many are answered in a second.
"""


class Manager:
    """Wires the webhook together; `run` blocks until a signal ends it."""

    def __init__(
        self,
        settings: SettingsFile,
        *,
        kubeconfig: str | None = None,
        port: int = 8443,
        certificate_file: str | None = None,
        key_file: str | None = None,
        self_signed_for: str | None = None,
        metrics_port: int = 8080,
        metrics_certificate: str | None = None,
        metrics_key: str | None = None,
    ) -> None:
        """Raises ConfigurationError when the cluster, a port or a certificate cannot be used.

        `self_signed_for` names the MutatingWebhookConfiguration whose API servers are to know certificates of our own.
        """
        self.metrics = metrics = Metrics("webhook")
        self._settings_file = settings
        current = settings.current
        self._client = load_client(kubeconfig, user_agent="mirrorstream-webhook", observe=metrics.observe_request)
        self._access = Access(self._client)
        self._index = Index()
        self._signatures = SignaturePolicies()
        self._decider = Decider(self._index, self._access.allowed, current, own_namespace=own_namespace())
        self._streams = Informer(self._client, STREAMS, read_claims, self._on_stream, name="imagestreams.image.openshift.io")
        self._policy = PolicySource(
            self._client, self._on_policy, tags_through_digest_mirrors=current.mirrors.tagsThroughDigestMirrors
        )
        self._signature_informers = [
            Informer(
                self._client,
                path,
                decode_signature_policy,
                self._on_signature,
                name=f"{path.rpartition('/')[2]}.{version}.config.openshift.io",
                optional=True,
            )
            for _, version, path in signature_paths()
        ]
        self._pending_pods = load_pending_pods(kubeconfig, self._decider, metrics, current)
        self._has_architecture = False
        self._ended = threading.Event()
        self._graceful = True
        self._renewing = threading.Lock()
        review_metrics = ReviewMetrics(metrics)
        metrics.gauges(self._gauges)
        deps = Deps(Reviewer(self._decider, review_metrics), review_metrics, self._healthy, self._ready)
        self._health = HealthServer(
            metrics_port,
            metrics.registry,
            healthy=self._healthy,
            ready=self._ready,
            certificate=metrics_certificate,
            key=metrics_key,
        )
        self._server = Server(
            create_application(deps),
            port,
            certificate_file=certificate_file,
            key_file=key_file,
            on_rotation=review_metrics.rotated,
        )
        self._self_signed = (
            SelfSigned(self._client.unlimited(), self_signed_for, self._server.serve, replica=own_name())
            if self_signed_for
            else None
        )

    def run(self) -> int:
        """Run until SIGTERM, which drains first, or SIGINT; the process's exit status."""
        sys.setswitchinterval(SWITCH_SECONDS)
        signal.signal(signal.SIGTERM, lambda number, frame: self._end(graceful=True))
        signal.signal(signal.SIGINT, lambda number, frame: self._end(graceful=False))
        settings = self._settings_file.current
        log.info("starting", server=self._client.server, mode=settings.mode, port=self._server.port)
        self._settings_file.subscribe(self._configure, self.metrics.reloaded)
        self._settings_file.start()
        self._health.start()
        self._access.start()
        self._policy.start()
        for informer in self._informers():
            informer.start()
        if self._self_signed:
            self._self_signed.start()  # and the server with its first certificate
        else:
            self._server.start()
        self._pending_pods.start()
        synced, pause = False, 0.0
        while not self._ended.wait(pause):
            self._learn_architecture()
            pause = 0.1 if self._has_architecture and not synced else 1.0
            # The guards may be there already: the thread that reads the rules makes them, too.
            if not synced and self._not_synced() is None:
                synced = True
                self._synced()
        self._stop()
        log.info("stopped")
        return 0

    def _learn_architecture(self) -> None:
        if not self._has_architecture and (found := api_server_architecture(self._client)):
            self._decider.architecture, self._has_architecture = found, True

    def _end(self, *, graceful: bool) -> None:
        self._graceful = graceful
        self._ended.set()

    def _stop(self) -> None:
        """Say that it is going, go on until that is known, finish what runs, then the rest."""
        if self._self_signed:
            self._self_signed.end()
        if self._graceful:
            log.info("shutting down, still answering reviews", seconds=DRAIN_SECONDS)
            self._server.drain()
            self._pending_pods.stop()
            threading.Event().wait(DRAIN_SECONDS)
        self._server.stop(grace=GRACE_SECONDS if self._graceful else 0.0)
        if self._self_signed:
            self._self_signed.leave()
        if not self._graceful:
            self._pending_pods.stop()
        self._access.stop()
        for informer in self._informers():
            informer.stop()
        self._policy.stop()
        self._settings_file.stop()
        self._health.stop()

    # What changes.

    def _on_stream(self, change: Change[StreamClaims]) -> None:
        self._index.apply(change.old, change.new)

    def _on_policy(self, policy: MirrorPolicy) -> None:
        self.metrics.policy_warnings.set(len(policy.warnings))
        self._renew_guards()

    def _on_signature(self, change: Change[SignaturePolicy]) -> None:
        self._signatures.apply(change.old, change.new)
        self._renew_guards()

    def _configure(self, settings: Settings) -> None:
        self._policy.configure(tags_through_digest_mirrors=settings.mirrors.tagsThroughDigestMirrors)
        self._decider.configure(settings)
        self._pending_pods.configure(settings)
        self._renew_guards()

    def _synced(self) -> None:
        # What is there now stays: a collection that walks through it again and again would only hold reviews up.
        gc.collect()
        gc.freeze()
        self._renew_guards()
        log.info("ready", references=self._index.references())

    def _renew_guards(self) -> None:
        """Start with new answers under the present rules; none while they are not all known."""
        with self._renewing:  # several threads come here, and the last must not be the one that read first
            policy = self._policy.current
            if policy is None or self._not_synced() is not None:
                return
            respect = self._settings_file.current.webhook.respectImagePolicies
            self._decider.guards = Guards(policy, self._signatures, respect=respect)

    # What others ask.

    def _informers(self) -> list[Informer[Any]]:
        return [self._streams, *self._signature_informers]

    def _all_informers(self) -> list[Informer[Any]]:
        return [*self._informers(), *self._policy.informers.values()]

    def _not_synced(self) -> str | None:
        """What has not been read yet; None if all has."""
        if not self._has_architecture:
            return "not read yet: the API server's architecture"
        if not self._streams.synced.is_set():
            return self._streams.problem or f"not synced yet: {self._streams.name}"
        if self._settings_file.current.webhook.respectImagePolicies:
            for informer in self._signature_informers:
                if not informer.synced.is_set():
                    return informer.problem or f"not synced yet: {informer.name}"
        return self._policy.problem()

    def _ready(self) -> str | None:
        if self._ended.is_set():
            return "ending"
        if self._self_signed and (problem := self._self_signed.problem()):
            return problem
        return self._not_synced() or (None if self._decider.guards else "not synced yet")

    def _healthy(self) -> str | None:
        return stale_informer(self._all_informers())

    def _gauges(self) -> Iterable[Sample]:
        none = ()
        references = float(self._index.references())
        text = "Image references in the index: those that pods can name to get the image of a Local tag"
        yield "mirrorstream_webhook_references", text, none, {none: references}
        policy = self._policy.current
        legacy = float(self._index.legacy_tags()) if policy and policy.several_architectures else 0.0
        text = "Local tags with the image of one architecture (importMode Legacy) on a cluster with several; 0 on others"
        yield "mirrorstream_webhook_legacy_tags", text, none, {none: legacy}
        yield observe_mode(self._settings_file.current.mode)
        pair = self._server.pair
        yield from validity_gauges("webhook", validity_of(pair.certificate) if pair else None)
        yield from validity_gauges("metrics", self._health.validity)
        yield from self._pending_pods.gauges()
        yield from informer_gauges([*self._all_informers(), self._pending_pods.pods])
