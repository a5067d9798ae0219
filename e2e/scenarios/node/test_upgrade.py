"""The release before, this one, and back, while pods are created and imports fail. What builds an image is for `make soak`."""

import os
from collections.abc import Iterable
from pathlib import Path

import pytest
from mirrorstream.runtime.settings import SettingsError, parse_settings

from e2e.testbed.cluster import Namespace
from e2e.testbed.node.earlier import Earlier, NoEarlierError, installed_images
from e2e.testbed.node.product import AVAILABLE_SECONDS, NAMESPACE, Product, image_of_bed, overlay_of
from e2e.testbed.programs.installed import Bed, Creating, mirrored, settled
from e2e.testbed.programs.issuers import ServiceCA
from e2e.testbed.streams import tag
from e2e.testbed.support.kustomize import CONFIG, write_overlay
from e2e.testbed.support.waiting import wait_for

CONFIGURATION = Path("config") / "base" / "configuration" / "config.yaml"
LACKING = 10
"""How many streams fail, since no mirror has their image."""


@pytest.fixture(scope="module")
def earlier(tmp_path_factory: pytest.TempPathFactory) -> Earlier:
    """The release before."""
    try:
        return Earlier(tmp_path_factory.mktemp("earlier") / "checkout")
    except NoEarlierError as error:
        pytest.skip(str(error))


def install(product: Product, digest: str) -> None:
    """Apply it as an upgrade, and wait until its pods and no others run."""
    product.apply()
    for component in ("controller", "webhook"):
        deployment = f"deployment/mirrorstream-{component}"
        product.kubectl("-n", NAMESPACE, "rollout", "status", deployment, f"--timeout={AVAILABLE_SECONDS}s")
    wait_for("its pods and no others run", lambda: installed_images(product.pods(ending=True)) == {digest})


def lacking(number: int) -> str:
    """A stream that fails before the upgrade."""
    return f"lacking-{number}"


def statuses(user: Namespace, names: Iterable[str]) -> dict[str, object]:
    """Histories and conditions of streams."""
    return {name: user.get(name)["status"]["tags"] for name in names}


@pytest.mark.skipif(
    not os.environ.get("MIRRORSTREAM_SOAK"), reason="builds the release before: MIRRORSTREAM_SOAK=1, as `make soak` sets it"
)
@pytest.mark.timeout(1800)
def test_upgrade_and_rollback(earlier: Earlier, bed: Bed, digest: str, user: Namespace, tmp_path: Path) -> None:
    """During the upgrade and the rollback every new pod gets its tag's image, and only tags that heal change.

    Each version heals new streams, and streams that failed under the other version once the mirror has their image.
    """
    assert bed.node
    before = earlier.push(bed.node.registry, Path(bed.node.authority), tmp_path / "push")
    assert before != digest
    of_before = write_overlay(
        tmp_path / "before",
        resources=[str(earlier.folder / "config" / "overlays" / "single-node")],
        images=image_of_bed(bed.node, before),
    )
    old = Product(bed.kubectl, bed.plane.kubeconfig, of_before, tmp_path)
    new = Product(bed.kubectl, bed.plane.kubeconfig, overlay_of(tmp_path / "now", "single-node", bed.node, digest), tmp_path)
    with new:
        old.install(ServiceCA(bed.client, tmp_path).issue)
        source, target = mirrored(user)
        settled(user, source, target)
        names = [lacking(number) for number in range(LACKING)]
        for name in names:
            user.create(name, tag("v1", user.source(f"{name}:v1")))
        for name in names:
            user.wait_failed(name, "v1")
        steps = ((new, digest, "upgraded", names.pop()), (old, before, "back", names.pop()))
        kept = statuses(user, ["app", *names])
        creating = Creating(user, source)
        for product, which, name, failed in steps:
            added = user.put("good", f"{failed}:v1")
            install(product, which)
            wanted = user.put("good", f"{name}:v1")
            user.create(name, tag("v1", user.source(f"{name}:v1")))
            user.wait_healed(name, "v1", wanted)
            user.wait_healed(failed, "v1", added)
            assert statuses(user, kept) == kept
            kept |= statuses(user, [name, failed])
            assert "Traceback" not in product.log("controller") + product.log("webhook")
        creating.stop()
        print(f"{len(creating.made)} pods created, 0 failed")
        # Without a webhook for a moment a pod would have kept what its user wrote.
        assert [made for made in creating.made if made.image != target] == []


def test_both_take_each_others_configuration(earlier: Earlier) -> None:
    """Or refuse it with a sentence that names the field."""
    theirs = (earlier.folder / CONFIGURATION).read_text(encoding="utf-8")
    ours = (CONFIG.parent / CONFIGURATION).read_text(encoding="utf-8")
    said = [earlier.judge(ours)]
    try:
        parse_settings(theirs, "config.yaml")
    except SettingsError as error:
        said.append(str(error))
    for sentence in filter(None, said):
        assert sentence.startswith("config.yaml: ")
        assert "\n" not in sentence


def test_a_field_of_another_version_is_named() -> None:
    """A configuration of a later release, say."""
    with pytest.raises(SettingsError, match=r"^config\.yaml: controller\.fromTheFuture: "):
        parse_settings("controller: {fromTheFuture: 1}\n", "config.yaml")
