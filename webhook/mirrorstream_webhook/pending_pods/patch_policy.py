"""Whether the API server bounds what this account may change of pods: without that nothing is changed.

RBAC gives `patch pods` whole. The ValidatingAdmissionPolicy of config/components/pending-pods takes back all but images of pods
that hang; Kubernetes has it from 1.30 on (OpenShift 4.17).
"""

from typing import Any

from mirrorstream.kube.client import ApiError, Client
from mirrorstream.kube.errors import is_transient

NAME = "mirrorstream-pending-pods"
_ROOT = "/apis/admissionregistration.k8s.io/v1"
REQUEST_SECONDS = 10.0


class PatchPolicy:
    """Reads the policy and its binding."""

    def __init__(self, client: Client) -> None:
        self._client = client

    def problem(self) -> str | None:
        """Why this account is not bounded; None if it is. Raises ClientError while nobody can say."""
        try:
            policy = self._read("validatingadmissionpolicies")
            binding = self._read("validatingadmissionpolicybindings")
        except ApiError as error:
            if error.status == 404 and not error.details.get("name"):
                return "this API server has no ValidatingAdmissionPolicy (v1 is there from Kubernetes 1.30, OpenShift 4.17)"
            if is_transient(error):
                raise
            return f"the ValidatingAdmissionPolicy that bounds this account cannot be read: {error.message}"
        if policy.get("failurePolicy", "Fail") != "Fail":
            return f"ValidatingAdmissionPolicy {NAME} does not say failurePolicy: Fail"
        if "Deny" not in binding.get("validationActions", ()) or binding.get("policyName") != NAME:
            return f"ValidatingAdmissionPolicyBinding {NAME} does not deny"
        return None

    def _read(self, resource: str) -> dict[str, Any]:
        found = self._client.request("GET", f"{_ROOT}/{resource}/{NAME}", timeout=REQUEST_SECONDS)
        return found.get("spec") or {}
