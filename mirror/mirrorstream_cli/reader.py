"""Reading what the operators' commands tell, as someone who may not see everything: what is refused becomes a note."""

from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import quote

import msgspec

from mirrorstream.attempts import Journal, decode_event
from mirrorstream.imagestreams import IMPORTED_THROUGH_ANNOTATION, ImageStream, decode_imagestream
from mirrorstream.kube.client import ApiError, Client, ConfigurationError
from mirrorstream.kube.errors import ClientError, is_transient
from mirrorstream.kube.lists import METADATA_ONLY, read_all
from mirrorstream.objects import KINDS
from mirrorstream.policy import MirrorPolicy
from mirrorstream.safetext import one_line
from mirrorstream.settings import SettingsError, parse_settings
from mirrorstream.sources import IMAGE_CONFIG, PATHS
from mirrorstream.statusreport import RuleObject, Rules
from mirrorstream.tagstates import Asking, State, TagState

API = "/apis/image.openshift.io/v1"
USER_AGENT = "kubectl-mirrorstream"
CONFIGURATION = "/api/v1/namespaces/mirrorstream/configmaps/mirrorstream-config"
"""Where config/base puts the controller's configuration."""
DEFAULTS_NOTE = "decided with the default configuration, since ConfigMap mirrorstream/mirrorstream-config cannot be read"
FEW = 32
"""The Images of so many tags are asked for one by one; of more, all the cluster's are listed, which costs it more."""
MOST = 200
"""Whoever may not list Images asks for so many one by one, and no more."""
THREADS = 8


class _ImageAnnotations(msgspec.Struct, rename={"through": IMPORTED_THROUGH_ANNOTATION}):
    through: str = ""


class _ImageMeta(msgspec.Struct):
    name: str = ""
    annotations: _ImageAnnotations | None = None


class _Image(msgspec.Struct):
    metadata: _ImageMeta = msgspec.field(default_factory=_ImageMeta)


class _ImageStreamTag(msgspec.Struct):
    image: _Image = msgspec.field(default_factory=_Image)


# Made before any thread: see `Client.request`.
_decode_image = msgspec.json.Decoder(_Image).decode
_decode_tag = msgspec.json.Decoder(_ImageStreamTag).decode


def cluster_objects(client: Client, paths: Mapping[str, tuple[str, str]], notes: list[str]) -> Iterator[dict[str, Any]]:
    """Every object of some resources (as in PATHS); what is not served is nothing, what is not allowed becomes a note."""

    def refused(resource: str, error: ApiError) -> None:
        notes.append(f"you are not allowed to list {resource}, so the answer leaves them out: {error.message}")

    yield from _objects(client, paths, refused)


def _objects(
    client: Client, paths: Mapping[str, tuple[str, str]], refused: Callable[[str, ApiError], None]
) -> Iterator[dict[str, Any]]:
    for resource, (path, kind) in paths.items():
        try:
            items = client.get(path).get("items") or []
        except ApiError as error:
            if error.status == 403:
                refused(resource, error)
            elif error.status != 404:
                raise
            continue
        yield from ({**item, "kind": kind} for item in items)


@dataclass(slots=True)
class Reader:
    """Reads one namespace, or with None all of them. What could not be seen collects in `notes`."""

    client: Client
    namespace: str | None
    notes: list[str] = field(default_factory=list)

    def note(self, text: str) -> None:
        """Say something about the answer, once."""
        if text not in self.notes:
            self.notes.append(text)

    def _path(self, root: str, plural: str) -> str:
        return f"{root}/namespaces/{quote(self.namespace, safe='')}/{plural}" if self.namespace else f"{root}/{plural}"

    def streams(self) -> list[ImageStream]:
        """All streams. Raises ClientError, or ConfigurationError where there are none: then there is nothing to tell."""
        return read_all(
            self.client, self._path(API, "imagestreams"), decode_imagestream, on_malformed=self._malformed("ImageStream")
        )

    def check_namespace(self) -> None:
        """A namespace without a stream is looked at itself. Raises ConfigurationError if there is none, ClientError."""
        if not self.namespace:
            return
        try:
            self.client.get(f"/api/v1/namespaces/{quote(self.namespace, safe='')}")
        except ApiError as error:
            if error.status == 404:
                raise ConfigurationError(f"there is no namespace {self.namespace!r}") from error
            if error.status != 403:
                raise
            self.note(f"you may not get namespace {self.namespace!r}, so whether it exists is not known")

    def stream(self, name: str) -> ImageStream:
        """One stream. Raises ClientError."""
        return self.client.request("GET", f"{self._path(API, 'imagestreams')}/{quote(name, safe='')}", decode=decode_imagestream)

    def _malformed(self, kind: str) -> Callable[[str], None]:
        return lambda why: self.note(f"an {kind} cannot be read and is left out: {why}")

    def journal(self, stream: str = "") -> Journal:
        """What Events say of all streams, or of one."""
        selector = "involvedObject.kind=ImageStream" + (f",involvedObject.name={stream}" if stream else "")
        path = self._path("/api/v1", "events")
        try:
            return Journal(read_all(self.client, path, decode_event, params={"fieldSelector": selector}))
        except ApiError as error:
            if error.status != 403:
                raise
            self.note("you may not list Events, so what mirrorstream tried is not known")
            return Journal()

    def rules(self, asking: Asking) -> tuple[MirrorPolicy | None, Rules]:
        """The mirror sets and the Image config; no policy if a kind of mirror set may not be listed."""
        refused: list[str] = []
        objects = list(_objects(self.client, PATHS, lambda resource, error: refused.append(resource)))
        policy = MirrorPolicy.from_objects(objects, tags_through_digest_mirrors=asking.tags_through_digest_mirrors)
        hidden = [resource for resource in refused if resource != IMAGE_CONFIG]
        if hidden:
            self.note(f"you may not list {', '.join(hidden)}: which mirrors there are is known from Events only")
            return None, Rules(known=False)
        if refused:
            self.note(f"you may not list {IMAGE_CONFIG}: what the cluster refuses to import is not known")
        return policy, Rules(True, tuple(_rule_objects(objects)), policy.warnings)

    def asking(self) -> tuple[Asking, bool]:
        """The controller's configuration, and whether it is known: otherwise it is taken for the default."""
        try:
            data = self.client.get(CONFIGURATION).get("data") or {}
            settings = parse_settings(str(data.get("config.yaml") or ""), "ConfigMap mirrorstream-config")
        except ApiError as error:
            if error.status not in (403, 404):
                raise
            return Asking(), False
        except SettingsError as error:
            self.note(str(error))
            return Asking(), False
        if settings.mode == "observe":
            self.note("mirrorstream observes only (mode: observe): it heals nothing")
        asking = Asking(
            tags_through_digest_mirrors=settings.mirrors.tagsThroughDigestMirrors,
            bypass_not_found=settings.mirrors.bypassNotFound,
            recorded_reference=settings.controller.recordedReference,
            looks_after=settings.controller.namespaces.cover,
            observing=settings.mode == "observe",
        )
        return asking, True

    def origins(self, states: Iterable[TagState]) -> dict[str, str]:
        """For the digests of what came through a mirror, the reference that served it, as their Images say."""
        wanted = {state.digest: state for state in states if state.state is State.IMPORTED and state.digest}
        if not wanted:
            return {}
        try:
            if len(wanted) > FEW and (listed := self._all_images(wanted)) is not None:
                return listed
            return self._each_image(list(wanted.values()))
        except ClientError as error:
            if not is_transient(error):
                raise
            # The least of the answer, and the last that is asked for, perhaps after minutes of waiting.
            self.note(f"which tags were healed is not known: {error}")
            return {}

    def _all_images(self, wanted: Mapping[str, TagState]) -> dict[str, str] | None:
        try:
            images = read_all(self.client, f"{API}/images", _decode_image, accept=METADATA_ONLY)
        except ApiError as error:
            if error.status != 403:
                raise
            return None
        found = ((image.metadata.name, image.metadata.annotations) for image in images)
        return {name: one_line(a.through) for name, a in found if a and a.through and name in wanted}

    def _each_image(self, states: list[TagState]) -> dict[str, str]:
        """Ask for tags: a namespace's viewers may, and no list has their Images' annotations."""
        if len(states) > MOST:
            self.note(f"you may not list Images: only {MOST} of {len(states)} well tags were asked for how they came")

        def look(state: TagState) -> tuple[str, str]:
            path = f"{API}/namespaces/{state.namespace}/imagestreamtags/{quote(state.stream, safe='')}:{quote(state.tag, safe='')}"
            try:
                image = self.client.request("GET", path, decode=_decode_tag).image.metadata
            except ApiError as error:
                if error.status == 403:
                    self.note("you may not get imagestreamtags, so which tags were healed is not known")
                elif error.status != 404:
                    raise
                return state.digest, ""
            return image.name, one_line(image.annotations.through) if image.annotations else ""

        with ThreadPoolExecutor(THREADS) as pool:
            return {digest: through for digest, through in pool.map(look, states[:MOST]) if through}


def _rule_objects(objects: Iterable[dict[str, Any]]) -> Iterator[RuleObject]:
    for item in objects:
        kind, metadata = str(item["kind"]), item.get("metadata")
        if kind in KINDS:
            spec = item.get("spec")
            entries = spec.get(KINDS[kind][0]) if isinstance(spec, dict) else None
            name = metadata.get("name") if isinstance(metadata, dict) else None
            yield RuleObject(f"{kind}/{name}", len(entries) if isinstance(entries, list) else 0)
