"""Settings that a part is made from stand for themselves."""

from dataclasses import dataclass

from hypothesis import given
from hypothesis import strategies as st

from msgm.registry import Registry
from msgm.settings import read_settings

PARTS: Registry[object] = Registry("part")


@PARTS.register("text")
@dataclass
class Part:
    text: str = ""


@given(st.text(alphabet="\\${}a:.'\" "))
def test_text_that_looks_like_an_interpolation_is_text(text):
    assert PARTS.build({"name": "text", "text": text}).text == text
    assert read_settings({"text": text})["text"] == text


def test_nothing_of_the_environment_is_read(monkeypatch):
    monkeypatch.setenv("SECRET", "hunter2")
    for text in ("${oc.env:SECRET}", "\\${oc.env:SECRET}", "\\\\${oc.env:SECRET}"):
        assert PARTS.build({"name": "text", "text": text}).text == text
