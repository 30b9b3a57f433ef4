"""The resource on a real API server: its definition installed, and what is said of a spec."""

import json
from pathlib import Path
from typing import Any, Final
from urllib.error import HTTPError

from tests.cluster.api import Api
from tests.cluster.control_plane import ControlPlane
from tests.cluster.servers import until

FOLDER: Final = Path(__file__).parents[2] / "crds"
EXAMPLES: Final = Path(__file__).parents[2] / "examples"
NAME: Final = "inferencecaches.inferencecache.io"


def install(plane: ControlPlane) -> None:
    """As a person would; the API server serves the resource when this is back."""
    plane.kubectl("apply", "--server-side", "--force-conflicts", "-f", FOLDER)
    until(lambda: plane.api.get(path("default")) is not None, "the resource's path", 60)


def path(namespace: str, name: str = "") -> str:
    return f"/apis/inferencecache.io/v1alpha1/namespaces/{namespace}/inferencecaches" + (f"/{name}" if name else "")


def resource(spec: Any, name: str = "faq-bot") -> dict[str, Any]:
    return {"apiVersion": "inferencecache.io/v1alpha1", "kind": "InferenceCache", "metadata": {"name": name}, "spec": spec}


class Refused(Exception):
    """By the API server; `problems` are field and message of each."""

    def __init__(self, message: str, problems: tuple[tuple[str, str], ...]) -> None:
        super().__init__(message)
        self.problems = problems

    def says(self, field: str, message: str) -> bool:
        return any(field == at and message in text for at, text in self.problems)


def ask(api: Api, method: str, url: str, body: Any, content_type: str = "application/json") -> Any:
    """What the API server makes of it. Raises Refused."""
    try:
        return api.request(method, url, body, content_type)
    except HTTPError as error:
        said = json.load(error)
        causes = said.get("details", {}).get("causes", [])
        raise Refused(said["message"], tuple((each.get("field", ""), each.get("message", "")) for each in causes)) from None


def try_out(api: Api, spec: Any, name: str = "faq-bot") -> Any:
    """The resource as it would be stored, without storing it; unknown fields are refused as by kubectl. Raises Refused."""
    return ask(api, "POST", f"{path('default')}?dryRun=All&fieldValidation=Strict", resource(spec, name))


def apply(api: Api, namespace: str, spec: Any, manager: str = "test", name: str = "faq-bot") -> Any:
    """By server-side apply, as GitOps tools do. Raises Refused."""
    url = f"{path(namespace, name)}?fieldManager={manager}&fieldValidation=Strict"
    return ask(api, "PATCH", url, resource(spec, name), "application/apply-patch+yaml")
