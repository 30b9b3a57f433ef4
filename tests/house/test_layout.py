"""The shape of the repository: folders that must stay plain, files that must stay clean."""

import ast
import re
import subprocess
import sys
from pathlib import Path

import pytest

PROJECT = Path(__file__).resolve().parents[2]
SOURCE_ROOTS = ("operator", "sidecar", "contract", "toolkit", "artifacts")


def tracked(*patterns: str) -> list[Path]:
    """Files of the repository, also those about to be added."""
    command = ["git", "ls-files", "--cached", "--others", "--exclude-standard", "--", *patterns]
    listed = subprocess.run(command, cwd=PROJECT, capture_output=True, text=True, check=True).stdout.splitlines()
    return [PROJECT / name for name in listed if (PROJECT / name).is_file()]


@pytest.mark.parametrize("root", SOURCE_ROOTS)
def test_a_source_root_is_no_package(root: str) -> None:
    assert not (PROJECT / root / "__init__.py").exists(), f"{root}/__init__.py would shadow a module or split a package"


def test_no_folder_of_tests_is_a_package() -> None:
    assert [str(file) for file in (PROJECT / "tests").rglob("__init__.py")] == []


def test_the_standard_librarys_operator_survives_in_the_project_folder() -> None:
    shown = subprocess.run(
        [sys.executable, "-c", "import operator; print(operator.__file__)"], cwd=PROJECT, capture_output=True, text=True, check=True
    ).stdout
    assert not Path(shown.strip()).is_relative_to(PROJECT)


def test_package_init_files_hold_only_a_docstring() -> None:
    files = tracked("*__init__.py")
    assert files
    bodies = {str(file.relative_to(PROJECT)): ast.parse(file.read_text()).body for file in files}
    assert [name for name, body in bodies.items() if len(body) != 1 or not _is_docstring(body[0])] == []


def _is_docstring(node: ast.stmt) -> bool:
    return isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant) and isinstance(node.value.value, str)


MACHINE_PATH = re.compile(rb"(?<![\w.$}-])/(?:work|root|home)/[a-z.]")


def test_no_tracked_file_names_a_path_of_somebodys_machine() -> None:
    this = Path(__file__)
    texts = {file: file.read_bytes() for file in tracked() if file != this}
    assert len(texts) > 10
    assert [str(file.relative_to(PROJECT)) for file, text in texts.items() if MACHINE_PATH.search(text)] == []


def test_the_path_check_knows_a_path_when_it_sees_one() -> None:
    assert MACHINE_PATH.search(b"see /root/.cache")
    assert not MACHINE_PATH.search(b"tests/work/a")
