"""image.openshift.io/v1 as recorded: streams, images, imports, and the platform's import controller."""

import time
from collections.abc import Callable

from e2e.testbed.simulator.images.allowed import AllowedRegistries
from e2e.testbed.simulator.images.controller import ImportController
from e2e.testbed.simulator.images.imports import IMAGES, Imports
from e2e.testbed.simulator.images.streams import GROUP, StreamStrategy
from e2e.testbed.simulator.images.tags import Views
from e2e.testbed.simulator.resources import Registry, Resource
from e2e.testbed.simulator.settings import Settings
from e2e.testbed.simulator.store import Store


def register(
    registry: Registry,
    store: Store,
    settings: Settings,
    registry_host: Callable[[], str],
    clock: Callable[[], float] = time.monotonic,
) -> ImportController:
    """Serve image.openshift.io/v1; the platform's import controller, which is to be started. `clock` is its schedule's.

    `registry_host` is the internal registry's, empty where there is none.
    """
    allowed = AllowedRegistries(settings.image_config.get("allowedRegistriesForImport") or [], settings.internal_registry)
    strategy = StreamStrategy(registry_host, allowed)
    imports, views = Imports(settings, strategy, allowed), Views(strategy)
    registry.add(
        Resource(
            GROUP,
            "v1",
            "imagestreams",
            "ImageStream",
            has_status=True,
            short_names=("is",),
            strategy=strategy,
            subresources={"layers": views.layers},
        )
    )
    registry.add(IMAGES)
    registry.add(Resource(GROUP, "v1", "imagestreamimports", "ImageStreamImport", stored=False, create=imports.create))
    registry.add(
        Resource(
            GROUP,
            "v1",
            "imagestreamtags",
            "ImageStreamTag",
            short_names=("istag",),
            stored=False,
            get=views.get_tag,
            delete=views.delete_tag,
        )
    )
    registry.add(Resource(GROUP, "v1", "imagestreamimages", "ImageStreamImage", stored=False, get=views.get_image))
    return ImportController(store, imports, settings, clock)
