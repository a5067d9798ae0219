"""Whether an expression names only what exists: our metrics as they are exposed, and a few of the platform's."""

from tests.monitoring.exposed import Exposed
from tests.monitoring.promql import named

PLATFORM = {
    "up": frozenset[str](),
    "process_cpu_seconds_total": frozenset[str](),
    "process_resident_memory_bytes": frozenset[str](),
    # kube-state-metrics
    "kube_deployment_spec_replicas": frozenset({"deployment"}),
    # kube-apiserver 1.36, k8s.io/apiserver/pkg/admission/metrics
    "apiserver_admission_webhook_fail_open_count": frozenset({"name", "type"}),
    "apiserver_admission_webhook_admission_duration_seconds_bucket": frozenset({"name", "type", "operation", "rejected"}),
}
"""The platform's own metrics that alerts and panels use, with their labels."""
TARGET = frozenset({"namespace", "service", "pod", "instance", "job", "container", "endpoint"})
"""What Prometheus adds to every series that it scrapes through a ServiceMonitor."""
MADE = frozenset({"service", "port"})
"""What label_replace makes in our expressions."""


def check(expression: str, exposed: dict[str, Exposed]) -> list[str]:
    """What `expression` names and nobody has; empty if all is well."""
    known = {series: frozenset(metric.labels) for metric in exposed.values() for series in metric.series()} | PLATFORM
    found = named(expression)
    problems = [f"metric {name}" for name in sorted(found.metrics - known.keys())]
    everywhere = TARGET | (MADE if found.makes_labels else frozenset())
    for name, labels in found.selectors:
        problems += [f"label {label} of {name}" for label in sorted(labels - known.get(name, labels) - TARGET)]
    buckets = frozenset({"le"}) if any(name.endswith("_bucket") for name in found.metrics) else frozenset[str]()
    some = everywhere | buckets | frozenset(label for name in found.metrics for label in known.get(name, ()))
    return problems + [f"grouping by {label}" for label in sorted(found.grouping - some)]
