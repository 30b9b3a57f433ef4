"""What the parts may import, and what the sidecar may carry."""

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

PROJECT = Path(__file__).resolve().parents[2]
PRODUCT = (
    "contract/inference_cache_contract",
    "artifacts/inference_cache_artifacts",
    "operator/inference_cache_operator",
    "sidecar/inference_cache_sidecar",
    "toolkit/inference_cache_toolkit",
)
EXECUTING_MODULES = {"pickle", "cPickle", "dill", "cloudpickle", "joblib", "shelve", "marshal"}
EXECUTING_CALLS = {"eval", "exec", "compile"}


def modules() -> list[Path]:
    found = [file for package in PRODUCT for file in (PROJECT / package).rglob("*.py")]
    assert len(found) > 20
    return found


def imported(tree: ast.AST) -> Iterator[str]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield node.module


def test_layers_are_kept() -> None:
    command = [Path(sys.executable).with_name("lint-imports"), "--no-cache"]
    run = subprocess.run(command, cwd=PROJECT, capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stdout


def test_no_module_of_the_product_can_execute_data() -> None:
    offenders = []
    for file in modules():
        tree = ast.parse(file.read_text())
        names = {name.partition(".")[0] for name in imported(tree)} & EXECUTING_MODULES
        called = {
            node.func.id for node in ast.walk(tree) if isinstance(node, ast.Call) and isinstance(node.func, ast.Name)
        } & EXECUTING_CALLS
        if names or called:
            offenders.append((file.name, names | called))
    assert offenders == []


def test_the_contract_needs_only_the_standard_library() -> None:
    allowed = set(sys.stdlib_module_names) | {"inference_cache_contract"}
    files = list((PROJECT / PRODUCT[0]).rglob("*.py"))
    assert {name.partition(".")[0] for file in files for name in imported(ast.parse(file.read_text()))} <= allowed


def locked(name: str) -> set[str]:
    lines = (PROJECT / "locks" / f"{name}.txt").read_text().splitlines()
    return {line.partition("==")[0] for line in lines if line[:1].isalnum()}


@pytest.mark.parametrize("lock", ["sidecar", "demo"])
def test_a_light_lock_carries_no_torch(lock: str) -> None:
    packages = locked(lock)
    assert "aiohttp" in packages
    assert {name for name in packages if name in {"torch", "transformers", "triton"} or name.startswith("nvidia-")} == set()


@pytest.mark.parametrize("lock", ["sidecar", "demo"])
def test_a_light_lock_agrees_with_the_full_one(lock: str) -> None:
    def pins(name: str) -> set[str]:
        lines = (PROJECT / "locks" / f"{name}.txt").read_text().splitlines()
        return {line.split()[0] for line in lines if line[:1].isalnum()}

    assert pins(lock) <= pins("dev")


IMPORT_WITHOUT_NETWORK = """
import importlib, pkgutil, socket, sys

def refuse(*_args, **_kwargs):
    raise AssertionError("the network was used at import")

socket.socket.connect = socket.socket.bind = socket.getaddrinfo = refuse
for name in sys.argv[1:]:
    package = importlib.import_module(name)
    for module in pkgutil.walk_packages(package.__path__, f"{name}."):
        if not module.name.endswith(".embedder.torch"):  # the sidecar's image does not carry what it needs
            importlib.import_module(module.name)
print("imported")
"""


def test_importing_what_images_carry_touches_no_network() -> None:
    command = [sys.executable, "-c", IMPORT_WITHOUT_NETWORK, *(each.rpartition("/")[2] for each in PRODUCT[:-1])]
    run = subprocess.run(command, capture_output=True, text=True, check=False)
    assert run.stdout.strip() == "imported", run.stderr


def test_the_console_script_imports_no_subcommand_before_it_is_called() -> None:
    code = "import sys; from inference_cache_toolkit.main import main; main(['--help']); print('aiohttp' in sys.modules)"
    shown = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert shown.strip().endswith("False")
