"""One page, as Markdown and as HTML that needs nothing beside it."""

from __future__ import annotations

from html.parser import HTMLParser

import pytest

from seedbed.visual.page import Heading, Page, Paragraph, Picture, Table, Verbatim

NASTY = "<script>alert(1)</script> & \"x\" 'y'"
VOID = {"meta", "br", "img"}


class Reader(HTMLParser):
    """Checks that tags are closed in order, and keeps the text by tag."""

    def __init__(self, text):
        super().__init__(convert_charrefs=True)
        self.open, self.texts, self.tags = [], [], []
        self.feed(text)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag, attributes):
        self.tags.append((tag, dict(attributes)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attributes):
        self.tags.append((tag, dict(attributes)))

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.texts.append((self.open[-1] if self.open else "", data))


def written(folder, *blocks, title="Report"):
    Page(title, list(blocks)).write(folder, "report")
    return (folder / "report.md").read_text("utf-8"), Reader((folder / "report.html").read_text("utf-8"))


def test_every_block_is_in_both(tmp_path):
    picture = Picture("loss", '<svg xmlns="http://www.w3.org/2000/svg"></svg>', "Loss over steps")
    blocks = [Heading("Stages"), Paragraph("Two of them."), Table(["stage", "loss"], [["one", "2.5"]])]
    markdown, html = written(tmp_path, *blocks, Verbatim("said\n  this"), picture)
    assert markdown == (
        "# Report\n\n## Stages\n\nTwo of them.\n\n| stage | loss |\n| --- | ---: |\n| one | 2.5 |\n\n"
        "```text\nsaid\n  this\n```\n\n![Loss over steps](loss.svg)\n"
    )
    expected = [("title", "Report"), ("h1", "Report"), ("h2", "Stages"), ("p", "Two of them."), ("th", "stage")]
    for entry in [*expected, ("th", "loss"), ("td", "one"), ("td", "2.5"), ("pre", "said\n  this")]:
        assert entry in html.texts
    assert "svg" in [tag for tag, _ in html.tags]


def test_the_picture_is_a_file_beside_the_markdown(tmp_path):
    written(tmp_path, Picture("loss", "<svg></svg>", "Loss"))
    assert (tmp_path / "loss.svg").read_text() == "<svg></svg>"


def test_the_html_loads_nothing_from_elsewhere(tmp_path):
    _, html = written(tmp_path, Picture("loss", "<svg></svg>", "Loss"), Table(["a"], [["b"]]))
    assert not [attributes for _, attributes in html.tags if {"src", "href"} & attributes.keys()]
    assert not {"script", "link", "img"} & {tag for tag, _ in html.tags}


@pytest.mark.parametrize(
    ("block", "tag"),
    [
        (Heading(NASTY), "h2"),
        (Paragraph(NASTY), "p"),
        (Table([NASTY, "b"], [["c", "d"]]), "th"),
        (Table(["a", "b"], [["c", NASTY]]), "td"),
        (Verbatim(NASTY), "pre"),
    ],
    ids=["heading", "paragraph", "header", "cell", "verbatim"],
)
def test_text_is_text_in_html(tmp_path, block, tag):
    _, html = written(tmp_path, block)
    assert (tag, NASTY) in html.texts
    assert "script" not in [name for name, _ in html.tags]


def test_a_title_is_text_in_html(tmp_path):
    _, html = written(tmp_path, title=NASTY)
    assert ("h1", NASTY) in html.texts and ("title", NASTY) in html.texts


@pytest.mark.parametrize("inside", ["a ``` b", "````", "```` and ```", "`````text\nx\n`````"])
def test_a_fence_is_longer_than_any_inside(tmp_path, inside):
    markdown, _ = written(tmp_path, Verbatim(inside))
    lines = markdown.splitlines()
    fence = lines[2].removesuffix("text")
    assert set(fence) == {"`"} and fence not in inside
    assert lines[-1] == fence
    assert "\n".join(lines[3:-1]) == inside


def test_numbers_stand_on_the_right_and_names_on_the_left(tmp_path):
    markdown, html = written(tmp_path, Table(["skill", "right", "asked"], [["copying", "9", "10"]]))
    assert "| --- | ---: | ---: |" in markdown
    cells = [attributes.get("class") for tag, attributes in html.tags if tag in ("th", "td")]
    assert cells == [None, "number", "number"] * 2


def test_a_table_of_words_stands_on_the_left(tmp_path):
    markdown, html = written(tmp_path, Table(["asked", "said"], [["a", "b"]], numbers=False))
    assert "| --- | --- |" in markdown
    assert not [attributes for tag, attributes in html.tags if tag == "td" and attributes]


@pytest.mark.parametrize("nasty", ["a|b", "line\nbreak", "a\r\nb", "|", "\\|"])
def test_a_cell_stays_one_cell_in_markdown(nasty):
    for table in (Table(["x", "y"], [[nasty, "1"], ["z", "2"]]), Table([nasty, "y"], [["a", "1"], ["z", "2"]])):
        lines = table.markdown(None).splitlines()
        assert len(lines) == 4
        for line in lines:
            assert line.replace("\\|", "").count("|") == 3
