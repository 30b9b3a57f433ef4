"""Where answers end on a relayed connection, however their bytes are cut."""

import pytest

from inference_cache_sidecar.supervisor.framing import AnswerFraming

REQUEST = b"POST / HTTP/1.1\r\nContent-Length: 2\r\n\r\n{}"
SIZED = b"HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\nhello"
CHUNKED = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n1;x=y\r\n!\r\n0\r\n\r\n"
TRAILED = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\na: b\r\n\r\n"
EMPTY = b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"
NO_CONTENT = b"HTTP/1.1 204 No Content\r\n\r\n"
CONTINUED = b"HTTP/1.1 100 Continue\r\n\r\n" + SIZED
WHOLE = [
    pytest.param(SIZED, id="length"),
    pytest.param(CHUNKED, id="chunked"),
    pytest.param(TRAILED, id="trailer"),
    pytest.param(EMPTY, id="empty"),
    pytest.param(NO_CONTENT, id="no-content"),
    pytest.param(CONTINUED, id="continue"),
]


@pytest.mark.parametrize("size", [1, 2, 3, 7, 1000])
@pytest.mark.parametrize("answer", WHOLE)
def test_an_answer_has_ended_with_its_last_byte_and_not_before(answer: bytes, size: int) -> None:
    framing = AnswerFraming()
    for _ in range(2):
        framing.asked(REQUEST)
        pieces = [answer[at : at + size] for at in range(0, len(answer), size)]
        for piece in pieces:
            assert not framing.between
            framing.answered(piece)
        assert framing.between


@pytest.mark.parametrize(
    "answer",
    [
        pytest.param(b"HTTP/1.1 200 OK\r\n\r\nuntil the end", id="until-closed"),
        pytest.param(b"HTTP/1.1 101 Switching Protocols\r\n\r\n", id="websocket"),
        pytest.param(b"HTTP/1.0 200 OK\r\nContent-Length: 0\r\n\r\n", id="http-1.0"),
        pytest.param(b"nonsense\r\n\r\n", id="nonsense"),
        pytest.param(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nxyz\r\n", id="bad-chunk"),
        pytest.param(b"HTTP/1.1 200 OK\r\nContent-Length: -1\r\n\r\n", id="bad-length"),
    ],
)
def test_what_it_does_not_understand_never_ends(answer: bytes) -> None:
    framing = AnswerFraming()
    framing.asked(REQUEST)
    framing.answered(answer)
    framing.asked(REQUEST)
    framing.answered(SIZED)
    assert not framing.between


def test_an_answer_to_head_is_not_followed_for_its_length_is_not_its_own() -> None:
    framing = AnswerFraming()
    framing.asked(b"HEAD / HTTP/1.1\r\n\r\n")
    framing.answered(SIZED.removesuffix(b"hello"))
    framing.answered(SIZED)
    assert not framing.between


def test_a_connection_on_which_nothing_was_asked_is_between_answers() -> None:
    assert AnswerFraming().between


@pytest.mark.parametrize("answer", WHOLE)
def test_the_last_answer_says_that_it_is_the_last(answer: bytes) -> None:
    framing = AnswerFraming()
    framing.asked(REQUEST)
    assert framing.answered(answer) == answer
    assert not framing.announced
    framing.asked(REQUEST)
    passed = framing.answered(answer, last=True)
    assert passed.count(b"\r\nConnection: close\r\n") == 1
    assert passed.replace(b"Connection: close\r\n", b"") == answer
    assert framing.announced
    assert framing.between


def test_an_answer_that_has_begun_is_not_the_last_and_the_next_one_says_so() -> None:
    framing = AnswerFraming()
    framing.asked(REQUEST)
    framing.answered(SIZED[:-2])
    assert framing.answered(SIZED[-2:], last=True) == SIZED[-2:]
    assert framing.between
    assert not framing.announced
    framing.asked(REQUEST)
    framing.answered(SIZED, last=True)
    assert framing.announced
