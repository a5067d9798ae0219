"""Mutating admission of pods by registered webhooks, as kube-apiserver does it."""

import base64
import copy
import ssl
from typing import Any
from uuid import uuid4

import msgspec
import urllib3

from e2e.testbed.simulator import errors
from e2e.testbed.simulator.patches import json_patch
from e2e.testbed.simulator.resources import NAMESPACES, Context, Resource
from e2e.testbed.simulator.selectors import matcher

Object = dict[str, Any]
CONFIGURATIONS = Resource(
    "admissionregistration.k8s.io", "v1", "mutatingwebhookconfigurations", "MutatingWebhookConfiguration", False
)
DEFAULT_SECONDS = 10


def admit(resource: Resource, operation: str, subresource: str, item: Object, old: Object | None, context: Context) -> Object:
    """What the webhooks make of an object; `operation` is CREATE or UPDATE. Raises a 400 or 403 for a denial, a 500 for a failure.

    matchConditions are CEL and count for the real API server only.
    """
    for configuration in context.store.list(CONFIGURATIONS)[1]:
        for webhook in configuration.get("webhooks") or []:
            if _matches(webhook, resource, operation, subresource, item, context):
                item = _call(webhook, resource, operation, subresource, item, old, context)
    return item


def _matches(webhook: Object, resource: Resource, operation: str, subresource: str, item: Object, context: Context) -> bool:
    name = f"{resource.plural}/{subresource}" if subresource else resource.plural
    for rule in webhook.get("rules") or []:
        wanted = (rule.get("operations") or [], rule.get("apiGroups") or [], rule.get("resources") or [])
        if all("*" in values or value in values for value, values in zip((operation, resource.group, name), wanted, strict=True)):
            break
    else:
        return False
    try:
        namespace = context.store.get(NAMESPACES, "", context.namespace)
    except errors.StatusError:
        namespace = {"metadata": {}}
    return _selects(webhook.get("namespaceSelector"), namespace) and _selects(webhook.get("objectSelector"), item)


def _selects(selector: Object | None, item: Object) -> bool:
    parts = [f"{key}={value}" for key, value in ((selector or {}).get("matchLabels") or {}).items()]
    for requirement in (selector or {}).get("matchExpressions") or []:
        key, values = requirement["key"], ",".join(requirement.get("values") or [])
        words = {"In": f"{key} in ({values})", "NotIn": f"{key} notin ({values})", "Exists": key, "DoesNotExist": f"!{key}"}
        parts.append(words[requirement["operator"]])
    return matcher(",".join(parts), "")(item)


def _call(
    webhook: Object, resource: Resource, operation: str, subresource: str, item: Object, old: Object | None, context: Context
) -> Object:
    typed = {"kind": resource.kind, "apiVersion": resource.api_version}
    group_version = {"group": resource.group, "version": resource.version}
    request = {
        "uid": str(uuid4()),
        "kind": {**group_version, "kind": resource.kind},
        "resource": {**group_version, "resource": resource.plural},
        "subResource": subresource,
        "name": item["metadata"].get("name", ""),
        "namespace": context.namespace,
        "operation": operation,
        "userInfo": {"username": context.user, "groups": list(context.groups)},
        "object": {**typed, **item},
        "oldObject": {**typed, **old} if old else None,
        "dryRun": context.dry_run,
    }
    review = {"kind": "AdmissionReview", "apiVersion": "admission.k8s.io/v1", "request": request}
    try:
        response = _response(_post(webhook, review), request["uid"])
    except (urllib3.exceptions.HTTPError, OSError, msgspec.MsgspecError, KeyError, TypeError, ValueError) as error:
        if webhook.get("failurePolicy", "Fail") == "Ignore":
            return item
        raise errors.internal(f'failed calling webhook "{webhook["name"]}": {error}') from error
    if not response.get("allowed"):
        status = response.get("status") or {}
        message = f'admission webhook "{webhook["name"]}" denied the request: {status.get("message", "")}'
        raise errors.StatusError(status.get("code") or 403, status.get("reason") or "Forbidden", message)
    if not response.get("patch"):
        return item
    patched: Object = json_patch({**typed, **copy.deepcopy(item)}, msgspec.json.decode(base64.b64decode(response["patch"])))
    return {key: value for key, value in patched.items() if key not in typed}


def _response(answer: Any, uid: str) -> Object:
    """The response of a review. Raises ValueError when it answers another one."""
    response: Object = answer["response"]
    if response.get("uid") != uid:
        raise ValueError("the response's uid is not the request's")
    return response


def _post(webhook: Object, review: Object) -> Any:
    client = webhook["clientConfig"]
    context = ssl.create_default_context()
    if client.get("caBundle"):
        context.load_verify_locations(cadata=base64.b64decode(client["caBundle"]).decode())
    with urllib3.PoolManager(retries=False, ssl_context=context) as pool:
        timeout = webhook.get("timeoutSeconds") or DEFAULT_SECONDS
        headers = {"Content-Type": "application/json"}
        answer = pool.request("POST", client["url"], body=msgspec.json.encode(review), headers=headers, timeout=timeout)
        if answer.status != 200:
            raise ValueError(f"the server answered {answer.status}")
        return msgspec.json.decode(answer.data)
