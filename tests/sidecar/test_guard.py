"""The promises of the lexical guard: symmetric, total, quick, and its rules' names."""

import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from inference_cache_sidecar.guard.lexical import MAX_COMPARED, RULES, LexicalGuard
from inference_cache_sidecar.guard.protocol import Guard

GUARD: Guard = LexicalGuard()

VOCABULARY = (
    "how what is the a not never to from in 5 -5 1.5 15 mg g USD EUR Paris cat cats buy sell open close before after don't can't `x` "
    '"hi there" v1.2 two hundred and one he her US us May monday ? . , ! C++ e-mail und der 你好 é & / - node.js 50% $5 £5 II'
)
QUESTIONS = st.lists(st.sampled_from(VOCABULARY.split(" ")), max_size=12).map(" ".join)


@given(st.text(max_size=200), st.text(max_size=200))
def test_no_pair_of_texts_makes_it_raise_and_the_order_of_the_two_does_not_matter(one: str, other: str) -> None:
    assert GUARD.refusal(one, other, 1.0) == GUARD.refusal(other, one, 1.0)


@given(QUESTIONS, QUESTIONS)
def test_word_salad_is_judged_the_same_from_both_sides(one: str, other: str) -> None:
    assert GUARD.refusal(one, other, 0.95) == GUARD.refusal(other, one, 0.95)


@given(QUESTIONS)
def test_a_text_always_passes_beside_itself_with_other_white_space(text: str) -> None:
    assert GUARD.refusal(text, text.replace(" ", "  ") + "\n", 1.0) is None or '"' in text


def test_lone_surrogates_and_control_characters_are_texts_too() -> None:
    assert GUARD.refusal("\ud800 what is \x00 x?", "what is \udfff y?", 0.99) is not None


@pytest.mark.parametrize(
    ("asked", "stored", "rule"),
    [
        pytest.param("What is 1.5 plus 2?", "What is 15 plus 2?", "number", id="number"),
        pytest.param("Is -5 even?", "Is 5 even?", "number", id="sign"),
        pytest.param("Is 5 mg enough?", "Is 5 g enough?", "unit", id="unit"),
        pytest.param("Are you open on Sunday?", "Are you open on Monday?", "date", id="date"),
        pytest.param("Should I eat it?", "Should I not eat it?", "negation", id="negation"),
        pytest.param("How do I enable it?", "How do I disable it?", "opposite", id="opposite"),
        pytest.param("Does Tom love Ann?", "Does Ann love Tom?", "order", id="order"),
        pytest.param("Send it to my account", "Send it from my account", "direction", id="direction"),
        pytest.param("What is in a.txt?", "What is in b.txt?", "identifier", id="identifier"),
        pytest.param("Where is Lima?", "Where is Oslo?", "entity", id="entity"),
        pytest.param("Is he in?", "Is she in?", "role", id="role"),
        pytest.param("When is it on?", "Where is it on?", "question", id="question"),
        pytest.param("Was ist ein Hund?", "Was ist eine Katze?", "language", id="language"),
        pytest.param("什么是数据库", "什么是数据", "language", id="script"),
        pytest.param("Can I feed it corn?", "Can I feed it soap?", "content", id="content"),
    ],
)
def test_a_refusal_names_its_rule(asked: str, stored: str, rule: str) -> None:
    refusal = GUARD.refusal(asked, stored, 0.99)
    assert refusal is not None
    assert refusal.rule == rule


def test_rule_names_are_short_words_that_carry_no_text_of_a_prompt() -> None:
    assert all(name.isalpha() and name.islower() and len(name) <= 12 for name, _ in RULES)


@pytest.mark.parametrize(
    ("asked", "stored"),
    [
        pytest.param("What is  DNS ?", "what is DNS", id="spelling"),
        pytest.param("Wie alt ist die Stadt?", "wie alt ist die Stadt", id="foreign-spelling"),
        pytest.param("(What is DNS?)", "What is DNS", id="brackets"),
    ],
)
def test_what_the_exact_tier_folds_passes(asked: str, stored: str) -> None:
    assert GUARD.refusal(asked, stored, 1.0) is None


@pytest.mark.parametrize(
    ("asked", "stored"),
    [
        pytest.param("What is -5 + 3?", "What is 5 + 3?", id="sign"),
        pytest.param("Is it for US?", "Is it for us?", id="acronym"),
        pytest.param("What is 5!?", "What is 5?", id="factorial"),
        pytest.param("Run `Foo` now", "Run `foo` now", id="code"),
    ],
)
def test_what_looks_alike_but_is_not_is_refused_even_at_similarity_one(asked: str, stored: str) -> None:
    assert GUARD.refusal(asked, stored, 1.0) is not None


def test_texts_too_long_to_compare_pass_only_if_equal_save_for_white_space() -> None:
    long = "word " * MAX_COMPARED
    assert GUARD.refusal(long, long + "\n", 1.0) is None
    refusal = GUARD.refusal(long, long + "more", 0.999)
    assert refusal is not None
    assert refusal.rule == "length"


@pytest.mark.parametrize(
    "piece", ["a ", "1", "1,", "'", '"a', "`", "-a", "a/", "not ", "and ", "two hundred ", "A b, ", "?", "to x from y "]
)
def test_hostile_texts_cost_no_more_than_their_length(piece: str) -> None:
    text = (piece * MAX_COMPARED)[: MAX_COMPARED - 1]
    started = time.thread_time()
    GUARD.refusal(text, text[::-1], 0.99)
    assert time.thread_time() - started < 0.1
