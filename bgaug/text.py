"""Text from outside, safe to show: names of files, classes and ids, messages of other libraries.

A name may contain sequences that move a terminal's cursor, change its title or write to its clipboard, a line break
that forges a second line, characters that change the direction of text, or bytes that are not text. `printable`
replaces such characters by their numbers. It is called once, where text leaves the program: console, logs, and captions
of images.
"""

from __future__ import annotations

import json
import traceback
import unicodedata
from typing import Any

_LONGEST = 4000  # characters of one piece of text

_ESCAPED = {"Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp"}
_SHORT = {"\n": "\\n", "\r": "\\r", "\t": "\\t"}
# Letters, marks and symbols without a shape of their own.
_BLANK = {0x034F, 0x115F, 0x1160, 0x17B4, 0x17B5, 0x2800, 0x3164, 0xFFA0, *range(0x180B, 0x1810)}
_JOINERS = "\u200c\u200d"  # inside emoji, and inside words of some scripts
_JOINED = {"Lo", "Mn", "Mc", "So", "Sk"}
_SELECTORS = (range(0xFE00, 0xFE10), range(0xE0100, 0xE01F0))  # choose a shape of the character before
_FRAME = ("  File ", "Traceback ", "\nThe above", "\nDuring handling", "  [Previous", "  | ", "  + ")


def printable(text: object, limit: int = _LONGEST) -> str:
    r"""Text on one line with only visible characters and spaces.

    Control characters, line breaks, direction marks, invisible and private characters and lone surrogates become `\n`,
    `\x1b`, `\u202e` or `\U000e0041`. Letters of all scripts, accents and emoji are kept.

    Args:
        text: the text; other values are converted by `str`.
        limit: largest number of characters; longer text ends with the number of missing ones.
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


def printable_lines(text: str, limit: int = _LONGEST) -> str:
    """The same for several lines of trusted structure: line breaks are kept."""
    return "\n".join(printable(line, limit) for line in text.split("\n"))


def printable_traceback(error: BaseException) -> str:
    """A traceback in which no message can forge a line."""
    parts = traceback.TracebackException.from_exception(error).format()
    return "\n".join(
        printable_lines(part.rstrip("\n")) if part.startswith(_FRAME) else printable(part.rstrip("\n"))
        for part in parts
    )


def json_text(value: Any, *, ascii_only: bool = False, **options: Any) -> str:
    """JSON on one line, unless `indent` is given, that is safe to show and can be written as UTF-8.

    Characters that `printable` would replace are written as JSON escapes, so that parsing restores them.

    Args:
        value: plain values.
        ascii_only: escape everything beyond ASCII, for streams that cannot encode it.
        options: options of `json.dumps`.
    """
    text = json.dumps(value, ensure_ascii=ascii_only, **options)
    if text.isascii():
        return text.replace("\x7f", "\\u007f")
    return "".join(c if c == "\n" or _is_visible(text, place) else _json_escape(c) for place, c in enumerate(text))


def _json_escape(c: str) -> str:
    return json.dumps(c)[1:-1] if c != "\x7f" else "\\u007f"


def json_bytes(value: Any, **options: Any) -> bytes:
    """`json_text` as bytes for a file."""
    return json_text(value, **options).encode()
