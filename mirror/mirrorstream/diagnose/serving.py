"""What may keep pods from running the image that a Local tag has; pure."""

from mirrorstream.imagestream.model import LOCAL, is_legacy
from mirrorstream.rules.policy import MirrorPolicy
from mirrorstream.rules.references import parse_or_none

ONE_ARCHITECTURE = (
    "the image is for one architecture if its source has several (importMode Legacy), and the cluster has nodes of several: set "
    "importMode PreserveOriginal on the tag"
)


def serving_warnings(
    policy: MirrorPolicy | None, image: str, *, reference_policy: str, import_mode: str, insecure: bool
) -> tuple[str, ...]:
    """What is to be said of the image that a tag has, as it is recorded; `insecure` is PlatformImport's `pulled_insecurely`.

    Nothing of a tag that is not Local, which nodes pull by its own reference. Without `policy`, which the asking user may not see,
    nothing that depends on it is said.
    """
    if policy is None or reference_policy != LOCAL or not image:
        return ()
    recorded = parse_or_none(image)
    problem = policy.registry_problem(recorded, insecure=insecure) if recorded else ""
    one = policy.several_architectures and is_legacy(import_mode)
    return tuple(text for text in (problem, ONE_ARCHITECTURE if one else "") if text)
