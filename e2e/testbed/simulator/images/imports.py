"""ImageStreamImports: a request that fetches images and, unless it is a dry run, writes them into a stream."""

import copy
import datetime
from typing import Any

from mirrorstream.rules.references import ReferenceError, parse_reference, written_name

from e2e.testbed.simulator import errors
from e2e.testbed.simulator.images.allowed import AllowedRegistries
from e2e.testbed.simulator.images.convert import without_manifest
from e2e.testbed.simulator.images.fetch import Fetcher
from e2e.testbed.simulator.images.image_strategy import ImageStrategy
from e2e.testbed.simulator.images.importer import Fetched, ImportSession
from e2e.testbed.simulator.images.limits import EXCEEDED
from e2e.testbed.simulator.images.pace import Pace
from e2e.testbed.simulator.images.registry_errors import RegistryError
from e2e.testbed.simulator.images.streams import (
    GROUP,
    STREAMS,
    StreamStrategy,
    add_event,
    canonical,
    set_spec_tag,
    spec_tags,
    status_tag,
    status_tags,
)
from e2e.testbed.simulator.images.tag_order import prioritized
from e2e.testbed.simulator.resources import Context, Resource
from e2e.testbed.simulator.settings import Settings
from e2e.testbed.simulator.store import timestamp

Object = dict[str, Any]
CHECK = "openshift.io/image.dockerRepositoryCheck"
PREFER_ARCH = "importer.image.openshift.io/prefer-arch"
PREFER_OS = "importer.image.openshift.io/prefer-os"
MAXIMUM_TAGS = 50
PATIENCE = 3600.0
"""How long a registry that has greeted may take for a manifest, in seconds: only who asks for the import bounds it."""
SUCCESS: Object = {"metadata": {}, "status": "Success"}
IMAGE_STRATEGY = ImageStrategy()
IMAGES = Resource(GROUP, "v1", "images", "Image", False, strategy=IMAGE_STRATEGY)
"""As it is served, too."""


class Imports:
    """Carries out imports."""

    def __init__(self, settings: Settings, strategy: StreamStrategy, allowed: AllowedRegistries) -> None:
        self._settings, self._strategy, self._allowed = settings, strategy, allowed
        self._fetcher = Fetcher(settings.importer.timeout_seconds, patience=PATIENCE)

    def create(self, context: Context, name: str, body: Any) -> Object:
        """POST an ImageStreamImport. Raises StatusError."""
        request = self._checked(context, body)
        metadata, spec = request["metadata"], request["spec"]
        store = context.store
        if not store.may_create(IMAGES, context.user, context.groups):
            self._check_allowed(metadata["name"], spec)
        stream, found = self._stream(context, metadata)
        session = ImportSession(store, self._settings, self._fetcher, context.namespace)
        pace = Pace(self._settings.importer.images_per_second)
        fetched = self._fetch_all(session, stream, spec.get("images") or [], pace)
        repository = self._fetch_repository(session, spec["repository"], pace) if spec.get("repository") else None
        answer: Object = {
            "kind": "ImageStreamImport",
            "apiVersion": f"{GROUP}/v1",
            "metadata": {"name": metadata["name"], "namespace": context.namespace, "creationTimestamp": timestamp()},
            "spec": spec,
            "status": {},
        }
        if spec.get("images"):
            answer["status"]["images"] = [
                _shown(status, keep=bool(image.get("includeManifest")))
                for status, image in zip(fetched, spec["images"], strict=True)
            ]
        if repository is not None:
            answer["status"]["repository"] = {
                **repository,
                **({"images": [_shown(s, keep=False) for s in repository["images"]]} if "images" in repository else {}),
            }
        if spec.get("import"):
            written = self._write(context, stream, found, spec, fetched, repository)
            shown = self._strategy.decorate(written)
            answer["status"]["import"] = shown
        return answer

    def _checked(self, context: Context, body: Any) -> Object:
        if not isinstance(body, dict):
            raise errors.bad_request("the object provided is unrecognized (must be of type map)")
        request = copy.deepcopy(body)
        metadata = request.setdefault("metadata", {})
        spec = request.setdefault("spec", {})
        name = metadata.get("name", "")
        causes = []
        if not name:
            causes.append(errors.required("metadata.name", "name or generateName is required"))
        if not spec.get("images") and not spec.get("repository"):
            why = "you must specify at least one image or a repository import"
            causes.append(errors.invalid_value("spec.images", "null", why))
        imports = [(f"spec.images[{number}]", image) for number, image in enumerate(spec.get("images") or [])]
        if spec.get("repository"):
            imports.append(("spec.repository", spec["repository"]))
        for path, item in imports:
            causes += _wrong_source(path, item.get("from") or {})
            policy = {key: value for key, value in (item.get("importPolicy") or {}).items() if value}
            policy.setdefault("importMode", "Legacy")
            item["importPolicy"] = policy
            item["referencePolicy"] = {"type": (item.get("referencePolicy") or {}).get("type") or "Source"}
            if not item.get("includeManifest"):
                item.pop("includeManifest", None)
            if path != "spec.repository" and not item.get("to") and (tag := _written_tag(item)):
                item["to"] = {"name": tag}
        if causes:
            raise errors.invalid(GROUP, "ImageStreamImport", name, causes)
        spec.setdefault("import", False)
        return request

    def _check_allowed(self, name: str, spec: Object) -> None:
        """The allow-list. Who may create images could store any image, and is let through."""
        sources = [("spec.repository", spec["repository"])] if spec.get("repository") else []
        sources += [(f"spec.images[{number}]", image) for number, image in enumerate(spec.get("images") or [])]
        causes = []
        for path, item in sources:
            insecure = bool(item["importPolicy"].get("insecure"))
            if refused := self._allowed.import_refusal(item["from"]["name"], insecure):
                causes.append(errors.forbidden_value(f"{path}.from.name", refused))
        if causes:
            raise errors.invalid(GROUP, "ImageStreamImport", name, causes)

    def _stream(self, context: Context, metadata: Object) -> tuple[Object, bool]:
        """The stream that the import is named after, and whether it exists."""
        # A uid in the request is wiped before it gets here, as in every create request.
        name, version = metadata["name"], metadata.get("resourceVersion")
        try:
            stream = context.store.get(STREAMS, context.namespace, name)
        except errors.StatusError:
            if version:
                raise
            return {"metadata": {"name": name, "namespace": context.namespace, "generation": 0}, "spec": {}, "status": {}}, False
        if version and version != stream["metadata"]["resourceVersion"]:
            why = f'the image stream was updated from "{version}" to "{stream["metadata"]["resourceVersion"]}"'
            raise errors.conflict(GROUP, "imagestream", name, why)
        return stream, True

    # Fetching.

    def _fetch_all(self, session: ImportSession, stream: Object, images: list[Object], pace: Pace) -> list[Object]:
        """The status of each image, fetched one after another.

        The images of a repository have one connection, so the first decides for all of them whether it may be insecure.
        """
        insecure: dict[str, bool] = {}
        known: dict[tuple[str, Any, tuple[str, str]], Object] = {}
        statuses = []
        for spec in images:
            reference = spec["from"]["name"]
            if blocked := session.blocked(reference):
                statuses.append({"status": blocked.status()})
                continue
            policy = spec["importPolicy"]
            insecure.setdefault(written_name(reference), bool(policy.get("insecure")))
            same = (str(parse_reference(reference)), policy.get("importMode"), _preferred(stream, spec))
            if same not in known:
                pace.wait()
                known[same] = self._fetch(session, spec, insecure=insecure[written_name(reference)], prefer=same[2])
            statuses.append(copy.deepcopy(known[same]))
        return statuses

    def _fetch(self, session: ImportSession, spec: Object, *, insecure: bool, prefer: tuple[str, str]) -> Object:
        """The status of one image: an image, or why there is none."""
        reference = spec["from"]["name"]
        parsed = parse_reference(reference)
        tag = {} if parsed.digest else {"tag": parsed.tag}
        try:
            fetched = session.fetch(reference, insecure=insecure, mode=spec["importPolicy"].get("importMode"), prefer=prefer)
        except (errors.StatusError, RegistryError) as error:
            return {**tag, "status": _status(error)}
        return {**tag, **_images(fetched, reference), "status": SUCCESS}

    def _fetch_repository(self, session: ImportSession, spec: Object, pace: Pace) -> Object:
        """The status of a whole repository."""
        reference, policy = spec["from"]["name"], spec["importPolicy"]
        if blocked := session.blocked(reference):
            return {"status": blocked.status()}
        insecure = bool(policy.get("insecure"))
        try:
            tags = prioritized(session.tags(reference, insecure=insecure))
        except (errors.StatusError, RegistryError) as error:
            return {"status": _status(error)}
        images, failures = [], 0
        for tag in tags[:MAXIMUM_TAGS]:
            tagged = f"{written_name(reference)}:{tag}"
            pace.wait()
            try:
                fetched = session.fetch(tagged, insecure=insecure, mode=policy.get("importMode"))
                images.append({"tag": tag, **_images(fetched, tagged), "status": SUCCESS})
            except (errors.StatusError, RegistryError) as error:
                failures += 1
                images.append({"tag": tag, "status": _status(error)})
        status: Object = SUCCESS
        if failures:
            many = "one of the images" if failures == 1 else f"{failures} of the images"
            message = f"{many} from this repository failed to import"
            status = {"metadata": {}, "status": "Failure", "reason": "ImportFailed", "message": message}
        answer: Object = {"status": status, "images": images}
        if tags[MAXIMUM_TAGS:]:
            answer["additionalTags"] = tags[MAXIMUM_TAGS:]
        return answer

    # Writing.

    def _write(
        self, context: Context, stream: Object, found: bool, spec: Object, fetched: list[Object], repository: Object | None
    ) -> Object:
        changed = copy.deepcopy(stream)
        canonical(changed)
        generation = stream["metadata"]["generation"] + 1
        images: list[Object] = []
        for status in (repository or {}).get("images") or []:
            source = spec["repository"]
            reference = f"{written_name(source['from']['name'])}:{status['tag']}"
            _apply(changed, status["tag"], reference, source, status, generation, images, ensure=False)
        for item, status in zip(spec.get("images") or [], fetched, strict=True):
            if item.get("to"):
                _apply(changed, item["to"]["name"], item["from"]["name"], item, status, generation, images, ensure=True)
        with context.store.lock:
            for image in images:
                if not _exists(context, image):
                    stored = without_manifest(image)
                    IMAGE_STRATEGY.prepare_create(stored, context)
                    context.store.create(IMAGES, "", stored)
            return self._store(context, stream, changed, found)

    def _store(self, context: Context, stream: Object, changed: Object, found: bool) -> Object:
        now = datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
        canonical(changed)
        annotations = changed["metadata"].get("annotations") or {}
        if not found:
            changed["metadata"] = {"name": stream["metadata"]["name"], "annotations": {CHECK: now}, "namespace": context.namespace}
            self._strategy.prepare_internal_create(changed, context)
            return context.store.create(STREAMS, context.namespace, changed)
        before = copy.deepcopy(stream)
        canonical(before)
        if CHECK in annotations and before == changed:
            return stream
        changed["metadata"]["annotations"] = {**annotations, CHECK: now}

        def update(old: Object) -> Object:
            if old["metadata"]["resourceVersion"] != stream["metadata"]["resourceVersion"]:
                raise errors.conflict(GROUP, "imagestreams", old["metadata"]["name"])
            self._strategy.prepare_internal_update(changed, old, context)
            return changed

        try:
            return context.store.update(STREAMS, context.namespace, stream["metadata"]["name"], update)
        except errors.StatusError as error:
            if EXCEEDED in error.message:
                self._record_exceeded(context, before, changed, error)
            raise

    def _record_exceeded(self, context: Context, before: Object, changed: Object, error: errors.StatusError) -> None:
        """Tell of a limit, at the tags that had no status; nothing is told of those that had one."""
        over = copy.deepcopy(before)
        generation = before["metadata"]["generation"] + 1
        for tag in set(status_tags(changed)) - set(status_tags(before)):
            status_tag(over, tag)["conditions"] = [_condition(error.reason, error.message, generation)]

        def update(old: Object) -> Object:
            self._strategy.prepare_internal_update(over, old, context)
            return over

        context.store.update(STREAMS, context.namespace, before["metadata"]["name"], update)


def _preferred(stream: Object, spec: Object) -> tuple[str, str]:
    """The architecture and system that the tag, which an image is for, prefers in a manifest list."""
    to = (spec.get("to") or {}).get("name") or parse_reference(spec["from"]["name"]).tag or "latest"
    annotations = spec_tags(stream).get(to, {}).get("annotations") or {}
    return annotations.get(PREFER_ARCH, ""), annotations.get(PREFER_OS, "")


def _written_tag(item: Object) -> str:
    """The tag that a reference names, where it names one."""
    source = str((item.get("from") or {}).get("name", ""))
    rest = source.removeprefix(written_name(source)).partition("@")[0]
    return rest.removeprefix(":")


def _wrong_source(path: str, source: Object) -> list[errors.Cause]:
    name = str(source.get("name", ""))
    if source.get("kind") != "DockerImage":
        return [errors.invalid_value(f"{path}.from.kind", f'"{source.get("kind", "")}"', "only DockerImage is supported")]
    if not name:
        return [errors.required(f"{path}.from.name", "")]
    try:
        parse_reference(name)
    except ReferenceError as error:
        return [errors.invalid_value(f"{path}.from.name", f'"{name}"', str(error).rpartition(": ")[2])]
    return []


def _status(error: Exception) -> Object:
    return error.status() if isinstance(error, errors.StatusError) else errors.internal(str(error)).status()


def _images(fetched: Fetched, reference: str) -> Object:
    """An image as its status shows it, under the reference as it was asked for."""
    name = written_name(reference)
    answer: Object = {"image": {**fetched.image, "dockerImageReference": f"{name}@{fetched.image['metadata']['name']}"}}
    if fetched.manifests:
        answer["manifests"] = [{**m, "dockerImageReference": f"{name}@{m['metadata']['name']}"} for m in fetched.manifests]
    return answer


def _shown(status: Object, *, keep: bool) -> Object:
    return status if keep or "image" not in status else {**status, "image": without_manifest(status["image"])}


def _exists(context: Context, image: Object) -> bool:
    try:
        context.store.get(IMAGES, "", image["metadata"]["name"])
    except errors.StatusError:
        return False
    return True


def _apply(
    stream: Object, tag: str, reference: str, source: Object, status: Object, generation: int, images: list[Object], *, ensure: bool
) -> None:
    """Write one import's outcome into `stream`, as the platform does."""
    if "image" not in status:
        _fail(stream, tag, status["status"], generation)
        if ensure and tag not in spec_tags(stream):
            set_spec_tag(stream, _spec_tag(tag, reference, source, None))
        return
    image = status["image"]
    event = {
        "created": timestamp(),
        "dockerImageReference": image["dockerImageReference"],
        "image": image["metadata"]["name"],
        "generation": generation,
    }
    known = spec_tags(stream).get(tag)
    entry = status_tag(stream, tag)
    newest = (entry.get("items") or [None])[0]
    same = newest is not None and (newest["dockerImageReference"], newest["image"]) == (
        event["dockerImageReference"],
        event["image"],
    )
    if not same or known is None or (known.get("generation") or 0) > (newest or {}).get("generation", 0):
        set_spec_tag(stream, _spec_tag(tag, reference, source, known))
        add_event(stream, tag, event)
    spec_tags(stream)[tag]["importPolicy"] = dict(source["importPolicy"])
    status_tag(stream, tag).pop("conditions", None)
    images += [copy.deepcopy(manifest) for manifest in status.get("manifests") or []]
    images.append(copy.deepcopy(image))


def _spec_tag(tag: str, reference: str, source: Object, known: Object | None) -> Object:
    made: Object = {**(known or {}), "name": tag, "from": {"kind": "DockerImage", "name": reference}, "generation": 0}
    made["importPolicy"] = dict(source["importPolicy"])
    made.setdefault("referencePolicy", dict(source["referencePolicy"]))
    return made


def _fail(stream: Object, tag: str, status: Object, generation: int) -> None:
    condition = _condition(status.get("reason", ""), status.get("message") or "unknown error prevented import", generation)
    entry = status_tag(stream, tag)
    same = ("type", "status", "reason", "message")
    if any(all(existing.get(key) == condition[key] for key in same) for existing in entry.get("conditions") or []):
        return
    entry["conditions"] = [condition]
    if known := spec_tags(stream).get(tag):
        known["generation"] = 0


def _condition(reason: str, message: str, generation: int) -> Object:
    return {
        "type": "ImportSuccess",
        "status": "False",
        "lastTransitionTime": timestamp(),
        "reason": reason,
        "message": message,
        "generation": generation,
    }
