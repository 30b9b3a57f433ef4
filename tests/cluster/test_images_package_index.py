"""How a build is told where the packages are."""

from pathlib import Path

from tests.images import package_index


def test_a_variable_beats_a_file_and_a_later_file_an_earlier_one(tmp_path: Path) -> None:
    (tmp_path / "a").write_text("[global]\nindex-url = https://a.example/simple\ncert = /a.pem\nquiet = 1\n")
    (tmp_path / "b").write_text("[global]\ncert = /b.pem\n")
    told = package_index.settings({"PIP_INDEX_URL": "https://c.example/simple"}, [tmp_path / "a", tmp_path / "b", tmp_path / "none"])
    assert told == {"timeout": "180", "index-url": "https://c.example/simple", "cert": "/b.pem"}


def test_nothing_said_means_the_public_index(tmp_path: Path) -> None:
    assert package_index.settings({}, []) == {"timeout": "180"}
