"""What `suggest` prints: tag mirrors under which the platform itself imports the scheduled tags that it fails to import.

The platform imports a tag through an ImageTagMirrorSet only, and not through one for a wildcard. So the digest mirrors that cover
such a tag become tag mirrors, too.
For one reference the longest matching source counts, over all kinds together: a tag mirror set for a part of what a digest mirror
set covers would take the digest mirrors away from that part. So the suggestion has digest mirrors for the same source then.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from mirrorstream.diagnose.tag_status import State, TagState
from mirrorstream.imagestream.outcomes import AttemptResult
from mirrorstream.rules.objects import DIGEST, KINDS, NEVER_CONTACT, TAG, is_scope
from mirrorstream.rules.policy import MirrorPolicy
from mirrorstream.rules.references import Reference, parse_exact, parse_or_none
from mirrorstream.rules.resolution import Resolution
from mirrorstream.rules.scopes import beyond_scope, lies_in, longest_match
from mirrorstream.text.sanitize import listed

NAME = "mirrorstream-scheduled-tags"
"""The name of the objects. What an object of this name has already stays in the suggestion: `oc apply` replaces its spec."""
TAG_KIND, DIGEST_KIND = "ImageTagMirrorSet", "ImageDigestMirrorSet"
HOSTED = "in a hosted cluster (controlPlaneTopology of its Infrastructure is External) nobody may create mirror sets"


@dataclass(slots=True)
class Suggestion:
    """The objects to create, the tags that they are for, and those for which there is nothing to suggest, each with the reason."""

    tags: list[TagState] = field(default_factory=list)
    left_out: list[tuple[TagState, str]] = field(default_factory=list)
    objects: list[dict[str, Any]] = field(default_factory=list)


def suggestion(
    states: Iterable[TagState], policy: MirrorPolicy, objects: Iterable[Mapping[str, Any]], *, hosted: bool = False
) -> Suggestion:
    """What to create for the scheduled tags among `states`; `objects` are the mirror sets that there are."""
    found = Suggestion()
    entries: dict[str, dict[str, dict[str, Any]]] = {DIGEST_KIND: {}, TAG_KIND: {}}
    for state in states:
        reference = parse_or_none(state.source)
        if not state.fails_on_schedule or reference is None or reference.digest:
            continue
        resolution = policy.resolve(reference)
        if why := HOSTED if hosted else _useless(state, resolution):
            found.left_out.append((state, why))
            continue
        found.tags.append(state)
        for kind, entry in _entries(reference, resolution, policy):
            entries[kind][entry["source"]] = entry
    for kind, by_source in entries.items():
        if by_source:
            field_name = KINDS[kind][0]
            listed = [*_present(objects, kind), *by_source.values()]
            metadata, spec = {"name": NAME}, {field_name: listed}
            found.objects.append({"apiVersion": "config.openshift.io/v1", "kind": kind, "metadata": metadata, "spec": spec})
    return found


def _useless(state: TagState, resolution: Resolution) -> str:
    """Why tag mirrors would not help; empty if they would."""
    if resolution.refusal:
        return resolution.refusal
    if not resolution.candidates:
        return "no mirror can be used for its source"
    attempt = state.tried.attempt if state.tried else None
    if state.state is State.FAILING and (attempt is None or attempt.result == AttemptResult.FAILED):
        return "no mirror is known to have its image"
    if resolution.pull_failure:
        return resolution.pull_failure
    source_is_insecure = resolution.is_insecure_natively(insecure=state.import_policy.insecure)
    if resolution.candidates[0].insecure and not source_is_insecure:
        host = resolution.candidates[0].host
        return f"the platform uses the TLS setting of the source for its mirrors, and {host} is insecure where the source is not"
    return ""


def _entries(reference: Reference, resolution: Resolution, policy: MirrorPolicy) -> Iterable[tuple[str, dict[str, Any]]]:
    """The entries for a tag's source, by the kind of the object: the repositories next to it get the same mirrors."""
    scope = resolution.mirrors[0].scope
    parent = reference.name.rpartition("/")[0]
    narrow = parent if "/" in parent else reference.name  # a whole registry is more than anybody asked for
    source = scope if lies_in(scope, narrow) else narrow
    beyond = beyond_scope(source, scope)
    mirrors: dict[str, list[str]] = {TAG: [], DIGEST: []}
    for mirror in resolution.mirrors:
        location = mirror.location + beyond
        # A bare host is no mirror of one repository, and the importer would discard the other mirrors for it.
        if is_scope(location) and parse_exact(location + beyond_scope(reference.name, source)):
            mirrors[mirror.kind].append(location)
    more: dict[str, Any] = {}
    # A scope that the Image config names inherits mirrors from `scope`, and not that the source is never contacted.
    now = longest_match(source, policy.scope_rules.by_scope)
    if now and any(known.never_contact_source for known in now.entries):
        more["mirrorSourcePolicy"] = NEVER_CONTACT
    if source != scope and mirrors[DIGEST]:
        yield DIGEST_KIND, {"source": source, "mirrors": mirrors[DIGEST], **more}
    yield TAG_KIND, {"source": source, "mirrors": list(dict.fromkeys(mirrors[TAG] + mirrors[DIGEST])), **more}


def _present(objects: Iterable[Mapping[str, Any]], kind: str) -> list[Any]:
    """The entries of the object that the suggestion replaces."""
    for item in objects:
        if item.get("kind") == kind and (item.get("metadata") or {}).get("name") == NAME:
            return list((item.get("spec") or {}).get(KINDS[kind][0]) or [])
    return []


def skipping(states: Iterable[TagState], named: int | None = None) -> str:
    """How the samples operator drops the streams of these tags, if nobody needs them; empty if none is a sample.

    At most `named` streams are named; `suggest` names all.
    """
    streams = sorted({state.stream for state in states if state.is_sample})
    if not streams:
        return ""
    more = " (`mirrorstream suggest` names all)" if named is not None and len(streams) > named else ""
    return f"add {listed(streams, named)}{more} to spec.skippedImagestreams of configs.samples.operator.openshift.io cluster"


def explanation(found: Suggestion) -> list[str]:
    """What the suggestion is for, and what it changes, to stand above the objects."""
    if not found.tags:
        return []
    lines = [
        "The platform fails to import these scheduled tags at each scheduled import, and mirrorstream heals them:",
        *(f"  {state.name}  from {state.source}" for state in found.tags),
        "With these objects the platform imports them from the mirrors itself. They change the nodes, too: nodes pull tags of "
        "these sources from the mirrors first, and the Machine Config Operator drains the nodes, and may restart them, when it "
        "writes tag mirrors.",
    ]
    if any(item["kind"] == DIGEST_KIND for item in found.objects):
        lines.append(
            "Apply both objects together: the ImageTagMirrorSet has a longer source than the digest mirrors of now, and would hide "
            "them. The ImageDigestMirrorSet names them for that source, too."
        )
    return lines


def nothing_suggested(found: Suggestion) -> list[str]:
    """The tags for which there is nothing to suggest, and why; what to do otherwise."""
    lines = []
    for why in dict.fromkeys(why for _, why in found.left_out):
        lines.append(f"Nothing to suggest for these scheduled tags: {why}.")
        lines += [f"  {state.name}  from {state.source}" for state, reason in found.left_out if reason == why]
    if hint := skipping([*found.tags, *(state for state, _ in found.left_out)]):
        lines.append(f"If nobody needs the streams: {hint}.")
    return lines or ["Nothing to suggest: no scheduled tag is known to fail at the platform's own imports."]
