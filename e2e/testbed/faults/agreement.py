"""Whether a program knows what the cluster has."""

from e2e.testbed.cluster import Cluster
from e2e.testbed.programs.program import Program
from e2e.testbed.support.waiting import wait_for

COLLECTIONS = {
    "imagestreams.image.openshift.io": "/apis/image.openshift.io/v1/imagestreams",
    "imagedigestmirrorsets.config.openshift.io": "/apis/config.openshift.io/v1/imagedigestmirrorsets",
}


def agree(program: Program, cluster: Cluster, *, seconds: float = 40) -> None:
    """Wait until a program knows as many objects as a fresh list has; on a shared cluster others make and delete some, too."""
    for resource, path in COLLECTIONS.items():
        wait_for(
            f"what is known of {resource} agrees with a list",
            lambda resource=resource, path=path: (  # type: ignore[misc]
                program.metric("mirrorstream_informer_objects", resource=resource) == len(cluster.client.get(path)["items"])
            ),
            seconds=seconds,
        )
