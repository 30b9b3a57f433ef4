"""What Argo CD and Flux make of a resource's status, by the snippets in examples/gitops."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import celpy
import pytest
import yaml
from lupa.lua51 import LuaRuntime

FOLDER: Final = Path(__file__).parents[2] / "examples" / "gitops"
LUA: Final = (FOLDER / "argocd-health.lua").read_text()
HEALTH_KEY: Final = "resource.customizations.health.inferencecache.io_InferenceCache"


def resource(status: Mapping[str, Any] | None = None, generation: int = 3) -> dict[str, Any]:
    body: dict[str, Any] = {"metadata": {"name": "faq-bot", "generation": generation}, "spec": {"selector": {}}}
    return body if status is None else {**body, "status": status}


def status(observed: int = 3, **conditions: str) -> dict[str, Any]:
    listed = [{"type": name, "status": value, "reason": "R", "message": f"{name} says {value}"} for name, value in conditions.items()]
    return {"observedGeneration": observed, "conditions": listed}


STANDINGS: Final = [
    pytest.param(resource(), "Progressing", "Waiting for the operator", id="the-operator-has-not-seen-it"),
    pytest.param(resource({}), "Progressing", "Waiting for the operator", id="empty-status"),
    pytest.param(resource({"observedGeneration": 3}), "Progressing", "Not ready yet", id="no-conditions"),
    pytest.param(
        resource(status(Ready="False", Reconciling="True", Stalled="False")), "Progressing", "Reconciling says True", id="reconciling"
    ),
    pytest.param(resource(status(Ready="True", Reconciling="True")), "Progressing", "Reconciling says True", id="ready-and-reconciling"),
    pytest.param(resource(status(Ready="True", Reconciling="False", Stalled="False")), "Healthy", "Ready says True", id="ready"),
    pytest.param(resource(status(Ready="True")), "Healthy", "Ready says True", id="ready-alone"),
    pytest.param(resource(status(Ready="False")), "Progressing", "Ready says False", id="not-ready"),
    pytest.param(resource(status(Ready="Unknown")), "Progressing", "Ready says Unknown", id="unknown"),
    pytest.param(resource(status(Ready="False", Stalled="True")), "Degraded", "Stalled says True", id="stalled"),
    pytest.param(resource(status(Ready="True", Stalled="True")), "Degraded", "Stalled says True", id="ready-and-stalled"),
    pytest.param(resource(status(Reconciling="True", Stalled="True")), "Degraded", "Stalled says True", id="reconciling-and-stalled"),
    pytest.param(
        resource(status(observed=2, Ready="True")),
        "Progressing",
        "Waiting for the operator to take up the change",
        id="ready-before",
    ),
    pytest.param(
        resource(status(observed=2, Stalled="True")),
        "Progressing",
        "Waiting for the operator to take up the change",
        id="stalled-before",
    ),
    pytest.param(
        resource(status(Ready="True", Conflicted="True", StoreHealthy="False")), "Healthy", "Ready says True", id="other-conditions"
    ),
]


@pytest.mark.parametrize(("body", "health", "message"), STANDINGS)
def test_argo_cd_shows_the_health_with_the_reason(body: dict[str, Any], health: str, message: str) -> None:
    assert argo_health(body) == {"status": health, "message": message}


@pytest.mark.parametrize(("body", "health", "message"), STANDINGS)
def test_flux_waits_fails_and_goes_on_as_argo_cd_does(body: dict[str, Any], health: str, message: str) -> None:
    assert flux_health(body) == {"Progressing": "InProgress", "Degraded": "Failed", "Healthy": "Current"}[health]


def test_the_config_map_holds_the_same_script() -> None:
    config_map = yaml.safe_load((FOLDER / "argocd-cm.yaml").read_text())
    assert config_map["data"] == {HEALTH_KEY: LUA}


def argo_health(body: Mapping[str, Any]) -> dict[str, str]:
    """By Lua 5.1, the dialect of Argo CD's interpreter, with no more of its library than that has."""
    lua = LuaRuntime(unpack_returned_tuples=True, register_eval=False, register_builtins=False)
    for name in ("io", "os", "package", "require", "dofile", "loadfile", "debug"):
        lua.globals()[name] = None
    lua.globals()["obj"] = lua.table_from(body, recursive=True)
    return dict(lua.execute(LUA))


def flux_health(body: Mapping[str, Any]) -> str:
    """In the order of Flux's RFC 9: the generation, then the three expressions; an error leaves the question open."""
    expressions = yaml.safe_load((FOLDER / "flux-kustomization.yaml").read_text())["spec"]["healthCheckExprs"][0]
    observed = body.get("status", {}).get("observedGeneration")
    if observed is not None and observed != body["metadata"]["generation"]:
        return "InProgress"
    for name, verdict in (("inProgress", "InProgress"), ("failed", "Failed"), ("current", "Current")):
        try:
            holds = holds_of(expressions[name], body)
        except celpy.CELEvalError:
            return "InProgress"
        if holds:
            return verdict
    return "InProgress"


def holds_of(expression: str, body: Mapping[str, Any]) -> bool:
    """The members of the resource are the expression's variables."""
    environment = celpy.Environment()
    program = environment.program(environment.compile(expression))
    holds = program.evaluate({name: celpy.json_to_cel(member) for name, member in body.items()})
    if isinstance(holds, celpy.CELEvalError):
        raise holds
    return bool(holds)
