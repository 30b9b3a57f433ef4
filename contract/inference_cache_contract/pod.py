"""What an injected pod carries, written once: annotations, names in the pod, and the variables of the sidecar's container.

The webhook writes them, the controller reads and patches them, the sidecar reads the ones that reach it.
"""

from typing import Final

GROUP: Final = "inferencecache.io"
API_VERSION: Final = f"{GROUP}/v1alpha1"
KIND: Final = "InferenceCache"
PLURAL: Final = "inferencecaches"

INJECTED_LABEL: Final = f"{GROUP}/injected"
"""On an injected pod: "true", so that injected pods can be listed without the others."""
CACHE_ANNOTATION: Final = f"{GROUP}/cache"
"""On an injected pod: the name of its resource, of the pod's own namespace."""
VERSION_ANNOTATION: Final = f"{GROUP}/version"
"""The model version that a pod serves. A user may set it in a template; else the webhook stamps it."""
REVISION_ANNOTATION: Final = f"{GROUP}/revision"
"""On an injected pod: digest of all in the pod that changes answers."""
INJECTION_ANNOTATION: Final = f"{GROUP}/injection"
"""On an injected pod: digests of what was injected, so that an outdated injection is told from a current one: `<a>.<b>`.

`a` is over what the resource asks for, `b` over what the operator's installation makes of it."""
CONFIGURATION_ANNOTATION: Final = f"{GROUP}/configuration"
"""On an injected pod: the hot configuration (`configuration.Configuration`) as JSON. Written at admission, patched by the controller."""
NUDGE_ANNOTATION: Final = f"{GROUP}/nudge"
"""On an injected pod, where kubelet did not bring it a new configuration in time: changed so that kubelet looks again. Nobody reads it."""
CONTAINER_ANNOTATION: Final = f"{GROUP}/container"
"""Set by a user in a template: the name of the container that runs vLLM, where it cannot be told by image and command."""
PORT_ANNOTATION: Final = f"{GROUP}/port"
"""Set by a user in a template: the port vLLM listens on, where its arguments do not say (a `--config` file)."""
INJECT_ANNOTATION: Final = f"{GROUP}/inject"
"""Set by a user in a template: "false" keeps the sidecar out of these pods."""
ROLLOUT_ANNOTATION: Final = f"{GROUP}/rollout"
"""On a pod template, written by the controller: changing it makes the workload roll."""
FLUSH_ANNOTATION: Final = f"{GROUP}/flush"
"""Set by a user on the resource: every new value flushes all its entries once."""

SIDECAR_CONTAINER: Final = "inference-cache"
CONFIGURATION_VOLUME: Final = "inference-cache-configuration"
CONFIGURATION_FOLDER: Final = "/etc/inference-cache"
CONFIGURATION_FILE: Final = f"{CONFIGURATION_FOLDER}/configuration.json"
"""The configuration annotation's value, by the downward API; empty where the annotation is missing."""
TEMPORARY_VOLUME: Final = "inference-cache-tmp"
ADMIN_PORT_NAME: Final = "ic-admin"
