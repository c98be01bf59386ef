"""Row 31: what files call their tensors never reaches a terminal as it is."""

import pickle

import pytest

from landscape.errors import LandscapeError, MismatchError, printable


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("plain é × 漢字", "plain é × 漢字"),
        ("a\nb\r\tc", r"a\nb\r\tc"),
        ("\x1b]0;title\x07\x9b31m", r"\x1b]0;title\x07\x9b31m"),
        ("\u202egpj.exe", r"\u202egpj.exe"),
        ("\u2028\ufeff\ud800\x00", r"\u2028\ufeff\ud800\x00"),
        ("[bold]<script>=cmd()", "[bold]<script>=cmd()"),
    ],
)
def test_what_a_terminal_obeys_is_spelt_out(text: str, shown: str) -> None:
    assert printable(text) == shown
    assert printable(text).isprintable()
    assert printable(text).encode()


def test_long_text_is_cut_and_counted() -> None:
    assert printable("x" * 10**6, limit=5) == "xxxxx… (1000000 characters)"
    assert printable("x" * 5, limit=5) == "xxxxx"


def test_every_message_is_one_printable_line() -> None:
    error = LandscapeError("found \x1b[31m\n" + "x" * 10**6, fix="try\nthis")
    assert str(error).isprintable()
    assert len(str(error)) < 3000
    assert str(error).endswith(r"try\nthis")
    again = pickle.loads(pickle.dumps(MismatchError("a\nb", fix="c")))
    assert str(again) == r"a\nb; c"
