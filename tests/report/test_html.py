"""The page as markup: landmarks, headings, tables, pictures; nothing raw or from elsewhere."""

import json
import re
from itertools import pairwise
from xml.etree import ElementTree

import pytest

from fedtrain.report.document import SignedReport
from fedtrain.report.files import REPORT, read_pictures, read_report, render_files
from fedtrain.report.html import render_page
from fedtrain.report.standards import SECTIONS
from tests.report.examples import EXAMPLE, Page

EVIL = '<script>alert("1")</script>|`[x](y)`&amp;'


@pytest.fixture(scope="module")
def signed() -> SignedReport:
    return read_report(EXAMPLE / REPORT)


@pytest.fixture(scope="module")
def text(signed) -> str:
    return render_page(signed, read_pictures(EXAMPLE, signed.report))


@pytest.fixture(scope="module")
def page(text) -> Page:
    return Page(text)


def test_page_needs_nothing_from_elsewhere(text, page):
    assert not page.find("script", "link", "iframe", "object")
    assert "@import" not in text
    assert not re.findall(r"url\(", text)
    sources = [tag.get("src") or "" for tag in page.find("img")]
    assert sources
    assert all(source.startswith("data:") for source in sources)
    assert all((tag["href"] or "").startswith("#") for tag in page.find("a"))


def test_links_lead_to_parts_of_the_page(page):
    names = [attributes["id"] for _, attributes, _ in page.tags if "id" in attributes]
    assert len(names) == len(set(names))
    assert {tag["href"] for tag in page.find("a")} <= {f"#{name}" for name in names}


def test_headings_are_in_order_and_sections_are_landmarks(page):
    levels = [int(tag[1]) for tag, _, _ in page.tags if re.fullmatch(r"h[1-6]", tag)]
    assert levels[0] == 1
    assert levels.count(1) == 1
    assert all(after <= before + 1 for before, after in pairwise(levels))
    assert [len(page.find(name)) for name in ("header", "main", "nav", "footer")] == [1, 1, 1, 1]
    sections = page.find("section")
    assert [tag["id"] for tag in sections] == list(SECTIONS)
    assert all(tag["aria-labelledby"] for tag in sections)


def test_sections_come_in_the_order_of_an_officers_questions(page):
    titles = [words for tag, words in page.words if tag == "h2" and words[0].isdigit()]
    assert [title.split(".")[0] for title in titles] == [str(n) for n in range(1, 13)]


def test_tables_have_captions_and_scopes(page):
    assert len(page.find("caption")) == len(page.find("table")) > 10
    assert all("scope" in tag for tag in page.find("th"))


def test_pictures_say_in_words_what_they_show(text, page):
    pictures = re.findall(r"<svg.*?</svg>", text, re.DOTALL)
    assert len(pictures) >= 3
    for picture in pictures:
        tree = ElementTree.fromstring(picture)
        assert [child.tag for child in tree[:2]] == ["title", "desc"]
        assert len(tree[1].text or "") > 40
        assert not re.search(r"nan|inf\b", picture)
    assert all(tag["alt"] for tag in page.find("img"))


def test_lines_differ_without_colour(text):
    style = text[: text.index("</style>")]
    assert "stroke-dasharray" in style
    assert "prefers-color-scheme: dark" in style
    assert "@media print" in style


def replace_names(tree):
    """Put markup in place of every text that a run's makers choose."""
    tree["report"]["run"] |= {"name": EVIL, "model": EVIL}
    for site in tree["report"]["spending"]["sites"] + tree["report"]["utility"]["sites"]:
        site["site"] = EVIL
    for finding in tree["report"]["audit"]["findings"]:
        finding |= {"title": EVIL, "sentence": EVIL, "figures": {EVIL: EVIL}}
    for signature in tree["report"]["signed"]:
        signature["who"] = EVIL
    tree["report"]["config"]["toml"] = EVIL
    return tree


def test_texts_of_others_are_never_markup(signed):
    tree = replace_names(signed.model_dump(mode="json"))
    evil = SignedReport.model_validate_json(json.dumps(tree))
    files = render_files(evil, {})
    assert not Page(files["report.html"]).find("script")
    assert "<script" not in files["report.html"]
    assert "<script" not in files["model_card.md"]
    body = files["model_card.md"].split("---\n", 2)[2]
    assert "](y)" not in body.replace("\\]", "")


def test_report_with_several_guarantees_names_each(signed):
    one = signed.report.guarantees[0]
    meaning = signed.report.meanings[0]
    two = one.model_copy(update={"prefix": "site_", "unit": "site", "name": "one whole site"})
    report = signed.report.model_copy(
        update={
            "guarantees": (one, two),
            "meanings": (meaning, meaning.model_copy(update={"prefix": "site_"})),
        }
    )
    page = Page(render_page(signed.model_copy(update={"report": report})))
    headings = [words for tag, words in page.words if tag == "h3"]
    assert any("one whole site" in words for words in headings)
