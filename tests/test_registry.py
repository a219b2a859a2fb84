"""Settings that a part is made from stand for themselves."""

from dataclasses import dataclass

from hypothesis import given
from hypothesis import strategies as st
from omegaconf import OmegaConf

from msgm.registry import structured
from msgm.settings import read_layers


@dataclass
class Part:
    text: str = ""


@given(st.text(alphabet="\\\\${}a:.'\" "))
def test_text_that_looks_like_an_interpolation_is_text(text):
    assert structured(Part, {"text": text}, "part").text == text
    assert OmegaConf.to_object(OmegaConf.merge(*read_layers({"text": text}, [])))["text"] == text


def test_nothing_of_the_environment_is_read(monkeypatch):
    monkeypatch.setenv("SECRET", "hunter2")
    for text in ("${oc.env:SECRET}", "\\\\${oc.env:SECRET}", "\\\\\\\\${oc.env:SECRET}"):
        assert structured(Part, {"text": text}, "part").text == text
