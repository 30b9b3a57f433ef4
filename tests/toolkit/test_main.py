import importlib
import subprocess
import sys
from importlib.metadata import version
from types import SimpleNamespace

import pytest

from inference_cache_toolkit import main as console


def test_a_subcommand_gets_its_arguments_and_gives_the_exit_status(monkeypatch: pytest.MonkeyPatch) -> None:
    got: list[list[str]] = []

    def main(argv: list[str]) -> int:
        got.append(argv)
        return 7

    monkeypatch.setattr(console, "import_module", lambda name: SimpleNamespace(main=main) if name.endswith("sidecar.command") else None)
    assert console.main(["sidecar", "--listen", "x"]) == 7
    assert got == [["--listen", "x"]]


def test_help_names_every_subcommand(capsys: pytest.CaptureFixture[str]) -> None:
    assert console.main(["--help"]) == 0
    printed = capsys.readouterr().out
    assert all(name in printed for name in console.SUBCOMMANDS)


def test_without_a_subcommand_the_usage_is_shown_and_the_status_is_2(capsys: pytest.CaptureFixture[str]) -> None:
    assert console.main([]) == 2
    assert "usage" in capsys.readouterr().out


def test_version_is_the_distributions(capsys: pytest.CaptureFixture[str]) -> None:
    assert console.main(["--version"]) == 0
    assert capsys.readouterr().out.strip() == version("inference-cache")


def test_a_misspelt_subcommand_is_corrected(capsys: pytest.CaptureFixture[str]) -> None:
    assert console.main(["sidcar"]) == 2
    assert "did you mean sidecar?" in capsys.readouterr().err


@pytest.mark.parametrize("name", [pytest.param(name, id=name) for name in console.SUBCOMMANDS])
def test_every_subcommand_is_there(name: str) -> None:
    assert callable(importlib.import_module(console.SUBCOMMANDS[name].module).main)


def test_asking_for_help_imports_no_package_behind_a_subcommand() -> None:
    program = (
        "import sys; from inference_cache_toolkit.main import main; main(['--help']); "
        "print([name for name in sys.modules if name.partition('.')[0] in ('inference_cache_sidecar', 'aiohttp', 'numpy')])"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True, timeout=300)
    assert done.stdout.splitlines()[-1] == "[]"
