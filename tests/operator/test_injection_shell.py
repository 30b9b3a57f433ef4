"""What counts as one plain command under a shell, read as a real shell reads it."""

import shutil
import subprocess
from pathlib import Path

import pytest
from hypothesis import HealthCheck, assume, given, reject, settings
from hypothesis import strategies as st

from inference_cache_operator.injection import shell

VARIABLES = {"KNOWN": "a b", "ONE": "1", "EMPTY": "", "LATER": None}
PLAIN = {
    "vllm serve m": ["vllm", "serve", "m"],
    "  vllm\tserve   m \n\n": ["vllm", "serve", "m"],
    "\nvllm serve m": ["vllm", "serve", "m"],
    "vllm \\\n serve \\\n m \\\n": ["vllm", "serve", "m"],
    "vllm 'a;b' \"c|d\" e\\ f": ["vllm", "a;b", "c|d", "e f"],
    "vllm '' \"\" x": ["vllm", "", "", "x"],
    'vllm "a\\"b" "\\$x" "\\n"': ["vllm", 'a"b', "$x", "\\n"],
    "vllm --a='{\"b\": [1, 2]}'": ["vllm", '--a={"b": [1, 2]}'],
    "vllm $KNOWN ${ONE} x$EMPTY": ["vllm", "a", "b", "1", "x"],
    'vllm "$KNOWN" $EMPTY "$EMPTY"': ["vllm", "a b", ""],
    "vllm a#b 5$ $": ["vllm", "a#b", "5$", "$"],
    'vllm "$LATER" ${LATER:-x} $OTHER "$@"': ["vllm", "$LATER", "${LATER:-x}", "$OTHER", "$@"],
}
NOT_PLAIN = [
    "a; b", "a & b", "a && b", "a | b", "a || b", "a > f", "a < f", "a 2>&1", "(a)", "a $(b)", "a `b`", 'a "$(b)"', 'a "`b`"',
    "a # b", "a\nb", "a 'b", 'a "b', "a \\", "a\\ ", "a $((1))", "a ${x:-$(b)}", "a $'b'", "a \0", "a $\\\nb", "a $b\\\nc",
]  # fmt: skip


@pytest.mark.parametrize(("text", "words"), PLAIN.items())
def test_a_plain_command_is_read_as_the_shell_reads_it(text: str, words: list[str]) -> None:
    assert [word.text for word in shell.split(text, VARIABLES)] == words


def test_what_is_not_known_yet_is_marked() -> None:
    known = {word.text: word.known for word in shell.split("vllm $ONE $LATER --x=${OTHER}", VARIABLES)}
    assert known == {"vllm": True, "1": True, "$LATER": False, "--x=${OTHER}": False}


@pytest.mark.parametrize("text", NOT_PLAIN)
def test_anything_more_is_refused(text: str) -> None:
    with pytest.raises(shell.NotPlain):
        shell.split(text, VARIABLES)


@pytest.mark.parametrize("text", PLAIN)
def test_an_appended_argument_becomes_the_last_word_and_can_be_removed(text: str) -> None:
    longer = shell.append(text, " --port=18000")
    assert [word.text for word in shell.split(longer, VARIABLES)] == [*PLAIN[text], "--port=18000"]
    assert shell.remove(longer, " --port=18000") == text


def test_removing_what_is_not_there_changes_nothing() -> None:
    assert shell.remove("vllm serve m", " --port=18000") == "vllm serve m"


PIECES = st.sampled_from([*"ab-=%,:/.'\"\\$;&|<>()`#{}\n\t ", "'", '"', " ", "\\\n", "$ONE", "${KNOWN}", "$EMPTY", "x y", "'a b'", '"c d"'])
SHELLS = ("sh", "bash")


@pytest.mark.slow
@settings(max_examples=400, suppress_health_check=list(HealthCheck))
@given(text=st.lists(PIECES, max_size=14).map("".join))
def test_every_text_that_counts_as_plain_has_the_words_that_real_shells_make(text: str, tmp_path: Path) -> None:
    whole = f"vllm {text}"
    variables = {name: value for name, value in VARIABLES.items() if value is not None}
    try:
        words = shell.split(whole, variables)
    except shell.NotPlain:
        reject()
    assume(all(word.known for word in words))
    longer = shell.append(whole, " --port=18000")
    expected = [*(word.text for word in words[1:]), "--port=18000"]
    for name in SHELLS:
        # Only bash takes {a,b} apart.
        if name != "bash" or "{" not in whole:
            assert _words_by(name, longer, variables, tmp_path) == expected, name


def _words_by(shell_name: str, text: str, variables: dict[str, str], folder: Path) -> list[str]:
    """What a program named vllm gets as arguments."""
    vllm = folder / "vllm"
    vllm.write_text("#!/bin/sh\nfor word; do printf '%s\\0' \"$word\"; done\n")
    vllm.chmod(0o755)
    program = shutil.which(shell_name)
    assert program is not None
    environment = {"PATH": str(folder), **variables}
    done = subprocess.run([program, "-c", text], env=environment, cwd=folder, capture_output=True, text=True, timeout=60, check=True)
    assert done.stderr == ""
    return done.stdout.split("\0")[:-1]
