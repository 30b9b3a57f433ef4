"""The canonical prompt: what is folded, what is kept, and that folding is safe and quick."""

import time

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from inference_cache_contract.canonical import MAX_LENGTH, Normalize, canonical

ALL = Normalize()
PIECES = st.sampled_from(
    [
        "What",
        "is",
        " ",
        "  ",
        "\n",
        "\t",
        "`Foo  b`",
        '"Hi  You"',
        "```\nX\n```",
        "?",
        "...",
        "!",
        "5",
        "US",
        "A",
        "~~~",
        "`",
        '"',
        "=",
        "é",
        "Σ",
        "İ",
    ]
)


@pytest.mark.parametrize(
    ("prompt", "expected"),
    [
        pytest.param("  What   is\tDNS \n", "what is DNS", id="runs-of-white-space"),
        pytest.param("What is\nKubernetes?", "what is kubernetes", id="wrapped-line"),
        pytest.param("What is Kubernetes ?!", "what is kubernetes", id="final-marks"),
        pytest.param("Hi. How are you?", "hi. how are you", id="only-the-last-sentence"),
        pytest.param("Is it 1.5 or 15?", "is it 1.5 or 15", id="decimal-point"),
        pytest.param("Is it -5?", "is it -5", id="sign"),
        pytest.param("Compute 5!", "compute 5!", id="factorial"),
        pytest.param("What is n!?", "what is n!", id="factorial-of-a-letter"),
        pytest.param("Go on: 1, 2, 3...", "go on: 1, 2, 3...", id="series"),
        pytest.param("Well...", "well", id="ellipsis-after-a-word"),
        pytest.param("Explain .*?", "explain .*?", id="pattern"),
        pytest.param("What is C++?", "what is C++", id="sign-after-a-letter"),
        pytest.param("What is C#?", "what is C#", id="sharp"),
        pytest.param("Install Node.js!", "install Node.js", id="dot-inside"),
        pytest.param("Is the US big?", "is the US big", id="acronym"),
        pytest.param("help us, Please", "help us, please", id="word-like-an-acronym"),
        pytest.param("WHAT IS THE US?", "what is the us", id="shouting"),
        pytest.param("I'm sure I'll use JavaScript", "i'm sure i'll use JavaScript", id="mixed-case"),
        pytest.param("Open /Users/Me/README now", "open /Users/Me/README now", id="path"),
        pytest.param("Run --Force", "run --Force", id="option"),
        pytest.param("Take 5 M of it", "take 5 M of it", id="unit"),
        pytest.param("A Day-To-Day plan", "a day-to-day plan", id="hyphens"),
        pytest.param("Call Print() Twice", "call Print() twice", id="call"),
        pytest.param("Run `Foo  Bar` Please?", "run `Foo  Bar` please", id="code-in-a-line"),
        pytest.param('Translate "Hello  World".', 'translate "Hello  World"', id="quotation"),
        pytest.param("Fix:\n```py\nX  =  1\n```\nThanks!", "fix:\n```py\nX  =  1\n```\nthanks", id="fence"),
        pytest.param("Fix:\n```py\nX  =  1\n", "fix: ```py\nX  =  1", id="open-fence"),
        pytest.param("  def F():\n      Return 1\n", "  def F():\n      Return 1", id="bare-code"),
        pytest.param("X = Y?", "X = Y?", id="formula"),
        pytest.param("Sort:\nb  a\nc", "sort:\nb a\nc", id="lines-of-a-list"),
        pytest.param("???", "???", id="marks-alone"),
        pytest.param("", "", id="nothing"),
        pytest.param("Что это？", "что это", id="other-scripts"),
    ],
)
def test_prompts_fold_to(prompt: str, expected: str) -> None:
    assert canonical(prompt, ALL) == expected


@pytest.mark.parametrize(
    ("one", "other"),
    [
        pytest.param("What is 1.5?", "What is 15?", id="decimal"),
        pytest.param("Is -5 even?", "Is 5 even?", id="sign"),
        pytest.param("Is it for US?", "Is it for us?", id="acronym"),
        pytest.param("What is 5!", "What is 5", id="factorial"),
        pytest.param("C++", "C", id="language"),
        pytest.param("`a  b`", "`a b`", id="code"),
        pytest.param("a\n  b", "a\nb", id="indentation"),
        pytest.param("x\ty\n1\t\t2", "x\ty\n1\t2", id="columns"),
        pytest.param("Sort:\nb a\nc", "Sort:\nb\na c", id="lines"),
    ],
)
def test_prompts_that_ask_different_things_stay_apart(one: str, other: str) -> None:
    assert canonical(one, ALL) != canonical(other, ALL)


@pytest.mark.parametrize(
    ("rules", "expected"),
    [
        pytest.param(Normalize(False, False, False), " What  IS it? ", id="none"),
        pytest.param(Normalize(True, False, False), "What IS it?", id="whitespace"),
        pytest.param(Normalize(False, True, False), " what  IS it? ", id="case"),
        pytest.param(Normalize(True, False, True), "What IS it", id="whitespace-and-punctuation"),
        pytest.param(Normalize(True, True, True), "what IS it", id="all"),
    ],
)
def test_each_rule_can_be_switched_off(rules: Normalize, expected: str) -> None:
    assert canonical(" What  IS it? ", rules) == expected


def test_punctuation_alone_leaves_white_space() -> None:
    assert canonical("Why  not?", Normalize(whitespace=False, case=False)) == "Why  not"


def test_a_prompt_too_long_to_fold_is_its_own_canonical_form() -> None:
    prompt = "Why? " * MAX_LENGTH
    assert canonical(prompt, ALL) is prompt


@given(st.text(max_size=120), st.booleans(), st.booleans(), st.booleans())
def test_folding_twice_changes_nothing(text: str, whitespace: bool, case: bool, punctuation: bool) -> None:
    rules = Normalize(whitespace, case, punctuation)
    once = canonical(text, rules)
    assert canonical(once, rules) == once


@example("What\nWhat\n?", True, False, True)
@example("A?", True, True, True)
@given(st.lists(PIECES, max_size=14).map("".join), st.booleans(), st.booleans(), st.booleans())
def test_folding_code_and_quotations_twice_changes_nothing(text: str, whitespace: bool, case: bool, punctuation: bool) -> None:
    rules = Normalize(whitespace, case, punctuation)
    once = canonical(text, rules)
    assert canonical(once, rules) == once


@pytest.mark.parametrize(
    "piece", [" ", "a ", "A ", "\n", "\t\n", '"', '"a', "`", "` `", "``a", "~", "!", "a!", "a\n", "Aa-", "'", "é ", "A"]
)
def test_hostile_prompts_fold_in_bounded_time(piece: str) -> None:
    prompt = (piece * MAX_LENGTH)[:MAX_LENGTH]
    started = time.thread_time()
    canonical(prompt, ALL)
    assert time.thread_time() - started < 0.05
    assert canonical(piece * 1_000_000, ALL) == piece * 1_000_000
