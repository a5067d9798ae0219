"""The configuration file: one mounted YAML document, validated whole, reloaded when it changes.

A controller that falls over because somebody mistyped a ConfigMap would take the cluster's images with it, so a broken new
file is reported and the old settings stay in force; a broken file at the start is an error, since there is nothing to keep.
"""

import hashlib
import threading
from collections.abc import Callable
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Annotated, Any, Literal

import structlog
from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from mirrorstream.text import yaml_loader
from mirrorstream.text.sanitize import one_line, shortened

log = structlog.get_logger(__name__)

PROBLEMS = 20
"""Wrong fields that are named."""
LONGEST_SECONDS = 315_360_000
"""Ten years: no thread waits longer than Python can, and each time has a date."""
_EXPECTED = {"model_type": "a mapping", "tuple_type": "a list"}
"""What pydantic calls by Python's names."""
LOOK_SECONDS = 2.0

Namespace = Annotated[str, Field(min_length=1, max_length=63)]


class SettingsError(Exception):
    """The configuration cannot be used; the text names the file and the field."""


class _Section(BaseModel):
    """What all sections share: unknown fields are errors, since a typo must not silently mean the default."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)

    @model_validator(mode="before")
    @classmethod
    def _without_nulls(cls, fields: Any) -> Any:
        """A field that is null is unset, as for the API: so YAML has a section all of whose fields are comments."""
        if not isinstance(fields, dict):
            return fields
        return {name: value for name, value in fields.items() if value is not None or name not in cls.model_fields}


class MirrorSettings(_Section):
    """How the mirror rules are read."""

    tagsThroughDigestMirrors: bool = Field(
        default=True,
        description="Import tags also through ICSP and IDMS mirrors, which nodes use only for digests. A mirror's tag can be "
        "older than the source's.",
    )
    bypassNotFound: bool = Field(
        default=False,
        description="Also import images through the mirrors that the source says do not exist. A stale mirror can bring back a "
        "deleted tag.",
    )
    bypassDenied: bool = Field(
        default=True,
        description="Also import images through the mirrors that the source denies (401, 403). In a mirrored cluster the source "
        "usually has no credentials. false protects images that not every namespace may have.",
    )


class RetrySettings(_Section):
    """The backoff of the controller for a stream whose candidates all fail."""

    initialSeconds: float = Field(default=5, gt=0, le=3600, description="First wait, in seconds.")
    maximumSeconds: float = Field(default=300, gt=0, le=86400, description="Longest wait, in seconds.")

    @model_validator(mode="after")
    def _ordered(self) -> "RetrySettings":
        if self.maximumSeconds < self.initialSeconds:
            raise ValueError("maximumSeconds must not be smaller than initialSeconds")
        return self


class NamespaceSettings(_Section):
    """The namespaces whose streams the controller handles, as globs: `team-*`."""

    include: tuple[Namespace, ...] = Field(default=(), strict=False, description="Only these namespaces; empty means all.")
    exclude: tuple[Namespace, ...] = Field(
        default=(), strict=False, description="Not these namespaces, even if include lists them."
    )

    def cover(self, namespace: str) -> bool:
        """Whether the controller handles streams in `namespace`."""
        if any(fnmatchcase(namespace, pattern) for pattern in self.exclude):
            return False
        return not self.include or any(fnmatchcase(namespace, pattern) for pattern in self.include)


class ControllerSettings(_Section):
    """Settings of the controller."""

    recordedReference: Literal["auto", "source", "mirror"] = Field(
        default="auto",
        description="The reference in a tag's history: the source's, as the platform records it, or the mirror's. auto records the "
        "source's if a digest mirror covers it and the source did not time out, and otherwise the mirror's.",
    )
    concurrentImports: int = Field(
        default=16,
        ge=1,
        le=256,
        description="Maximum number of parallel import requests; at most half of them to one mirror host. A request is for up to "
        "three tags of a stream.",
    )
    stuckAfterSeconds: float = Field(
        default=180,
        ge=0,
        le=LONGEST_SECONDS,
        description="A platform import that is pending for this time counts as failed. 0 means never, unless the source failed "
        "before: the platform does not write the same failure twice.",
    )
    replaceAfterSeconds: float = Field(
        default=3600,
        ge=0,
        le=LONGEST_SECONDS,
        description="How long the source must have failed before an image of a mirror replaces a different image of the source.",
    )
    apiRequestsPerSecond: float = Field(
        default=200,
        gt=0,
        le=10000,
        description="Maximum rate of requests to the API server, with a burst of three times this number.",
    )
    retry: RetrySettings = RetrySettings()
    namespaces: NamespaceSettings = NamespaceSettings()


class WebhookSettings(_Section):
    """Settings of the webhook."""

    sharedNamespaces: tuple[Namespace, ...] = Field(
        default=("openshift",),
        strict=False,
        description="Namespaces whose streams serve pods of all namespaces, in order.",
    )
    checkAccess: bool = Field(
        default=True,
        description="Use a stream only if the pod's service account may pull from it. "
        "If false, pods may get images that they cannot pull.",
    )
    respectImagePolicies: bool = Field(
        default=True,
        description="Do not rewrite images that a signature policy or a blocked registry covers. "
        "If false, such images are rewritten.",
    )
    scope: Literal["mirrored", "all"] = Field(
        default="mirrored",
        description="mirrored rewrites only images that a mirror set covers, all rewrites images of all Local tags.",
    )
    serveFrom: tuple[Literal["registry", "digest"], ...] = Field(
        default=("registry", "digest"),
        strict=False,
        min_length=1,
        description="The ways to serve a pod's image; the first one that the pod can use is taken. registry is the internal "
        "registry; digest is the source's digest, which nodes pull from a mirror.",
    )
    pendingTags: Literal["rewrite", "leave"] = Field(
        default="rewrite",
        description="For an image whose tag has no image yet: rewrite uses the internal registry's tag, which can be pulled once "
        "the tag is imported; leave does not change the image.",
    )
    pendingPods: Literal["repair", "report"] = Field(
        default="repair",
        description="For a pod that cannot pull its image: repair replaces the image as soon as it can be served; report only "
        "writes an Event.",
    )
    excludeOwners: tuple[str, ...] = Field(
        default=(),
        strict=False,
        description="Owners, as Kind.group, whose pods are not changed, because these owners compare images.",
    )

    @field_validator("serveFrom")
    @classmethod
    def _each_once(cls, ways: tuple[str, ...]) -> tuple[str, ...]:
        if len(set(ways)) < len(ways):
            raise ValueError(f"each way at most once, found {list(ways)}")
        return ways


class Settings(_Section):
    """The whole file. Every field has a default, so an empty file is valid."""

    mode: Literal["active", "observe"] = Field(
        default="active", description="With observe, the programs decide, log and count, but do not write or rewrite anything."
    )
    mirrors: MirrorSettings = MirrorSettings()
    controller: ControllerSettings = ControllerSettings()
    webhook: WebhookSettings = WebhookSettings()


def parse_settings(text: str, where: str) -> Settings:
    """Validate the text of a configuration file.

    `where` names the file in errors. Raises SettingsError with one line that names each wrong field by its path.
    """
    try:
        document: Any = yaml_loader.document(text)
    except yaml_loader.YamlError as error:
        raise SettingsError(f"{where}, {error}" if str(error).startswith("line ") else f"{where}: {error}") from error
    if document is None:
        document = {}
    if not isinstance(document, dict):
        raise SettingsError(f"{where}: expected a mapping at the top, found {type(document).__name__}")
    try:
        return Settings.model_validate(document)
    except ValidationError as error:
        found = error.errors(include_url=False, include_context=False)
        problems = [f"{_field(e['loc'])}: {_explain(e)}" for e in found[:PROBLEMS]]
        more = [f"and {len(found) - PROBLEMS} more"] if len(found) > PROBLEMS else []
        raise SettingsError(f"{where}: {'; '.join([*problems, *more])}") from error


def _field(path: tuple[int | str, ...]) -> str:
    return shortened(one_line(".".join(str(part) for part in path)), 200) or "document"


def _explain(error: Any) -> str:
    """Say in the user's terms what pydantic found."""
    if error["type"] == "extra_forbidden":
        return "unknown field"
    if error["type"] in _EXPECTED:
        return f"expected {_EXPECTED[error['type']]}, found {shortened(repr(error['input']), 200)}"
    text = str(error["msg"]).removeprefix("Value error, ")
    if error["type"] == "value_error":
        return text
    return f"{text[0].lower()}{text[1:]}, found {shortened(repr(error['input']), 200)}"


def read_settings(path: str | None) -> Settings:
    """Read the configuration file at `path`; None means all defaults. Raises SettingsError."""
    if path is None:
        return Settings()
    try:
        text = Path(path).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise SettingsError(f"{path}: cannot be read: {error}") from error
    return parse_settings(text, path)


class SettingsFile:
    """The settings in force, kept current with the file they came from.

    The file is compared by content every two seconds: a mounted ConfigMap changes by a swap of symbolic links, which
    notifications on the file itself miss.
    """

    def __init__(self, path: str | None) -> None:
        """Read the file for the first time. Raises SettingsError."""
        self._path = path
        self._on_change: Callable[[Settings], None] = lambda settings: None
        self._on_result: Callable[[bool], None] = lambda accepted: None
        self._stopped = threading.Event()
        self._thread: threading.Thread | None = None
        self._seen = self._fingerprint()
        self.current = read_settings(path)

    def subscribe(self, on_change: Callable[[Settings], None], on_result: Callable[[bool], None]) -> None:
        """Have `on_change` told of new settings, and `on_result` whether a reload was accepted, both from the watching thread."""
        self._on_change, self._on_result = on_change, on_result

    def _fingerprint(self) -> str:
        """What the file's content is recognised by; the text of the error when it cannot be read."""
        if self._path is None:
            return ""
        try:
            return hashlib.sha256(Path(self._path).read_bytes()).hexdigest()
        except OSError as error:
            return str(error)

    def check(self) -> None:
        """Reload the file if its content has changed since the last look."""
        fingerprint = self._fingerprint()
        if fingerprint == self._seen:
            return
        self._seen = fingerprint
        try:
            settings = read_settings(self._path)
        except SettingsError as error:
            log.error("invalid configuration, keeping the previous one", error=str(error))
            self._on_result(False)
            return
        self._on_result(True)
        if settings == self.current:
            return
        self.current = settings
        log.info("configuration reloaded", file=self._path)
        self._on_change(settings)

    def start(self) -> None:
        """Watch the file in a thread of its own."""
        if self._path is None:
            return
        self._thread = threading.Thread(target=self._watch, name="settings", daemon=True)
        self._thread.start()

    def _watch(self) -> None:
        while not self._stopped.wait(LOOK_SECONDS):
            try:
                self.check()
            except Exception:  # a bug must not keep the next change from being seen
                log.exception("failed to apply the configuration")

    def stop(self) -> None:
        """End the watching thread."""
        self._stopped.set()
        if self._thread:
            self._thread.join()
