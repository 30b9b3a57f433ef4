"""`inference-cache standin`: its flags become the stand-in that is served."""

import json
from pathlib import Path

import pytest

from inference_cache_toolkit.standin.command import built, parser
from inference_cache_toolkit.standin.faults import Fault
from inference_cache_toolkit.standin.state import Pace


def test_flags_set_pace_names_key_and_fault() -> None:
    flags = ["--first-token", "50ms", "--per-token", "2ms", "--model", "a", "--model", "b", "--api-key", "k", "--fault", "reset"]
    made = built(parser().parse_args(flags))
    assert (made.pace, made.models, made.api_key, made.fault) == (Pace(0.05, 0.002), ("a", "b"), "k", Fault.RESET)


def test_given_answers_are_said_word_for_word(tmp_path: Path) -> None:
    file = tmp_path / "answers.json"
    file.write_text(json.dumps({"What is it?": "It is a cache."}))
    made = built(parser().parse_args(["--answers", str(file)]))
    assert made.writer.write({"model": "tiny"}, "What is it?", None).text == "It is a cache."


@pytest.mark.parametrize("flags", [["--first-token", "soon"], ["--fault", "sadness"]], ids=lambda flags: flags[0])
def test_a_wrong_value_is_refused(flags: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        parser().parse_args(flags)
    assert flags[0] in capsys.readouterr().err
