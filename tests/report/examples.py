"""The example report that ships with the repository, and a parser of what pages are made of."""

import shutil
from html.parser import HTMLParser
from pathlib import Path

EXAMPLE = Path(__file__).resolve().parents[2] / "simulations" / "examples" / "heart_disease"
VOID = {"meta", "img", "br", "hr", "link", "input"}


def copy_example(folder: Path) -> Path:
    return Path(shutil.copytree(EXAMPLE, folder / "heart_disease"))


class Page(HTMLParser):
    """Start tags with their attributes and open ancestors, and whether tags are balanced."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None], tuple[str, ...]]] = []
        self.words: list[tuple[str, str]] = []
        self._open: list[str] = []
        self.feed(text)
        self.close()
        assert not self._open, self._open

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs), tuple(self._open)))
        if tag not in VOID:
            self._open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.tags.append((tag, dict(attrs), tuple(self._open)))

    def handle_endtag(self, tag):
        assert self._open.pop() == tag

    def handle_data(self, data):
        if self._open:
            self.words.append((self._open[-1], data))

    def find(self, *names: str) -> list[dict[str, str | None]]:
        return [attributes for tag, attributes, _ in self.tags if tag in names]
