"""How the operator's processes end."""

import pytest

from inference_cache_operator import logs
from inference_cache_operator.errors import OperatorError
from inference_cache_operator.settings import COMMON, OPERATOR, Settings
from inference_cache_operator.starting import start

NEEDED = ("--own-namespace", "n", "--sidecar-image", "i:1")


@pytest.mark.parametrize(
    ("error", "code", "said"),
    [
        pytest.param(None, 0, "", id="in-order"),
        pytest.param(OperatorError("no API server"), 1, "program: no API server", id="cannot-start"),
        pytest.param(ZeroDivisionError("by nought"), 1, "program: ended by an error", id="by-an-error"),
    ],
)
def test_a_process_ends_with(
    error: Exception | None,
    code: int,
    said: str,
    capsys: pytest.CaptureFixture[str],
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(logs, "set_up", lambda *_: None)

    def run(settings: Settings) -> None:
        assert settings.own_namespace == "n"
        if error is not None:
            raise error

    assert start("program", "", (*COMMON, *OPERATOR), NEEDED, run) == code
    assert said in capsys.readouterr().err + caplog.text
