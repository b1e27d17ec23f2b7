"""Faults of a page that a parser can find: tags, references, headings, pictures and tables."""

from __future__ import annotations

import re
from html.parser import HTMLParser

VOID = {"meta", "link", "img", "br", "hr", "input", "wbr"}
HEADINGS = {f"h{level}": level for level in range(1, 7)}


class Page(HTMLParser):
    """Page with its faults, text of the first screen, ids and references."""

    def __init__(self, text):
        super().__init__()
        self.faults, self.open, self.ids, self.targets = [], [], [], []
        self.levels, self.alts, self.headers, self.captions = [], [], 0, 0
        self.tables, self.words, self.title = 0, [], ""
        self.feed(text)
        self.close()
        self.faults += [f"<{tag}> is not closed" for tag in self.open]
        if not text.lstrip().lower().startswith("<!doctype html>"):
            self.faults.append("no doctype")
        self._check_references()

    def handle_starttag(self, tag, attrs):
        found = dict(attrs)
        if tag not in VOID:
            self.open.append(tag)
        if "id" in found:
            self.ids.append(found["id"])
        self.targets += [
            found[name] for name in ("href", "src", "aria-labelledby") if name in found
        ]
        if tag in {"script", "iframe", "object"} or any(name.startswith("on") for name in found):
            self.faults.append(f"<{tag}> runs code")
        if tag == "html" and not found.get("lang"):
            self.faults.append("no language")
        if tag == "img":
            self.alts.append(found.get("alt") or "")
        self.tables += tag == "table"
        # a caption outside the table is not cut off where the table scrolls
        self.captions += tag == "caption" or (tag == "table" and "aria-labelledby" in found)
        if tag == "th" and found.get("scope") not in {"row", "col"}:
            self.faults.append("a header of a table has no scope")
        if tag in HEADINGS:
            self.levels.append(HEADINGS[tag])

    def handle_endtag(self, tag):
        if not self.open or self.open.pop() != tag:
            self.faults.append(f"</{tag}> closes another tag")

    def handle_data(self, data):
        if "style" in self.open:
            if re.search(r"url\(|@import", data):
                self.faults.append("a style loads a file")
        elif "title" in self.open:
            self.title += data
        else:
            self.words.append(data)

    @property
    def text(self):
        return re.sub(r"\s+", " ", " ".join(self.words))

    def _check_references(self):
        for target in self.targets:
            is_inside = target.startswith("#") and target[1:] in self.ids
            if not (is_inside or target in self.ids or target.startswith("data:")):
                self.faults.append(f"refers to {target[:60]}")
        if len(set(self.ids)) < len(self.ids):
            self.faults.append("an id occurs twice")
        if self.levels[:1] != [1] or self.levels.count(1) != 1:
            self.faults.append("the page has not one first heading")
        for one, other in zip(self.levels, self.levels[1:], strict=False):
            if other > one + 1:
                self.faults.append(f"h{other} follows h{one}")
        if any(len(alt.split()) < 4 for alt in self.alts):
            self.faults.append("a picture has no text")
        if self.captions != self.tables:
            self.faults.append("a table has no caption")


def first_screen(text):
    """Return the words before the sections."""
    return Page(text.split("<nav", maxsplit=1)[0]).text
