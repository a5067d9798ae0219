"""The platform's importer: one image through the pull sources that the platform knows, with its defects.

Tags never go through digest mirrors, wildcard sources never match, the source's insecure setting counts for its mirrors too, and a
source that must never be contacted is.
"""

import base64
import json
from dataclasses import dataclass
from typing import Any

from mirrorstream.rules.policy import MirrorPolicy
from mirrorstream.rules.references import Reference, parse_reference, written_name

from e2e.testbed.simulator import errors
from e2e.testbed.simulator.images.convert import image_from_list, image_from_manifest, is_list
from e2e.testbed.simulator.images.fetch import Access, Fetcher, Manifest
from e2e.testbed.simulator.images.go import json_problem
from e2e.testbed.simulator.images.registry_errors import NO_CREDENTIALS, RegistryError, formatted
from e2e.testbed.simulator.resources import Resource
from e2e.testbed.simulator.settings import Settings
from e2e.testbed.simulator.store import Store

Object = dict[str, Any]
MIRROR_SETS = (
    Resource("operator.openshift.io", "v1alpha1", "imagecontentsourcepolicies", "ImageContentSourcePolicy", False),
    Resource("config.openshift.io", "v1", "imagedigestmirrorsets", "ImageDigestMirrorSet", False, has_status=True),
    Resource("config.openshift.io", "v1", "imagetagmirrorsets", "ImageTagMirrorSet", False, has_status=True),
)
IMAGE_CONFIG = Resource("config.openshift.io", "v1", "images", "Image", False, has_status=True)
SECRETS = Resource("", "v1", "secrets", "Secret")
CONFIG_MAPS = Resource("", "v1", "configmaps", "ConfigMap")
LEGACY = ("", "Legacy", None)


@dataclass(frozen=True)
class Fetched:
    """An image and, for a manifest list that is preserved, its sub-manifests' images."""

    image: Object
    manifests: tuple[Object, ...] = ()


def trusted_authorities(store: Store, image_config: Object) -> str:
    """The CAs (PEM) of registries that the Image config's spec names besides the system's."""
    name = (image_config.get("additionalTrustedCA") or {}).get("name")
    if not name:
        return ""
    try:
        data = store.get(CONFIG_MAPS, "openshift-config", name).get("data") or {}
    except errors.StatusError:
        return ""
    return "\n".join(data.values())


def registry_credentials(store: Store, namespace: str) -> dict[str, tuple[str, str]]:
    """User and password by registry: of the namespace's pull secrets, else of the cluster's."""
    found: dict[str, tuple[str, str]] = {}
    secrets = store.list(SECRETS, namespace)[1]
    secrets += [s for s in store.list(SECRETS, "openshift-config")[1] if s["metadata"]["name"] == "pull-secret"]
    for secret in reversed(secrets):
        data = secret.get("data") or {}
        try:
            if ".dockerconfigjson" in data:
                auths = json.loads(base64.b64decode(data[".dockerconfigjson"])).get("auths") or {}
            elif ".dockercfg" in data:
                auths = json.loads(base64.b64decode(data[".dockercfg"]))
            else:
                continue
            for host, auth in auths.items():
                user, _, password = base64.b64decode(auth["auth"]).decode().partition(":")
                found[host.removeprefix("https://").rstrip("/")] = (user, password)
        except (ValueError, KeyError, AttributeError):
            continue  # the platform, too, ignores what it cannot read
    return found


class ImportSession:
    """The imports of one request: one look at the configuration."""

    def __init__(self, store: Store, settings: Settings, fetcher: Fetcher, namespace: str) -> None:
        self._store, self._settings, self._fetcher, self._namespace = store, settings, fetcher, namespace
        self._config = (store.get(IMAGE_CONFIG, "", "cluster").get("spec")) or {}
        self._sources = self._config.get("registrySources") or {}
        self._insecure = set(self._sources.get("insecureRegistries") or ())
        self._policy = self._mirror_policy()
        self._authorities = "\n".join(filter(None, (trusted_authorities(store, self._config), settings.trusted_authorities)))
        self._credentials = registry_credentials(store, namespace)

    def _mirror_policy(self) -> MirrorPolicy:
        if self._settings.importer.ignore_mirror_sets:
            return MirrorPolicy.from_objects([])
        objects = []
        for resource in MIRROR_SETS:
            for item in self._store.list(resource)[1]:
                spec = {
                    field: [e for e in entries if not str(e.get("source", "")).startswith("*")]
                    if isinstance(entries, list)
                    else entries
                    for field, entries in (item.get("spec") or {}).items()
                }
                objects.append({"kind": resource.kind, "metadata": item["metadata"], "spec": spec})
        return MirrorPolicy.from_objects(objects)

    def blocked(self, reference: str) -> errors.StatusError | None:
        """The refusal of a blocked registry: whole hosts only, and not if it has mirrors."""
        host = reference.partition("/")[0]
        if host not in (self._sources.get("blockedRegistries") or ()):
            return None
        return errors.forbidden("", "", "", f"registry {host} blocked")

    def fetch(self, reference: str, *, insecure: bool, mode: str | None, prefer: tuple[str, str] = ("", "")) -> Fetched:
        """Import one image; `prefer` is the preferred architecture and system. Raises StatusError or RegistryError."""
        parsed = parse_reference(reference)
        insecure = insecure or parsed.host in self._insecure
        text, manifest, source = self._manifest(parsed, insecure)
        if is_list(manifest) and mode in LEGACY:
            digest = _choose(manifest, *prefer)
            manifest = self._part(source, digest, insecure, text)
        elif is_list(manifest):
            image = image_from_list(manifest)
            return Fetched(
                image, tuple(self._sub_manifest(parsed, entry["digest"], insecure) for entry in image["dockerImageManifests"])
            )
        return Fetched(self._image(manifest, source, insecure, text))

    def tags(self, reference: str, *, insecure: bool) -> list[str]:
        """All tags of a repository, at the source only. Raises StatusError or RegistryError."""
        parsed = parse_reference(reference)
        access = self._access(parsed.host, insecure or parsed.host in self._insecure)
        try:
            return self._fetcher.tags(parsed.host, parsed.path, access)
        except RegistryError as error:
            name = written_name(reference)
            if error.code == "NAME_UNKNOWN":
                raise errors.not_found("image.openshift.io", "dockerimage", name) from error
            if error.code == "UNAUTHORIZED" and str(error) != NO_CREDENTIALS:
                raise errors.unauthorized(f'you may not have access to the container image "{name}"') from error
            if str(error) == NO_CREDENTIALS:
                scheme, _ = self._fetcher.ping(parsed.host, access)
                raise RegistryError(f'Get "{scheme}://{parsed.host}/v2/{parsed.path}/tags/list": {error}') from error
            raise

    def _access(self, host: str, insecure: bool) -> Access:
        return Access(insecure, self._credentials.get(host), self._authorities)

    def _manifest(self, parsed: Reference, insecure: bool) -> tuple[str, Manifest, Reference]:
        """The manifest from the first pull source that has it. Raises what the only one did, or an aggregate."""
        failures: list[Exception] = []
        for source in self._policy.pull_sources(str(parsed)):
            found = parse_reference(source.reference)
            text = str(found) if not found.digest else f"{found.name}@{found.digest}"
            try:
                return text, self._at(found, found.digest or found.tag, insecure), found
            except RegistryError as error:
                failures.append(formatted(text, error))
        if len(failures) == 1:
            raise failures[0]
        texts = list(dict.fromkeys(str(failure) for failure in failures))
        raise RegistryError(texts[0] if len(texts) == 1 else f"[{', '.join(texts)}]")

    def _at(self, source: Reference, tag_or_digest: str, insecure: bool) -> Manifest:
        return self._fetcher.manifest(source.host, source.path, tag_or_digest, self._access(source.host, insecure))

    def _part(self, source: Reference, digest: str, insecure: bool, text: str) -> Manifest:
        try:
            return self._at(source, digest, insecure)
        except RegistryError as error:
            raise formatted(text, error) from error

    def _image(self, manifest: Manifest, source: Reference, insecure: bool, text: str) -> Object:
        config = (manifest.content.get("config") or {}).get("digest")
        if not config:
            raise RegistryError(f"unsupported image manifest type: {manifest.media}")
        try:
            data = self._fetcher.blob(source.host, source.path, config, self._access(source.host, insecure))
        except RegistryError as error:
            raise formatted(text, error) from error
        if problem := json_problem(data):
            raise RegistryError(problem)
        return image_from_manifest(manifest, data)

    def _sub_manifest(self, parsed: Reference, digest: str, insecure: bool) -> Object:
        reference = Reference(parsed.host, parsed.path, digest=digest)
        text, manifest, source = self._manifest(reference, insecure)
        return {**self._image(manifest, source, insecure, text), "dockerImageReference": f"{parsed.name}@{digest}"}


def _choose(manifest: Manifest, architecture: str, system: str) -> str:
    """The entry of a list that a Legacy import takes."""
    entries = manifest.content.get("manifests") or []
    if not entries:
        raise RegistryError("no manifests in manifest list")
    for wanted in ((architecture or "amd64", system or "linux"), ("amd64", "linux")):
        for entry in entries:
            platform = entry.get("platform") or {}
            if (platform.get("architecture"), platform.get("os")) == wanted:
                return str(entry["digest"])
    return str(entries[0]["digest"])
