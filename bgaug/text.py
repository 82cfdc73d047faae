"""Text from outside, safe to show: names of files, classes and ids, messages of other libraries.

A name may hold sequences that move a terminal's cursor, retitle its window or write to its clipboard, a line break that
forges a second line, marks that turn the direction of what follows, or bytes that are no text. `printable` shows such
characters as their numbers. It is called once, where text leaves the program: the console, logs, and captions of images.
"""

from __future__ import annotations

import json
import traceback
import unicodedata
from collections.abc import Mapping
from typing import Any

LONGEST = 4000
"""Characters of one piece of text that are shown, at most."""

_ESCAPED = {"Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp"}
_SHORT = {"\n": "\\n", "\r": "\\r", "\t": "\\t"}
# Letters, marks and symbols without a shape of their own.
_BLANK = {0x034F, 0x115F, 0x1160, 0x17B4, 0x17B5, 0x2800, 0x3164, 0xFFA0, *range(0x180B, 0x1810)}
_JOINERS = "\u200c\u200d"  # inside emoji, and inside words of some scripts
_JOINED = {"Lo", "Mn", "Mc", "So", "Sk"}
_SELECTORS = (range(0xFE00, 0xFE10), range(0xE0100, 0xE01F0))  # choose a shape of the character before
_FRAME = ("  File ", "Traceback ", "\nThe above", "\nDuring handling", "  [Previous", "  | ", "  + ")


def printable(text: object, limit: int = LONGEST) -> str:
    r"""Text on one line, in which nothing but visible characters and spaces is left.

    Control characters, line breaks, marks of direction, invisible characters, private ones and halves of characters are
    shown as `\n`, `\x1b`, `\u202e` or `\U000e0041`. Letters of all scripts, accents and emoji stay as they are.

    Args:
        text: what is to be shown; anything else than text by its `str`.
        limit: characters of it at most; what is longer ends with how much is missing.
    """
    text = str(text)
    if len(text) > limit:
        return f"{printable(text[:limit])}... ({len(text) - limit} more characters)"
    if text.isascii() and text.isprintable():
        return text
    return "".join(c if _is_visible(text, place) else _number(c) for place, c in enumerate(text))


def _is_visible(text: str, place: int) -> bool:
    c = text[place]
    if " " <= c <= "~":
        return True
    before = unicodedata.category(text[place - 1]) if place else ""
    if c in _JOINERS:
        after = unicodedata.category(text[place + 1]) if place + 1 < len(text) else ""
        return before in _JOINED and after in _JOINED
    if any(ord(c) in selectors for selectors in _SELECTORS):
        return before in ("So", "Lo", "Sm", "Po", "Nd")  # as in a heart, an ideograph, an arrow or a keycap
    return ord(c) not in _BLANK and unicodedata.category(c) not in _ESCAPED


def _number(c: str) -> str:
    code = ord(c)
    return _SHORT.get(c) or (f"\\x{code:02x}" if code < 256 else f"\\u{code:04x}" if code < 65536 else f"\\U{code:08x}")


def printable_lines(text: str, limit: int = LONGEST) -> str:
    """The same for text of several lines that are all our own: line breaks stay."""
    return "\n".join(printable(line, limit) for line in text.split("\n"))


def printable_traceback(error: BaseException) -> str:
    """A traceback in which no message can forge a line."""
    parts = traceback.TracebackException.from_exception(error).format()
    return "\n".join(
        printable_lines(part.rstrip("\n")) if part.startswith(_FRAME) else printable(part.rstrip("\n"))
        for part in parts
    )


def json_text(value: Any, *, ascii_only: bool = False, **options: Any) -> str:
    """JSON on one line, unless `indent` says otherwise, that is safe to show and can be written as UTF-8.

    What `printable` would escape is written as JSON's own escapes, so that whoever parses it has the names as they are.

    Args:
        value: plain values.
        ascii_only: escape everything beyond ASCII, for streams that cannot carry it.
        options: of `json.dumps`.
    """
    text = json.dumps(value, ensure_ascii=ascii_only, **options)
    if text.isascii():
        return text.replace("\x7f", "\\u007f")
    return "".join(c if c == "\n" or _is_visible(text, place) else _json_escape(c) for place, c in enumerate(text))


def _json_escape(c: str) -> str:
    return json.dumps(c)[1:-1] if c != "\x7f" else "\\u007f"


def json_bytes(value: Any, **options: Any) -> bytes:
    """`json_text` as a file holds it."""
    return json_text(value, **options).encode()


def printable_values(values: Mapping[str, Any]) -> dict[str, str]:
    """Names and values as text that is safe to show."""
    return {printable(name): printable(value) for name, value in values.items()}
