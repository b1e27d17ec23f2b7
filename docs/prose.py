"""Check and measure our sentences: ``python -m docs.prose [path ...]``.

Prints every fault that a program can find, the median length of sentences in the README and in the
guide, and the number of docstring lines per line of code. With paths, only faults of these files.
"""

from __future__ import annotations

import ast
import io
import json
import re
import sys
import tokenize
from pathlib import Path
from statistics import median
from typing import NamedTuple

ROOT = Path(__file__).parent.parent
LONGEST = 35
"""Most words of a sentence."""

FIRST_WORDS = ("What", "Whether", "How", "Where", "Of", "Which")
"""Words that no summary line begins with."""

BANNED = (
    "asked", "told", "of which", "is none", "is no", "are none", "alive", "dead", "strange",
    "foretell", "foretells", "lend", "lends", "lent", "lender", "lenders", "grown", "land", "lands",
    "ever", "as one that",
)  # fmt: skip
# None is a value of Python's
_BANNED = re.compile(rf"\b(?!(?:is|are) None)(?i:{'|'.join(BANNED)})\b")
_CODE = re.compile(r"``[^`]+``|`[^`]+`|:[a-z]+:`[^`]+`")
_BARE_NUMBER = re.compile(r"(?<![\w.\])}/*,])\.\d(?!\d*[efg%](?:\W|$))")
_END = re.compile(r"(?<=[.!?])[)\"*_]*\s+(?=[(\"*_`\[]?[A-Z0-9β`])")


class Fault(NamedTuple):
    """A fault, by file and line."""

    path: Path
    line: int
    reason: str


class Passage(NamedTuple):
    """Text between blank lines, tables or code, and the line where it begins."""

    line: int
    text: str


def passages_of_markdown(text: str) -> list[Passage]:
    """Return the prose of a page: no code, formulas, tables, headings, pictures or directives."""
    blocks: list[Passage] = []
    lines: list[str] = []
    fence, start = "", 1
    for number, line in enumerate([*text.splitlines(), ""], 1):
        stripped = line.strip()
        mark = re.match(r"(`{3,}|~{3,}|\$\$)", stripped)
        if fence:
            # a formula may end at the end of its last line
            is_end = stripped.endswith(fence) and (fence == "$$" or stripped.startswith(fence))
            fence = "" if is_end else fence
            stripped = ""
        elif mark and not re.fullmatch(r"\$\$.+\$\$", stripped):
            fence, stripped = mark.group(1), ""
        is_item = re.match(r"(?:[-*+]|\d+\.|>)\s", stripped)
        is_prose = stripped and not re.match(r"(?:[#|<]|!\[|\$\$|:{3,}|\([\w-]+\)=|:\w)", stripped)
        if lines and (not is_prose or is_item):
            blocks.append(Passage(start, " ".join(lines)))
            lines = []
        if is_prose:
            start = start if lines else number
            lines.append(re.sub(r"^(?:[-*+]|\d+\.|>)\s+", "", stripped))
    return blocks


def sentences(text: str) -> list[str]:
    """Return the sentences of a passage; a link is its text."""
    text = re.sub(r"!?\[([^\]]*)\]\([^)]*\)", r"\1", text)
    text = re.sub(r"\[([^\]]*)\]\{[^}]*\}|\{[\w:]+\}(`[^`]*`)", r"\1\2", text)
    return [part for part in _END.split(text.strip()) if re.search(r"\w", part)]


def n_words(sentence: str) -> int:
    """Return the number of words; code in backquotes is one."""
    return len(re.findall(r"[\w$`][^\s]*", _CODE.sub("code", sentence)))


def faults_of_text(path: Path, passages: list[Passage], longest: int | None) -> list[Fault]:
    """Return banned words, bare decimals and long sentences."""
    found = []
    for passage in passages:
        plain = _CODE.sub("code", passage.text)
        for match in _BANNED.finditer(plain):
            found.append(Fault(path, passage.line, f"the word {match.group()!r}"))
        for match in _BARE_NUMBER.finditer(plain):
            after = plain[match.start() : match.start() + 6]
            found.append(Fault(path, passage.line, f"the number {after!r}: write 0{after!r}"))
        for sentence in sentences(passage.text) if longest else []:
            if n_words(sentence) > longest:
                found.append(
                    Fault(path, passage.line, f"{n_words(sentence)} words: {sentence[:60]}")
                )
    return found


def passages_of_python(source: str) -> list[Passage]:
    """Return docstrings without examples, comments, and every other text of several words."""
    found, seen = [], set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant):
            seen.add(node.value)
            text = node.value.value
            found.append(
                Passage(node.lineno, _without_examples(text) if isinstance(text, str) else "")
            )
        elif isinstance(node, ast.JoinedStr):
            seen.update(part for value in node.values for part in ast.walk(value))
            parts = [str(v.value) if isinstance(v, ast.Constant) else "`x`" for v in node.values]
            found.append(Passage(node.lineno, "".join(parts)))
        elif isinstance(node, ast.Constant) and node not in seen and " " in str(node.value):
            found.append(Passage(node.lineno, str(node.value)))
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        if token.type == tokenize.COMMENT:
            found.append(Passage(token.start[0], token.string.lstrip("# ")))
    return found


def faults_of_python(path: Path, source: str) -> list[Fault]:
    """Return faults of summary lines, and of all text of a module."""
    found = faults_of_text(path, passages_of_python(source), None)
    kinds = ast.Module, ast.ClassDef, ast.FunctionDef
    for node in ast.walk(ast.parse(source)):
        summary = (ast.get_docstring(node) or "") if isinstance(node, kinds) else ""
        if summary.split(" ")[0].rstrip(",.:") in FIRST_WORDS:
            found.append(Fault(path, getattr(node, "lineno", 1), f"summary: {summary[:60]}"))
    return found


def _without_examples(docstring: str) -> str:
    text = re.split(r"^ *Examples\n *-{8}\n", docstring, flags=re.MULTILINE)[0]
    return re.sub(r"^\s*(?:>>>|\.\. math).*$", "", text, flags=re.MULTILINE)


def faults(path: Path) -> list[Fault]:
    """Return the faults of a page, a notebook or a module."""
    text = path.read_text()
    if path.suffix == ".py":
        return faults_of_python(path, text)
    if path.suffix == ".ipynb":
        cells = [cell for cell in json.loads(text)["cells"] if cell["cell_type"] == "markdown"]
        return [
            fault
            for cell in cells
            for fault in faults_of_text(
                path, passages_of_markdown("".join(cell["source"])), LONGEST
            )
        ]
    return faults_of_text(path, passages_of_markdown(text), LONGEST)


def pages() -> list[Path]:
    """Return everything that is checked."""
    folders = {"src": "*.py", "tutorials": "*.[ip][py]*", "docs/guide": "*.md"}
    found = [path for name, glob in folders.items() for path in (ROOT / name).rglob(glob)]
    found += [
        *(ROOT / "docs").glob("*.md"),
        ROOT / "README.md",
        *(ROOT / "benchmarks").glob("*.py"),
    ]
    return sorted(path for path in found if path.name != "changelog.md" and path.is_file())


def measured(paths: list[Path]) -> tuple[float, float]:
    """Return median words of a sentence, and the share with a colon or a semicolon."""
    found = [
        s
        for path in paths
        for p in passages_of_markdown(path.read_text())
        for s in sentences(p.text)
    ]
    pauses = [bool(re.search(r"[:;]", _CODE.sub("code", s).replace("://", ""))) for s in found]
    return median(map(n_words, found)), sum(pauses) / len(found)


def docstring_lines(paths: list[Path]) -> float:
    """Return docstring lines per line of code; blank lines and comments are neither."""
    n_text = n_code = 0
    for path in paths:
        source = path.read_text()
        lines = {n for n, line in enumerate(source.splitlines(), 1) if line.strip()}
        text = set()
        for node in ast.walk(ast.parse(source)):
            if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant):
                text |= set(range(node.lineno, (node.end_lineno or node.lineno) + 1)) & lines
        bare = {n for n, line in enumerate(source.splitlines(), 1) if line.strip().startswith("#")}
        n_text, n_code = n_text + len(text), n_code + len(lines - text - bare)
    return n_text / n_code


def main(*names: str) -> int:
    """Print faults, and without names the measures; return the number of faults."""
    chosen = [
        p
        for name in names
        for p in ([Path(name)] if Path(name).is_file() else sorted(Path(name).rglob("*.*")))
    ]
    paths = [p.resolve() for p in chosen if p.suffix in (".py", ".md", ".ipynb")] or pages()
    found = [fault for path in paths for fault in faults(path)]
    for fault in found:
        print(f"{fault.path.relative_to(ROOT)}:{fault.line}: {fault.reason}")
    if not names:
        for name, part in (
            ("README", [ROOT / "README.md"]),
            ("guide", [*(ROOT / "docs/guide").glob("*.md")]),
        ):
            length, share = measured(part)
            print(
                f"{name}: {length:g} words in a sentence (median), {share:.0%} with a colon or semicolon"
            )
        modules = sorted((ROOT / "src").rglob("*.py"))
        print(f"src: {docstring_lines(modules):.2f} docstring lines per line of code")
    return len(found)


if __name__ == "__main__":
    sys.exit(bool(main(*sys.argv[1:])))
