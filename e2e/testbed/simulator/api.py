"""Requests on stored kinds: what a Kubernetes API server does with them, without HTTP."""

import base64
import copy
import json
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any
from uuid import uuid4

from e2e.testbed.simulator import errors
from e2e.testbed.simulator.admission import admit
from e2e.testbed.simulator.identity import ADMINISTRATOR, Identity
from e2e.testbed.simulator.patches import json_patch, merge_patch
from e2e.testbed.simulator.resources import Context, Registry, Resource
from e2e.testbed.simulator.selectors import matcher
from e2e.testbed.simulator.store import Event, Object, Store, Subscription

MERGE_TYPES = ("application/merge-patch+json", "application/strategic-merge-patch+json", "application/apply-patch+yaml")


@dataclass(frozen=True)
class Target:
    """What a path names."""

    resource: Resource
    namespace: str
    name: str = ""
    subresource: str = ""


class Api:
    """Create, read, update, delete, list and watch."""

    def __init__(self, store: Store, registry: Registry) -> None:
        self.store = store
        self.registry = registry

    def context(self, target: Target, who: Identity = ADMINISTRATOR, *, dry_run: bool = False) -> Context:
        """The context of a request on `target`."""
        return Context(self.store, target.namespace, who.user, who.groups, dry_run=dry_run)

    def create(self, target: Target, body: Any, context: Context) -> Object:
        """POST to a collection or to a subresource."""
        resource = target.resource
        if target.subresource:
            return resource.subresources[target.subresource](context, target.name, body)
        if resource.create:
            return resource.create(context, "", body)
        item = self._checked(resource, body)
        metadata = item["metadata"]
        if not metadata.get("name") and metadata.get("generateName"):
            metadata["name"] = f"{metadata['generateName']}{uuid4().hex[:5]}"
        for key in ("uid", "resourceVersion", "creationTimestamp", "deletionTimestamp", "managedFields"):
            metadata.pop(key, None)
        if resource.namespaced:
            if metadata.get("namespace") not in (None, "", target.namespace):
                raise errors.bad_request("the namespace of the provided object does not match the namespace sent on the request")
            metadata["namespace"] = target.namespace
        if not metadata.get("name"):
            cause = errors.required("metadata.name", "name or generateName is required")
            raise errors.invalid(resource.group, resource.kind, "", [cause])
        if resource.admitted:
            resource.strategy.admit(item, None, context)
            item = admit(resource, "CREATE", "", item, None, context)
        resource.strategy.prepare_create(item, context)
        if context.dry_run:
            return self._answer(resource, item)
        return self._answer(resource, self.store.create(resource, target.namespace if resource.namespaced else "", item))

    def get(self, target: Target, context: Context) -> Object:
        """GET an object or a subresource."""
        resource = target.resource
        if target.subresource and target.subresource != "status":
            return resource.subresources[target.subresource](context, target.name, None)
        if resource.get:
            return resource.get(context, target.name, None)
        return self._answer(resource, self.store.get(resource, target.namespace, target.name))

    def update(self, target: Target, body: Any, context: Context) -> Object:
        """PUT an object or its status."""
        resource = target.resource
        item = self._checked(resource, body)

        def replaced(_: Object) -> Object:
            if not item["metadata"].get("resourceVersion") and not resource.strategy.unconditional_update:
                cause = errors.invalid_value("metadata.resourceVersion", "0", "must be specified for an update")
                raise errors.invalid(resource.group, resource.plural, target.name, [cause])
            return item

        return self._write(target, replaced, context)

    def patch(self, target: Target, body: Any, media: str, context: Context) -> Object:
        """PATCH an object or its status, by JSON Patch or by merging."""
        if media == "application/json-patch+json":
            return self._write(target, lambda old: json_patch(old, body), context)
        if media not in MERGE_TYPES:
            raise errors.StatusError(415, "UnsupportedMediaType", f"the body of the request was in an unknown format: {media}")
        if media == "application/apply-patch+yaml":
            try:
                self.store.get(target.resource, target.namespace, target.name)
            except errors.StatusError:
                return self.create(Target(target.resource, target.namespace), body, context)
        return self._write(target, lambda old: merge_patch(old, body), context)

    def _write(self, target: Target, change: Any, context: Context) -> Object:
        resource = target.resource
        if not resource.stored:
            raise errors.StatusError(405, "MethodNotAllowed", "the server does not allow this method on the requested resource")

        def changed(old: Object) -> Object:
            readable = self._answer(resource, old)
            new: Object = change(copy.deepcopy(readable))
            metadata = new.get("metadata")
            if not isinstance(metadata, dict) or metadata.get("name") != target.name:
                raise errors.bad_request("the name of the object does not match the name on the URL")
            if metadata.get("resourceVersion") not in (None, "", old["metadata"]["resourceVersion"]):
                raise errors.conflict(resource.group, resource.plural, target.name)
            if metadata.get("uid") not in (None, "", old["metadata"]["uid"]):
                why = f"Precondition failed: UID in precondition: {metadata['uid']}, UID in object meta: {old['metadata']['uid']}"
                raise errors.conflict(resource.group, resource.plural, target.name, why)
            new.pop("apiVersion", None)
            new.pop("kind", None)
            metadata.pop("managedFields", None)
            if resource.admitted and target.subresource != "status":
                resource.strategy.admit(new, old, context)
                new = admit(resource, "UPDATE", target.subresource, new, old, context)
            if target.subresource == "status":
                resource.strategy.prepare_status_update(new, old, context)
            else:
                if resource.has_status and "status" in old:
                    new["status"] = copy.deepcopy(old["status"])
                resource.strategy.prepare_update(new, old, context)
            return new

        if context.dry_run:
            return self._answer(resource, changed(copy.deepcopy(self.store.get(resource, target.namespace, target.name))))
        return self._answer(resource, self.store.update(resource, target.namespace, target.name, changed))

    def delete(self, target: Target, body: Any, context: Context) -> Object:
        """DELETE an object; the answer is a Status, as most kinds give it."""
        resource = target.resource
        if resource.delete:
            return resource.delete(context, target.name, body)
        uid = ((body or {}).get("preconditions") or {}).get("uid") if isinstance(body, dict) else None
        if not context.dry_run:
            self.store.delete(resource, target.namespace, target.name, uid)
            if resource.plural == "namespaces":
                for contained, name in list(self.store.contents(target.name)):
                    self.store.delete(contained, target.name, name)
        details: dict[str, Any] = {"name": target.name, "kind": resource.plural}
        if resource.group:
            details["group"] = resource.group
        return {"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Success", "details": details}

    def delete_collection(self, target: Target, query: dict[str, str], context: Context) -> Object:
        """DELETE what a list with the same selectors shows."""
        selected = matcher(query.get("labelSelector", ""), query.get("fieldSelector", ""))
        for item in self.store.list(target.resource, target.namespace)[1]:
            if selected(item):
                namespace = item["metadata"].get("namespace", "")
                self.delete(Target(target.resource, namespace, item["metadata"]["name"]), None, context)
        return {"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Success"}

    def list(self, target: Target, query: dict[str, str]) -> Object:
        """GET a collection, by pages if `limit` is set."""
        resource = target.resource
        if not resource.stored:
            raise errors.StatusError(405, "MethodNotAllowed", "the server does not allow this method on the requested resource")
        selectors = query.get("labelSelector", ""), query.get("fieldSelector", "")
        limit = int(query.get("limit") or 0)
        most = 0 if any(selectors) else limit
        if token := query.get("continue"):
            try:
                since, after = json.loads(base64.urlsafe_b64decode(token))
            except ValueError as error:
                raise errors.bad_request("continue key is not valid") from error
            version, items, left = self.store.page(resource, target.namespace, most, since, tuple(after))
        else:
            version, items, left = self.store.page(resource, target.namespace, most)
        metadata: dict[str, Any] = {"resourceVersion": str(version)}
        if any(selectors):
            selected = matcher(*selectors)
            items = [item for item in items if selected(item)]
            left = len(items) - limit if limit else 0
            items = items[: limit or None]
        elif left:
            metadata["remainingItemCount"] = left
        if left > 0:
            position = json.dumps([version, _key(items[-1])]).encode()
            metadata["continue"] = base64.urlsafe_b64encode(position).decode()
        shown = [self._answer(resource, item, typed=False) for item in items]
        return {"kind": f"{resource.kind}List", "apiVersion": resource.api_version, "metadata": metadata, "items": shown}

    def subscribe(self, target: Target, query: dict[str, str]) -> Subscription:
        """Begin a watch. Raises a 410."""
        version = query.get("resourceVersion", "")
        return self.store.subscribe(target.resource, int(version) if version not in ("", "0") else None)

    def watched(self, target: Target, query: dict[str, str], event: Event) -> Iterator[Object]:
        """What a watch shows of an event: nothing for objects that are not selected."""
        selected = matcher(query.get("labelSelector", ""), query.get("fieldSelector", ""))
        item = event.object
        if target.namespace and item["metadata"].get("namespace") != target.namespace:
            return
        now, before = selected(item), event.before is not None and selected(event.before)
        kind = event.type
        if kind == "MODIFIED" and now != before:
            kind = "ADDED" if now else "DELETED"
        if now or before:
            yield {"type": kind, "object": self._answer(target.resource, item)}

    def _checked(self, resource: Resource, body: Any) -> Object:
        if not isinstance(body, dict):
            raise errors.bad_request("the object provided is unrecognized (must be of type map)")
        if body.get("kind") not in (None, "", resource.kind):
            raise errors.bad_request(f"{body.get('kind')} in version {resource.version!r} cannot be handled as a {resource.kind}")
        item = copy.deepcopy(body)
        item.pop("kind", None)
        item.pop("apiVersion", None)
        if not isinstance(item.get("metadata"), dict):
            item["metadata"] = {}
        return item

    def _answer(self, resource: Resource, item: Object, *, typed: bool = True) -> Object:
        shown = resource.strategy.decorate(item)
        return {"kind": resource.kind, "apiVersion": resource.api_version, **shown} if typed else shown


def _key(item: Object) -> list[str]:
    return [item["metadata"].get("namespace", ""), item["metadata"]["name"]]
