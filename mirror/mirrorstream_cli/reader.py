"""Reading what the operators' commands tell, as someone who may not see everything: what is refused becomes a note."""

from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import quote

import msgspec
from mirrorstream.diagnose.status import RuleObject, Rules
from mirrorstream.diagnose.tag_status import ControllerView, Item, State, TagState
from mirrorstream.imagestream.model import ImageStream, decode_imagestream
from mirrorstream.imagestream.outcomes import AttemptHistory, decode_event
from mirrorstream.imagestream.recorded import RECORDED_ANNOTATION, recorded_items
from mirrorstream.kube.answers import decode_object
from mirrorstream.kube.client import ApiError, Client, ConfigurationError
from mirrorstream.kube.errors import ClientError, is_transient
from mirrorstream.kube.pager import METADATA_ONLY, read_all
from mirrorstream.rules.objects import KINDS
from mirrorstream.rules.policy import MirrorPolicy
from mirrorstream.rules.source import IMAGE_CONFIG, PATHS
from mirrorstream.runtime.settings import Settings, SettingsError, parse_settings

from mirrorstream_cli import single_objects
from mirrorstream_cli.single_objects import API

DEFAULTS_NOTE = "decided with the default configuration, since the ConfigMap of mirrorstream's configuration cannot be read"
MAX_SINGLE_IMAGES = 32
"""Up to this number, Images are read one by one; beyond it, all Images of the cluster are listed, which costs it more."""
MAX_IMAGE_TAGS = 200
"""How many Images are read one by one for a user who may not list them."""
THREADS = 8


class _ImageAnnotations(msgspec.Struct, rename={"recorded": RECORDED_ANNOTATION}):
    recorded: str = ""


class _ImageMeta(msgspec.Struct):
    name: str = ""
    annotations: _ImageAnnotations | None = None

    @property
    def recorded(self) -> Mapping[str, str]:
        """The items that mirrorstream recorded, with their mirrors' hosts."""
        return recorded_items(self.annotations.recorded) if self.annotations else {}


class _Image(msgspec.Struct):
    metadata: _ImageMeta = msgspec.field(default_factory=_ImageMeta)


class _ImageStreamTag(msgspec.Struct):
    image: _Image = msgspec.field(default_factory=_Image)


# Made before any thread: see `Client.request`.
_decode_image = msgspec.json.Decoder(_Image).decode
_decode_tag = msgspec.json.Decoder(_ImageStreamTag).decode


def _rule_sources(
    client: Client, refused: list[str], malformed: Callable[[str], Callable[[str], None]]
) -> Iterator[dict[str, Any]]:
    """Every object that mirror rules come from; the kinds that may not be listed are added to `refused`.

    `malformed(kind)` returns the function that is called with the error of each object that cannot be read.
    """
    for resource, (path, kind) in PATHS.items():
        try:
            items = read_all(client, path, decode_object, on_malformed=malformed(kind))
        except ApiError as error:
            if error.status == 403:
                refused.append(resource)
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
    settings: Settings = field(default_factory=Settings)
    """The configuration as `controller_view` found it; the default one before, and where it cannot be read."""
    policy: MirrorPolicy | None = None
    """The mirror rules, once `rules` has read them all."""
    rule_objects: list[dict[str, Any]] = field(default_factory=list)
    """The objects that `rules` has read."""
    _hosted: bool | None = None

    def note(self, text: str) -> None:
        """Say something about the answer, once."""
        if text not in self.notes:
            self.notes.append(text)

    def path(self, root: str, plural: str) -> str:
        """Where the namespace, or the whole cluster, has a kind."""
        return f"{root}/namespaces/{quote(self.namespace, safe='')}/{plural}" if self.namespace else f"{root}/{plural}"

    def streams(self) -> list[ImageStream]:
        """All streams. Raises ClientError, or ConfigurationError where there are none: then there is nothing to tell."""
        return read_all(
            self.client, self.path(API, "imagestreams"), decode_imagestream, on_malformed=self._malformed("ImageStream")
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
        return self.client.request("GET", f"{self.path(API, 'imagestreams')}/{quote(name, safe='')}", decode=decode_imagestream)

    def _malformed(self, kind: str) -> Callable[[str], None]:
        return lambda why: self.note(f"an {kind} cannot be read and is left out: {why}")

    def history(self, stream: str = "") -> AttemptHistory:
        """What Events say of all streams, or of one."""
        selector = "involvedObject.kind=ImageStream" + (f",involvedObject.name={stream}" if stream else "")
        path = self.path("/api/v1", "events")
        try:
            return AttemptHistory(
                read_all(self.client, path, decode_event, params={"fieldSelector": selector}, on_malformed=self._malformed("Event"))
            )
        except ApiError as error:
            if error.status != 403:
                raise
            self.note("you may not list Events, so what mirrorstream tried is not known")
            return AttemptHistory()

    def rules(self, controller_view: ControllerView) -> tuple[MirrorPolicy | None, Rules]:
        """The mirror sets and the Image config; no policy if a kind of mirror set may not be listed."""
        refused: list[str] = []
        objects = self.rule_objects = list(_rule_sources(self.client, refused, self._malformed))
        policy = MirrorPolicy.from_objects(objects, tags_through_digest_mirrors=controller_view.tags_through_digest_mirrors)
        hidden = [resource for resource in refused if resource != IMAGE_CONFIG]
        if hidden:
            self.note(f"you may not list {', '.join(hidden)}: which mirrors there are is known from Events only")
            return None, Rules(known=False)
        if refused:
            self.note(f"you may not list {IMAGE_CONFIG}: what the cluster refuses to import is not known")
        self.policy = policy
        return policy, Rules(True, tuple(_rule_objects(objects)), policy.warnings)

    def controller_view(self) -> tuple[ControllerView, bool]:
        """The controller's configuration, and whether it is known: otherwise it is taken for the default."""
        if (found := single_objects.configuration(self.client)) is None:
            return ControllerView(), False
        for note in found.notes:
            self.note(note)
        try:
            settings = parse_settings(found.text, found.where)
        except SettingsError as error:
            self.note(str(error))
            return ControllerView(), False
        self.settings = settings
        if settings.mode == "observe":
            self.note("mirrorstream observes only (mode: observe): it heals nothing")
        return ControllerView.of(settings), True

    def is_hosted(self) -> bool:
        """Whether the control plane runs elsewhere, as the cluster's Infrastructure says; False where that cannot be read.

        It is asked for once.
        """
        if self._hosted is None:
            self._hosted = self._read_hosted()
        return self._hosted

    def _read_hosted(self) -> bool:
        try:
            return single_objects.is_hosted(self.client)
        except ClientError as error:
            if not (is_transient(error) or (isinstance(error, ApiError) and error.status in (403, 404))):
                raise
            self.note("whether this is a hosted cluster, where nobody may create mirror sets, is not known")
            return False

    def may_create(self, group: str, resource: str) -> bool:
        """Whether the user may create objects of a cluster-wide kind. Raises ClientError."""
        return single_objects.may_create(self.client, group, resource)

    def origins(self, states: Iterable[TagState]) -> dict[Item, str]:
        """The mirrors' hosts by the items of tags that came through a mirror, as the annotations of their Images have it."""
        found = [state for state in states if state.state is State.IMPORTED and state.digest]
        wanted = {state.digest: state for state in found}
        if not wanted:
            return {}
        try:
            recorded = self._all_images(wanted) if len(wanted) > MAX_SINGLE_IMAGES else None
            if recorded is None:
                recorded = self._each_image(list(wanted.values()))
        except ClientError as error:
            if not is_transient(error):
                raise
            # The least of the answer, and the last that is asked for, perhaps after minutes of waiting.
            self.note(f"which tags were healed is not known: {error}")
            return {}
        items = {state.item: recorded.get(state.digest, {}).get(state.created, "") for state in found}
        return {item: host for item, host in items.items() if host}

    def _all_images(self, wanted: Mapping[str, TagState]) -> dict[str, Mapping[str, str]] | None:
        try:
            images = read_all(self.client, f"{API}/images", _decode_image, accept=METADATA_ONLY)
        except ApiError as error:
            if error.status != 403:
                raise
            return None
        return {image.metadata.name: image.metadata.recorded for image in images if image.metadata.name in wanted}

    def _each_image(self, states: list[TagState]) -> dict[str, Mapping[str, str]]:
        """Ask for tags: a namespace's viewers may, and no list has their Images' annotations."""
        if len(states) > MAX_IMAGE_TAGS:
            self.note(
                f"you may not list Images: only {MAX_IMAGE_TAGS} of {len(states)} imported tags were checked for their mirror"
            )

        def look(state: TagState) -> tuple[str, Mapping[str, str]]:
            path = f"{API}/namespaces/{state.namespace}/imagestreamtags/{quote(state.stream, safe='')}:{quote(state.tag, safe='')}"
            try:
                image = self.client.request("GET", path, decode=_decode_tag).image.metadata
            except ApiError as error:
                if error.status == 403:
                    self.note("you may not get imagestreamtags, so which tags were healed is not known")
                elif error.status != 404:
                    raise
                return state.digest, {}
            return image.name, image.recorded

        with ThreadPoolExecutor(THREADS) as pool:
            return dict(pool.map(look, states[:MAX_IMAGE_TAGS]))


def _rule_objects(objects: Iterable[dict[str, Any]]) -> Iterator[RuleObject]:
    for item in objects:
        kind, metadata = str(item["kind"]), item.get("metadata")
        if kind in KINDS:
            spec = item.get("spec")
            entries = spec.get(KINDS[kind][0]) if isinstance(spec, dict) else None
            name = metadata.get("name") if isinstance(metadata, dict) else None
            yield RuleObject(f"{kind}/{name}", len(entries) if isinstance(entries, list) else 0)
