import hashlib
import json
from pathlib import Path

import numpy as np
import pytest

from inference_cache_sidecar.embedder.model_folder import MANIFEST_FILE, MODEL_FILE, TOKENIZER_FILE, default_folder
from inference_cache_sidecar.embedder.onnx import OnnxEmbedder
from inference_cache_toolkit import embedding_model, int8_products

pytestmark = pytest.mark.slow

QUESTIONS = (
    "How can I get my money back?",
    "How do I get a refund?",
    "What is the boiling point of water at 2,000 metres?",
    "hello",
    "List the steps to rotate the TLS certificate of a Kubernetes webhook, with the commands, and say which of them may interrupt traffic.",
)


@pytest.fixture(scope="module")
def int8(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("int8") / "model"
    assert embedding_model.main(["--out", str(folder)]) == 0
    return folder


@pytest.fixture(scope="module")
def float32(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("float32") / "model"
    assert embedding_model.main(["--out", str(folder), "--precision", "float32"]) == 0
    return folder


def test_manifest_names_the_files_and_their_digests(int8: Path) -> None:
    manifest = json.loads((int8 / MANIFEST_FILE).read_bytes())
    assert (manifest["name"], manifest["precision"], manifest["dimensions"], manifest["max_tokens"]) == (
        "all-MiniLM-L6-v2",
        "int8",
        384,
        256,
    )
    assert manifest["files"] == {name: hashlib.sha256((int8 / name).read_bytes()).hexdigest() for name in (MODEL_FILE, TOKENIZER_FILE)}
    assert "Apache-2.0" in manifest["origin"]


def test_second_run_touches_nothing(int8: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = [(path.name, path.stat().st_ino, path.stat().st_mtime_ns) for path in sorted(int8.iterdir())]
    assert embedding_model.main(["--out", str(int8)]) == 0
    assert "already made" in capsys.readouterr().out
    assert [(path.name, path.stat().st_ino, path.stat().st_mtime_ns) for path in sorted(int8.iterdir())] == before


@pytest.mark.parametrize("damaged", [MODEL_FILE, TOKENIZER_FILE, MANIFEST_FILE])
def test_damaged_folder_is_made_again_to_the_same_bytes(damaged: str, int8: Path, tmp_path: Path) -> None:
    folder = tmp_path / "model"
    folder.mkdir()
    for path in int8.iterdir():
        content = path.read_bytes()
        (folder / path.name).write_bytes(content[:-9] if path.name == damaged else content)
    assert embedding_model.make(folder, "int8")
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == {path.name: path.read_bytes() for path in int8.iterdir()}


def test_a_failed_run_leaves_no_trace_and_the_old_folder_whole(float32: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = {path.name: path.stat().st_mtime_ns for path in float32.iterdir()}

    def full(*_: object) -> None:
        raise OSError("no space left on device")

    monkeypatch.setattr("inference_cache_sidecar.embedder.model_folder.write_manifest", full)
    assert embedding_model.main(["--out", str(float32)]) == 1
    assert {path.name: path.stat().st_mtime_ns for path in float32.iterdir()} == before
    assert [path.name for path in float32.parent.iterdir()] == [float32.name]


def test_missing_package_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(embedding_model, "PACKAGE", "no_such_package")
    assert embedding_model.main(["--out", str(tmp_path / "model")]) == 1
    assert "no_such_package" in capsys.readouterr().err


def test_folder_with_other_things_in_it_is_never_replaced(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "thesis.txt").write_text("years of work")
    assert embedding_model.main(["--out", str(tmp_path)]) == 1
    assert "thesis.txt" in capsys.readouterr().err
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.txt"]


def test_tokenizer_neither_pads_nor_cuts(int8: Path) -> None:
    tokenizer = json.loads((int8 / TOKENIZER_FILE).read_bytes())
    assert (tokenizer["padding"], tokenizer["truncation"]) == (None, None)


def test_8_bit_vectors_lie_close_to_those_of_float32(int8: Path, float32: Path) -> None:
    exact, quick = (np.array(OnnxEmbedder(folder).embed(QUESTIONS)) for folder in (float32, int8))
    assert np.einsum("ij,ij->i", exact, quick).min() > 0.998
    assert np.abs(exact @ exact.T - quick @ quick.T).max() < 0.01


def test_models_of_two_precisions_have_two_digests(int8: Path, float32: Path) -> None:
    assert OnnxEmbedder(int8).digest != OnnxEmbedder(float32).digest


def test_8_bit_model_is_a_third_of_the_float_one(int8: Path, float32: Path) -> None:
    assert (int8 / MODEL_FILE).stat().st_size < 0.4 * (float32 / MODEL_FILE).stat().st_size


def test_default_place_is_inside_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.prefix", "/opt/here")
    assert default_folder("m") == Path("/opt/here/share/inference-cache/models/m")


def test_8_bit_codes_are_within_half_a_step_of_the_weights() -> None:
    weight = np.random.default_rng(7).standard_normal((12, 64)).astype(np.float32)
    codes, scales = int8_products.int8_weight(weight)
    assert codes.dtype == np.int8
    assert (np.abs(codes.T * scales[:, np.newaxis] - weight) <= scales[:, np.newaxis] * 0.5001).all()


def test_channels_that_run_large_hand_over_more_and_only_powers_of_two() -> None:
    weight = np.ones((4, 3), np.float32)
    shares = int8_products.shares_of_channels(np.array([1.0, 4.0, 64.0], np.float32), weight, 0.5)
    assert (np.diff(shares) > 0).all()
    assert (np.log2(shares) % 1 == 0).all()
