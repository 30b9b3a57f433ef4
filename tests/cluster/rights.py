"""What the chart's service accounts may do, by their roles, and what they do, by the API server's audit log."""

import itertools
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from tests.cluster.installing import SYSTEM, Installed
from tests.cluster.node import Node

Right = tuple[str, str, str]
"""Group, resource with its subresource, verb."""


@dataclass(frozen=True, slots=True)
class Rule:
    right: Right
    names: tuple[str, ...]


def granted(installed: Installed, account: str) -> list[Rule]:
    """Of all roles that are bound to the service account."""
    bindings = installed.get("rolebindings,clusterrolebindings", "-A", namespace=SYSTEM)["items"]
    return [rule for each in bindings if is_bound(each, account) for rule in rules_of(installed, each)]


def is_bound(binding: Mapping[str, Any], account: str) -> bool:
    return any(each["kind"] == "ServiceAccount" and each["name"] == account for each in binding.get("subjects") or ())


def rules_of(installed: Installed, binding: Mapping[str, Any]) -> Iterator[Rule]:
    namespace = binding["metadata"].get("namespace", SYSTEM)
    role = installed.get(binding["roleRef"]["kind"].lower(), binding["roleRef"]["name"], namespace=namespace)
    for rule in role.get("rules") or ():
        for group in rule["apiGroups"]:
            for resource in rule["resources"]:
                for verb in rule["verbs"]:
                    yield Rule((group, resource, verb), tuple(rule.get("resourceNames") or ()))


@dataclass(frozen=True, slots=True)
class Asking:
    """What service accounts ask about objects, refused or not, since this was made."""

    node: Node
    before: int

    def by(self, account: str) -> list[Mapping[str, Any]]:
        user = f"system:serviceaccount:{SYSTEM}:{account}"
        events = itertools.islice(self.node.plane.audit(), self.before, None)
        return [event for event in events if event["user"]["username"] == user and "objectRef" in event]

    def used(self, account: str) -> set[Right]:
        return {right(event) for event in self.by(account)}


def asking_since_now(node: Node) -> Asking:
    return Asking(node, sum(1 for _ in node.plane.audit()))


def right(event: Mapping[str, Any]) -> Right:
    of = event["objectRef"]
    resource = f"{of['resource']}/{of['subresource']}" if of.get("subresource") else of["resource"]
    return of.get("apiGroup", ""), resource, event["verb"]


def refused(events: Sequence[Mapping[str, Any]]) -> list[tuple[Right, str]]:
    """What was asked in vain. Right after the installation the API server may not know of a role yet that it knows of a moment later."""
    outcomes = [((right(each), each["objectRef"].get("name", "")), each.get("responseStatus", {}).get("code", 0)) for each in events]
    allowed = {what for what, code in outcomes if code < 400}
    return [what for what, code in outcomes if code == 403 and what not in allowed]
