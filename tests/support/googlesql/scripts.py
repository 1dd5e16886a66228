"""Scripts: their statements, and the ones of the scripting language that are not SQL."""

import re
from collections.abc import Iterator
from dataclasses import dataclass

# In order: comments, strings (those in three quotes first) and names in backquotes, the end of a statement.
_TOKEN = re.compile(
    r"""(?P<comment>--[^\n]*|\#[^\n]*|/\*.*?\*/)
    |'{3}(?:[^\\]|\\.)*?'{3}|"{3}(?:[^\\]|\\.)*?"{3}|'(?:[^'\\]|\\.)*'|"(?:[^"\\]|\\.)*"|`[^`]*`
    |(?P<end>;)""",
    re.VERBOSE | re.DOTALL,
)
_BLOCKS = {
    "IF", "ELSEIF", "ELSE", "END", "LOOP", "WHILE", "REPEAT", "UNTIL", "FOR", "CASE", "EXCEPTION", "BREAK", "LEAVE",
    "CONTINUE", "ITERATE", "RETURN", "RAISE", "CALL",
}  # fmt: skip
_NAMES = r"(?P<names>\w+(?:\s*,\s*\w+)*)"
_DECLARE = re.compile(
    rf"declare\s+{_NAMES}(?:\s+(?!default\b)(?P<type>.+?))?(?:\s+default\s+(?P<value>.+))?", re.I | re.S
)
_SET = re.compile(rf"set\s+(?P<open>\()?\s*{_NAMES}\s*(?(open)\))\s*=\s*(?P<value>.+)", re.I | re.S)


class NotCovered(Exception):
    """A statement that cannot be analyzed here."""


@dataclass(frozen=True)
class Declaration:
    """`DECLARE names type DEFAULT value`; the type or the value may be missing."""

    names: list[str]
    type: str | None
    value: str | None


@dataclass(frozen=True)
class Assignment:
    """`SET name = value`, or `SET (names) = value` of the fields of a struct."""

    names: list[str]
    of_struct: bool
    value: str


def statements(text: str) -> Iterator[str]:
    """The statements of a script, each after blanks in place of what is before it, so that positions stay true."""
    begin = 0
    for end in [*(token.start() for token in _TOKEN.finditer(text) if token["end"]), len(text)]:
        if _without_comments(text[begin:end]).strip():
            yield re.sub(r"[^\n]", " ", text[:begin]) + text[begin:end]
        begin = end + 1


def _without_comments(text: str) -> str:
    return _TOKEN.sub(lambda token: " " if token["comment"] else token[0], text)


def parsed(statement: str) -> Declaration | Assignment | None:
    """A statement of the scripting language, or None for SQL; raises NotCovered."""
    statement = _without_comments(statement).strip()
    words = re.findall(r"\w+", statement[:80].upper())[:2] or [""]
    if words[0] in _BLOCKS or (words[0] == "BEGIN" and len(words) > 1 and words[1] != "TRANSACTION"):
        raise NotCovered(f"{words[0]} is not covered here")
    if words[0] not in ("DECLARE", "SET"):
        return None
    found = (_DECLARE if words[0] == "DECLARE" else _SET).fullmatch(statement)
    if not found:
        raise NotCovered(f"Syntax error in {words[0]}, or a kind of it that is not covered here")
    names = re.findall(r"\w+", found["names"])
    if words[0] == "DECLARE":
        return Declaration(names, found["type"], found["value"])
    return Assignment(names, found["open"] is not None, found["value"])
