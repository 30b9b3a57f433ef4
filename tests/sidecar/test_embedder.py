"""One suite for every embedder: ONNX at both precisions, and sentence-transformers with the same weights."""

from pathlib import Path

import numpy as np
import pytest

from inference_cache_sidecar.embedder import onnx
from inference_cache_sidecar.embedder.loading import load_embedder
from inference_cache_sidecar.embedder.model_folder import MODEL_FILE
from inference_cache_sidecar.embedder.onnx import OnnxEmbedder
from inference_cache_sidecar.embedder.protocol import Embedder
from inference_cache_toolkit import embedding_model

pytestmark = pytest.mark.slow

SHORT = "How can I reset my password?"
REPHRASED = "How do I reset my password?"
OTHER = "Which wine goes with fish?"
LONG = "The committee met again on Tuesday to discuss the budget of the library. " * 17


def _sentence_transformers() -> Embedder:
    # Not above: it takes many seconds, also of those who only collect these tests.
    from inference_cache_sidecar.embedder.torch import SentenceTransformersEmbedder  # noqa: PLC0415

    return SentenceTransformersEmbedder(str(embedding_model.source_folder()))


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folders = {precision: tmp_path_factory.mktemp(precision) / "model" for precision in embedding_model.PRECISIONS}
    for precision, folder in folders.items():
        embedding_model.make(folder, precision)
    return folders


@pytest.fixture(scope="module", params=["int8", "float32", "sentence-transformers"])
def embedder(request: pytest.FixtureRequest, folders: dict[str, Path]) -> Embedder:
    return _sentence_transformers() if request.param == "sentence-transformers" else OnnxEmbedder(folders[request.param])


def test_says_what_it_is(embedder: Embedder) -> None:
    assert (embedder.dimensions, embedder.max_tokens) == (384, 256)
    assert len(bytes.fromhex(embedder.digest)) == 32
    assert embedder.name


def test_vectors_are_float32_of_unit_length(embedder: Embedder) -> None:
    for vector in embedder.embed([SHORT, LONG[:900]]):
        assert vector is not None
        assert (vector.dtype, vector.shape) == (np.float32, (384,))
        assert float(np.linalg.norm(vector)) == pytest.approx(1, abs=1e-5)


def test_rephrased_question_lies_nearer_than_another(embedder: Embedder) -> None:
    short, rephrased, other = embedder.embed([SHORT, REPHRASED, OTHER])
    assert short is not None
    assert rephrased is not None
    assert other is not None
    assert float(short @ rephrased) > 0.95
    assert float(short @ other) < 0.3


def test_vector_does_not_hang_on_its_batch(embedder: Embedder) -> None:
    (alone,) = embedder.embed([SHORT])
    among = embedder.embed([LONG[:1000], OTHER, SHORT, "hi", SHORT, REPHRASED])
    assert alone is not None
    assert among[2] is not None
    assert among[4] is not None
    assert np.abs(alone - among[2]).max() < 1e-6
    assert np.abs(alone - among[4]).max() < 1e-6


def test_vectors_keep_the_order_of_the_texts(embedder: Embedder) -> None:
    texts = ["one", LONG * 9, "two words", "one", "", "three words here"]
    vectors = embedder.embed(texts)
    assert [vector is None for vector in vectors] == [False, True, False, False, False, False]
    for text, vector in zip(texts, vectors, strict=True):
        (alone,) = embedder.embed([text])
        assert (alone is None) == (vector is None)
        assert alone is None or vector is None or float(alone @ vector) > 0.99999


def test_last_token_that_fits_is_seen_and_the_next_is_too_many(embedder: Embedder) -> None:
    fits, too_long = "word " * 253 + "end", "word " * 254 + "end"
    vector, other_end, none = embedder.embed([fits, "word " * 253 + "war", too_long])
    assert vector is not None
    assert other_end is not None
    assert not np.allclose(vector, other_end, atol=1e-4)
    assert none is None


@pytest.mark.parametrize(
    "text",
    [
        pytest.param("I feel \N{GRINNING FACE}", id="emoji"),
        pytest.param("what does " + "x" * 300 + " mean", id="one-endless-word"),
        pytest.param("broken \ud800 text", id="lone-surrogate"),
        pytest.param("word " * 400_000, id="huge"),
    ],
)
def test_text_that_would_not_be_seen_whole_has_no_vector(embedder: Embedder, text: str) -> None:
    assert embedder.embed([text, SHORT])[0] is None
    assert embedder.embed([text, SHORT])[1] is not None


@pytest.mark.parametrize(
    "text", [pytest.param("", id="empty"), pytest.param(" \t\n", id="blank"), pytest.param("\x00\x07", id="control-characters")]
)
def test_text_without_words_has_a_finite_vector(embedder: Embedder, text: str) -> None:
    (vector,) = embedder.embed([text])
    assert vector is not None
    assert np.isfinite(vector).all()


def test_no_texts_no_vectors(embedder: Embedder) -> None:
    assert embedder.embed([]) == []


def test_float_onnx_equals_sentence_transformers(folders: dict[str, Path]) -> None:
    texts = [SHORT, REPHRASED, OTHER, LONG[:900], "hi", "SELECT * FROM t WHERE a <= 3.5;", "Ça va, Zoë?"]
    ours, theirs = (np.array(embedder.embed(texts)) for embedder in (OnnxEmbedder(folders["float32"]), _sentence_transformers()))
    assert np.abs(ours - theirs).max() < 2e-6


def test_huge_text_never_reaches_the_tokenizer(folders: dict[str, Path]) -> None:
    embedder = OnnxEmbedder(folders["int8"])
    asked: list[str] = []

    class Watched:
        def __init__(self, inner: object) -> None:
            self.inner = inner

        def encode(self, text: str) -> object:
            asked.append(text)
            return self.inner.encode(text)  # type: ignore[attr-defined]  # whatever tokenizer the embedder holds

    embedder._tokenizer = Watched(embedder._tokenizer)  # type: ignore[assignment]  # a spy in its place
    embedder.embed(["word " * 1_000_000, SHORT])
    assert asked == [SHORT]


def test_torch_embedder_is_taken_for_a_checkpoint_folder() -> None:
    embedder = load_embedder("all-MiniLM-L6-v2", embedding_model.source_folder())
    assert type(embedder) is type(_sentence_transformers())


def test_processors_without_vnni_get_the_same_vectors_from_wider_sums(folders: dict[str, Path]) -> None:
    embedder = OnnxEmbedder(folders["int8"])
    before = np.array(embedder.embed([SHORT, LONG[:900]]))
    embedder._session = onnx._session(folders["int8"] / MODEL_FILE, wide_sums=True)
    assert np.abs(np.array(embedder.embed([SHORT, LONG[:900]])) - before).max() < 1e-5
