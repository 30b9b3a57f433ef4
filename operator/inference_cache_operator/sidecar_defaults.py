"""What the installation says of sidecars, out of the settings: the same for the webhook and the controller, or digests would differ."""

from dataclasses import replace

from inference_cache_operator.injection.container import SidecarDefaults
from inference_cache_operator.settings import Settings


def sidecar_defaults(settings: Settings) -> SidecarDefaults:
    built_in = SidecarDefaults(settings.sidecar_image, settings.sidecar_pull_policy)
    return replace(
        built_in,
        resources={**built_in.resources, **dict(settings.sidecar_resources)},
        ignored_names=settings.ignored_names or built_in.ignored_names,
        artifacts_agent=settings.artifacts_agent,
        artifacts_folder=settings.artifacts_folder,
    )
