"""Whether the API server bounds what this account may change of pods: without that nothing is changed.

RBAC gives `patch pods` whole. Two ValidatingAdmissionPolicies of config/components/pending-pods take back all but images of pods
that hang; Kubernetes has them from 1.30 on (OpenShift 4.17).
"""

from typing import Any

from mirrorstream.kube.client import ApiError, Client
from mirrorstream.kube.errors import is_transient

NAMES = ("mirrorstream-pending-pods", "mirrorstream-pending-pods-images")
_ROOT = "/apis/admissionregistration.k8s.io/v1"
REQUEST_SECONDS = 10.0


class PatchPolicy:
    """Reads the policies and their bindings."""

    def __init__(self, client: Client) -> None:
        self._client = client

    def problem(self) -> str | None:
        """Why this account is not bounded; None if it is. Raises ClientError while nobody can say."""
        try:
            return next(filter(None, map(self._problem_of, NAMES)), None)
        except ApiError as error:
            if error.status == 404 and not error.details.get("name"):
                return "this API server has no ValidatingAdmissionPolicy (v1 is there from Kubernetes 1.30, OpenShift 4.17)"
            if is_transient(error):
                raise
            return f"a ValidatingAdmissionPolicy that bounds this account cannot be read: {error.message}"

    def _problem_of(self, name: str) -> str | None:
        policy = self._read("validatingadmissionpolicies", name)
        binding = self._read("validatingadmissionpolicybindings", name)
        if policy.get("failurePolicy", "Fail") != "Fail":
            return f"ValidatingAdmissionPolicy {name} does not say failurePolicy: Fail"
        if "Deny" not in binding.get("validationActions", ()) or binding.get("policyName") != name:
            return f"ValidatingAdmissionPolicyBinding {name} does not deny"
        return None

    def _read(self, resource: str, name: str) -> dict[str, Any]:
        found = self._client.request("GET", f"{_ROOT}/{resource}/{name}", timeout=REQUEST_SECONDS)
        return found.get("spec") or {}
