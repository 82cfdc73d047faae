"""Names from outside as they are shown: nothing that acts on a terminal, and readable where it is ordinary text."""

from __future__ import annotations

import json
import sys
import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bgaug.text import json_text, printable, printable_traceback

ORDINARY = (
    "clip 1.mp4",
    "é ñ ü ß ø",
    "e\u0301 decomposed",
    "日本語　動画.mp4",
    "Привет мир",
    "שלום עולם",
    "السلام عليكم",
    "नमस्ते क्ष",
    "می\u200cخواهم",
    "👩\u200d🔬 🏳️\u200d🌈 ❤️ 1️⃣ 👍🏽 🇩🇪",
    "葛\U000e0100",
    "Bildschirmfoto 9.41.22\u202fAM.png",
    "[bold] :smile: \\d+ {x} %s <b>&",
)
HOSTILE = {
    "\x1b[2J": "\\x1b[2J",
    "\x1b]52;c;aGk=\x07": "\\x1b]52;c;aGk=\\x07",
    "\x9b31m\x9d8;;x\x9c": "\\x9b31m\\x9d8;;x\\x9c",
    "a\nerror: b\r\x08\x0b\x0c\x7f\t": "a\\nerror: b\\r\\x08\\x0b\\x0c\\x7f\\t",
    "a\u2028b\u2029c\x85d": "a\\u2028b\\u2029c\\x85d",
    "gpj.\u202egnp": "gpj.\\u202egnp",
    "\u2066\u2067\u2068\u2069\u200e\u200f\u061c": "\\u2066\\u2067\\u2068\\u2069\\u200e\\u200f\\u061c",
    "a\u200bb\u2060c\ufeffd\u00ade\u200df": "a\\u200bb\\u2060c\\ufeffd\\xade\\u200df",
    "a\ufe00\U000e0141\U000e0041": "a\\ufe00\\U000e0141\\U000e0041",
    "\u3164\u115f\uffa0\u2800\u034f": "\\u3164\\u115f\\uffa0\\u2800\\u034f",
    "\udcff\ud800": "\\udcff\\ud800",
    "\ue000\U0010ffff\ufffe": "\\ue000\\U0010ffff\\ufffe",
    "\x00": "\\x00",
}


@pytest.mark.parametrize("text", ORDINARY)
def test_ordinary_text_stays(text: str) -> None:
    assert (
        printable(text) == text
        and json.loads(json_text(text)) == text
        and text in json_text(text).replace("\\\\", "\\")
    )


@pytest.mark.parametrize("text", HOSTILE)
def test_what_acts_on_a_terminal_is_shown_as_its_number(text: str) -> None:
    assert printable(text) == HOSTILE[text]
    assert printable(printable(text)) == printable(text)


def test_no_character_of_unicode_slips_through() -> None:
    codes = [*range(0x3000), *range(0x3000, 0x20000, 7), *range(0xD7FF, 0xE001), *range(0xE0000, sys.maxunicode, 99)]
    shown = printable("a".join(map(chr, [*codes, sys.maxunicode])), limit=10**8)
    left = {unicodedata.category(c) for c in set(shown)}
    assert not left & {"Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp"} and {"Lu", "Lo", "So", "Zs", "Mn"} <= left


@given(st.text(st.characters(exclude_categories=())))
def test_json_is_safe_and_gives_the_names_back(text: str) -> None:
    for value in (text, [text], {text: text}):
        written = json_text(value)
        assert json.loads(written) == value and json.loads(json_text(value, ascii_only=True)) == value
        assert printable(written, limit=10**9) == written and written.encode("utf-8")
        assert json.loads(json_text(value, indent=1)) == value


def test_what_is_long_is_cut() -> None:
    assert printable("a" * 10, limit=4) == "aaaa... (6 more characters)"
    assert len(printable("\x1b" * 10**7)) < 20_000


def test_no_message_forges_a_line_of_a_traceback() -> None:
    try:
        try:
            raise ValueError('first\n  File "forged", line 1\x1b[2J')
        except ValueError as error:
            raise RuntimeError("second\nValueError: forged") from error
    except RuntimeError as error:
        lines = printable_traceback(error).splitlines()
    assert 'ValueError: first\\n  File "forged", line 1\\x1b[2J' in lines
    assert lines[-1] == "RuntimeError: second\\nValueError: forged"
    assert sum(line.startswith("  File") for line in lines) == 2
