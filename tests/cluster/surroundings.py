"""What tests of a node share around their story: a namespace for a whole module, and a way to say what was measured."""

import secrets
import sys
from collections.abc import Iterator
from contextlib import contextmanager

from tests.cluster.story import Cluster


@contextmanager
def a_namespace(cluster: Cluster, *labels: str) -> Iterator[str]:
    """A fresh one, with `labels` as NAME=VALUE; its deletion is ordered in the end and not waited for."""
    name = f"test-{secrets.token_hex(4)}"
    cluster.kubectl("create", "namespace", name)
    if labels:
        cluster.kubectl("label", "namespace", name, *labels)
    try:
        yield name
    finally:
        cluster.kubectl("delete", "namespace", name, "--wait=false")


def say(measured: str) -> None:
    """For whoever reads the test's output."""
    sys.stdout.write(f"{measured}\n")
