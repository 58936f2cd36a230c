"""The words of Dimorph are explained where a reader first meets them, and all of them in one list."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from support.pages import DOCS, ROOT, prose, quoted

GUIDES = DOCS / "guides"
CONCEPTS = DOCS / "concepts.md"
# Pages where a reader may begin, and who explains each word at its first use.
FIRST = [ROOT / "README.md", DOCS / "tutorial.md", GUIDES / "kernels.md", GUIDES / "variants.md"]
FIRST += [GUIDES / "frameworks.md"]
# Pages that send the reader to the list of words before they use one.
SENDING = [GUIDES / "cuda.md", GUIDES / "deployment.md"]

# Word -> its forms in a sentence.
WORDS = {
    "entry": r"entr(?:y|ies)",
    "case": r"cases?",
    "axis": r"ax[ie]s",
    "specialization": r"specializations?",
    "instantiation set": r"instantiation sets?",
    "variant": r"variants?",
    "functor": r"functors?",
    "config header": r"config headers?|generated header",
    "artifact": r"artifacts?",
    "store": r"stores?",
    "manifest": r"manifests?",
    "key": r"keys?",
    "target level": r"target levels?",
    "slot": r"slots?",
    "family": r"famil(?:y|ies) of",
    "DLPack": r"DLPack",
    "ragged": r"[Rr]agged",
    "log-sum-exp": r"log-sum-exp",
    "tile": r"tiles?",
}
# Attention has keys of its own, families of models besides those of kernels, and variants as its subject.
ELSEWHERE = {"variants.md": {"key"}, "frameworks.md": {"key", "variant", "family"}}
# Names in C++ that a reader meets in a block.
NAMES = ("Extra", "DM_HD")


def unexplained(text: str, forms: str) -> str | None:
    """Return the place where a word first stands, unless it is bold or a link there; None where it never stands."""
    text = re.sub(r"(?m)^#.*$", "", text)
    found = re.search(rf"(?<![\w`/.\-])(?:{forms})(?![\w(])", text)
    if not found:
        return None
    before = text[: found.start()]
    if before.count("**") % 2 or re.search(r"\[[^\]]*$", before):
        return None
    return " ".join(text[max(0, found.start() - 60) : found.end() + 40].split())


@pytest.mark.parametrize("page", FIRST, ids=lambda page: page.name)
def test_words_are_explained_where_they_first_stand(page: Path) -> None:
    words = {word: forms for word, forms in WORDS.items() if word not in ELSEWHERE.get(page.name, ())}
    found = {word: unexplained(prose(page), forms) for word, forms in words.items()}
    assert {word: place for word, place in found.items() if place} == {}


@pytest.mark.parametrize("page", SENDING, ids=lambda page: page.name)
def test_other_guides_begin_with_a_link_to_the_words(page: Path) -> None:
    beginning = prose(page).partition("\n## ")[0]
    assert "](../concepts.md#words)" in beginning


def test_the_list_has_every_word() -> None:
    listed = prose(CONCEPTS).partition("## Words")[2]
    rows = re.findall(r"^\| (.*?) \| .+ \|$", listed, re.MULTILINE)
    known = {name for row in rows for name in re.findall(r"\*\*`?([^*`]+)`?\*\*", row)}
    assert sorted((set(WORDS) | set(NAMES)) - known) == []
    assert {"kernel", "problem axis", "choice axis", "toolchain", "module", "policy", "unit"} <= known


@pytest.mark.parametrize("page", FIRST, ids=lambda page: page.name)
def test_names_in_blocks_are_explained_on_the_page(page: Path) -> None:
    text = page.read_text("utf-8")
    assert [name for name in NAMES if re.search(rf"\b{name}\b", text) and name not in quoted(prose(page))] == []


def test_a_word_without_an_explanation_is_found() -> None:
    assert unexplained("# A case\nA case **case**.\n", WORDS["case"]) == "A case **case**."
    assert unexplained("The **case**, which works; cases.\n", WORDS["case"]) is None
    assert unexplained("See the [keys](concepts.md#words); a key.\n", WORDS["key"]) is None
