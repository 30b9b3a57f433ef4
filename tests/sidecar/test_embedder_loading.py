import hashlib
import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from inference_cache_sidecar.embedder import model_folder
from inference_cache_sidecar.embedder.loading import load_embedder
from inference_cache_sidecar.embedder.model_folder import MANIFEST_FILE, MODEL_FILE, TOKENIZER_FILE
from inference_cache_sidecar.embedder.protocol import EmbedderError
from inference_cache_toolkit import embedding_model

pytestmark = pytest.mark.slow

NAME = "all-MiniLM-L6-v2"


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("made") / "model"
    embedding_model.make(folder, "int8")
    return folder


@pytest.fixture
def folder(made: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(made, tmp_path / "model"))


def _edit(folder: Path, **changes: object) -> None:
    path = folder / MANIFEST_FILE
    path.write_text(json.dumps(json.loads(path.read_bytes()) | changes))


def test_explicit_folder_is_loaded(folder: Path) -> None:
    embedder = load_embedder(NAME, folder)
    assert embedder.name == NAME
    assert embedder.embed(["hello"])[0] is not None


def test_default_place_is_used_where_no_folder_is_given(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    place = folder.parent / "share" / "inference-cache" / "models" / NAME
    shutil.copytree(folder, place)
    monkeypatch.setattr("sys.prefix", str(folder.parent))
    assert load_embedder(NAME).digest == model_folder.read_manifest(folder).digest


def test_missing_folder_names_the_command_that_makes_it(tmp_path: Path) -> None:
    with pytest.raises(EmbedderError, match=r"python -m inference_cache_toolkit\.embedding_model --out .*absent"):
        load_embedder(NAME, tmp_path / "absent")


@pytest.mark.parametrize("name", [MODEL_FILE, TOKENIZER_FILE])
@pytest.mark.parametrize("content", [b"", b"{}", b"\x00" * 4096], ids=["empty", "json", "zeros"])
def test_damaged_file_is_refused_before_it_is_parsed(folder: Path, name: str, content: bytes) -> None:
    (folder / name).write_bytes(content)
    with pytest.raises(EmbedderError, match=f"{name} is not the file its manifest names"):
        load_embedder(NAME, folder)


@pytest.mark.parametrize("name", [MODEL_FILE, TOKENIZER_FILE])
def test_absent_file_is_named(folder: Path, name: str) -> None:
    (folder / name).unlink()
    with pytest.raises(EmbedderError, match=name):
        load_embedder(NAME, folder)


@pytest.mark.parametrize(
    "manifest",
    [
        pytest.param(b"", id="empty"),
        pytest.param(b"[]", id="list"),
        pytest.param(b'{"files": 3}', id="files-no-object"),
        pytest.param(b'{"files": {}}', id="fields-missing"),
        pytest.param(b"\xff\xfe", id="no-utf-8"),
    ],
)
def test_broken_manifest_is_an_embedder_error(folder: Path, manifest: bytes) -> None:
    (folder / MANIFEST_FILE).write_bytes(manifest)
    with pytest.raises(EmbedderError, match=MANIFEST_FILE):
        load_embedder(NAME, folder)


def test_manifest_of_a_later_release_may_say_more(folder: Path) -> None:
    _edit(folder, later="field")
    assert load_embedder(NAME, folder).name == NAME


@pytest.mark.parametrize("name", [MODEL_FILE, TOKENIZER_FILE])
def test_file_that_is_whole_but_no_model_is_an_embedder_error(folder: Path, name: str) -> None:
    content = b"something else"
    (folder / name).write_bytes(content)
    files = model_folder.read_manifest(folder).files
    _edit(folder, files=files | {name: hashlib.sha256(content).hexdigest()})
    with pytest.raises(EmbedderError, match=r"not understood|does not take"):
        load_embedder(NAME, folder)


def test_processor_that_computes_other_vectors_is_found_at_once(folder: Path) -> None:
    probe = json.loads((folder / MANIFEST_FILE).read_bytes())["probe"]
    _edit(folder, probe=probe | {"vector": probe["vector"][::-1]})
    with pytest.raises(EmbedderError, match="other vectors"):
        load_embedder(NAME, folder)


def test_folder_of_another_model_is_refused(folder: Path) -> None:
    with pytest.raises(EmbedderError, match=r"spec\.semantic\.embedder\.name: .* holds all-MiniLM-L6-v2, not e5-small"):
        load_embedder("e5-small", folder)


def test_name_with_a_slash_needs_the_torch_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "sentence_transformers", None)
    monkeypatch.delitem(sys.modules, "inference_cache_sidecar.embedder.torch", raising=False)
    with pytest.raises(EmbedderError, match="extra `torch`"):
        load_embedder("sentence-transformers/all-MiniLM-L6-v2")


def test_torch_stays_out_of_a_sidecar_that_uses_onnx(made: Path) -> None:
    program = (
        "import sys; from pathlib import Path; from inference_cache_sidecar.embedder.loading import load_embedder; "
        f"load_embedder({NAME!r}, Path({str(made)!r})).embed(['hi']); "
        "print(sorted({'torch', 'sentence_transformers', 'onnx', 'safetensors', 'transformers'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True, timeout=300)
    assert done.stdout.strip() == "[]"
