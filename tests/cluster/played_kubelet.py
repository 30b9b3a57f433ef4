"""On a control plane without nodes: says of pods what a kubelet would, without running anything.

Pods are bound to nodes that exist by name only, become Running and Ready, and are gone soon after their deletion. Those that are to end
by themselves (`restartPolicy: OnFailure`) run until `ends` says how.
"""

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, Final
from urllib.error import HTTPError

from tests.cluster.api import Api

POLL_SECONDS: Final = 0.1
JOIN_SECONDS: Final = 60.0
NODE: Final = "played"
NEXT_ROUND: Final = {404, 409, 422, 429, 500, 503, 504}
"""The pod changed or went meanwhile, or the API server was too busy: the next round sees it as it is."""

Pod = dict[str, Any]
Ending = dict[str, Any] | None


@dataclass(slots=True)
class PlayedKubelet:
    """Its decisions may be changed while it runs; they are asked at every round until they say yes."""

    becomes_ready: Callable[[Pod], bool] = lambda _pod: True
    may_end: Callable[[Pod], bool] = lambda _pod: True
    """Of a pod that is being deleted."""
    node: Callable[[Pod], str] = lambda _pod: NODE
    """Where a pod goes that may go anywhere."""
    ends: Callable[[Pod], Ending] = lambda _pod: {"exitCode": 0}
    """How the last container of a pod ended that is to end by itself; it is tried again after a failure. None: it runs."""
    errors: list[Exception] = field(default_factory=list)


@contextmanager
def played_kubelet(api: Api, namespace: str | None = None) -> Iterator[PlayedKubelet]:
    """Plays for the pods of `namespace`, or of all. Raises in the end what it failed with, if it did."""
    _make_node(api, NODE)
    kubelet, ended = PlayedKubelet(), threading.Event()
    thread = threading.Thread(target=_play, args=(api, namespace, kubelet, ended), name="played-kubelet")
    thread.start()
    try:
        yield kubelet
    finally:
        ended.set()
        thread.join(JOIN_SECONDS)
    if kubelet.errors:
        raise kubelet.errors[0]


def running_status(pod: Pod, address: str, *, ready: bool) -> dict[str, Any]:
    """The status of a pod whose containers run: sidecars and containers ready or not, other init containers completed."""
    now, spec = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ"), pod["spec"]
    on = [{"type": kind, "status": "True", "lastTransitionTime": now} for kind in ("PodScheduled", "Initialized")]
    depends = [{"type": kind, "status": "True" if ready else "False", "lastTransitionTime": now} for kind in ("ContainersReady", "Ready")]
    runs, completed = {"running": {"startedAt": now}}, {"terminated": {"exitCode": 0, "reason": "Completed", "finishedAt": now}}
    init = [
        _container(container, runs, ready=ready) if container.get("restartPolicy") == "Always" else _container(container, completed)
        for container in spec.get("initContainers", [])
    ]
    return {
        "phase": "Running",
        "conditions": on + depends,
        "startTime": pod.get("status", {}).get("startTime", now),
        "podIP": address,
        "podIPs": [{"ip": address}],
        "containerStatuses": [_container(container, runs, ready=ready) for container in spec["containers"]],
        **({"initContainerStatuses": init} if init else {}),
    }


def _container(container: Pod, state: dict[str, Any], *, ready: bool = True) -> dict[str, Any]:
    return {
        "name": container["name"],
        "image": container["image"],
        "imageID": "",
        "restartCount": 0,
        "ready": ready,
        "started": "running" in state,
        "state": state,
    }


def pinned_node(pod: Pod) -> str | None:
    """The only one that its affinity lets it go to."""
    required = pod["spec"].get("affinity", {}).get("nodeAffinity", {}).get("requiredDuringSchedulingIgnoredDuringExecution", {})
    fields = [each for term in required.get("nodeSelectorTerms", []) for each in term.get("matchFields", [])]
    return next((each["values"][0] for each in fields if each["key"] == "metadata.name"), None)


def ended_status(pod: Pod, address: str, ending: dict[str, Any] | None) -> dict[str, Any]:
    """The status of a pod that is to end by itself: it runs, has succeeded, or failed and is tried again."""
    status = running_status(pod, address, ready=ending is None)
    if ending is None:
        return status
    state = {"terminated": {"reason": "Error" if ending["exitCode"] else "Completed", "finishedAt": status["startTime"], **ending}}
    containers = [_container(each, state, ready=False) for each in pod["spec"]["containers"]]
    return {**status, "phase": "Running" if ending["exitCode"] else "Succeeded", "containerStatuses": containers}


def _make_node(api: Api, name: str) -> None:
    if api.get(f"/api/v1/nodes/{name}") is None:
        api.request("POST", "/api/v1/nodes", {"metadata": {"name": name}})


def _play(api: Api, namespace: str | None, kubelet: PlayedKubelet, ended: threading.Event) -> None:
    path = f"/api/v1/namespaces/{namespace}/pods" if namespace else "/api/v1/pods"
    number = 0
    while not ended.wait(POLL_SECONDS):
        try:
            pods = api.request("GET", f"{path}?resourceVersion=0")["items"]
        except OSError:
            continue
        for pod in pods:
            number += 1
            try:
                _step(api, pod, kubelet, f"10.244.{number // 250 % 250}.{number % 250 + 1}")
            except HTTPError as error:
                with error:
                    if error.code not in NEXT_ROUND:
                        kubelet.errors.append(error)
            except OSError:
                continue


def _step(api: Api, pod: Pod, kubelet: PlayedKubelet, address: str) -> None:
    """Take one pod a step on."""
    meta, status = pod["metadata"], pod.get("status", {})
    path = f"/api/v1/namespaces/{meta['namespace']}/pods/{meta['name']}"
    if "deletionTimestamp" in meta:
        if kubelet.may_end(pod):
            api.request("DELETE", path, {"gracePeriodSeconds": 0, "preconditions": {"uid": meta["uid"]}})
    elif "nodeName" not in pod["spec"]:
        node = pinned_node(pod) or kubelet.node(pod)
        _make_node(api, node)
        binding = {"apiVersion": "v1", "kind": "Binding", "metadata": {"name": meta["name"]}, "target": {"kind": "Node", "name": node}}
        api.request("POST", f"{path}/binding", binding)
    elif status.get("phase") in {"Succeeded", "Failed"}:
        return
    elif pod["spec"].get("restartPolicy") == "OnFailure":
        told = ended_status(pod, status.get("podIP", address), kubelet.ends(pod))
        if _states(told) != _states(status):
            change = {"metadata": {"uid": meta["uid"]}, "status": told}
            api.request("PATCH", f"{path}/status", change, "application/merge-patch+json")
    elif _ready(status) != (ready := kubelet.becomes_ready(pod)) or status.get("phase") != "Running":
        change = {"metadata": {"uid": meta["uid"]}, "status": running_status(pod, status.get("podIP", address), ready=ready)}
        api.request("PATCH", f"{path}/status", change, "application/strategic-merge-patch+json")


def _states(status: Pod) -> list[tuple[str, str]]:
    """Of its containers: what each does, and what it said in the end."""
    states = [each["state"] for each in status.get("containerStatuses", [])]
    return [(next(iter(state)), state.get("terminated", {}).get("message", "")) for state in states]


def _ready(status: Pod) -> bool:
    return any(condition["type"] == "Ready" and condition["status"] == "True" for condition in status.get("conditions", []))
