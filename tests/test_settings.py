import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from msgm.errors import UserError
from msgm.fields import Plain, lossless, typed
from msgm.ids import as_id
from msgm.reading import parse_yaml
from msgm.settings import differences, dump_yaml, parse_settings, read_settings

WRITTEN = [
    "010",
    "1.10",
    "0x1F",
    "yes",
    "~",
    "1e3",
    "1_2",
    "null",
    "${oc.env:HOME}",
    "???",
    "nan",
    "2020-01-01",
    "1:30",
]


def refused(call, *arguments) -> str:
    with pytest.raises(UserError) as caught:
        call(*arguments)
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize("text", WRITTEN)
def test_scalars_and_keys_are_as_they_were_written(tmp_path, text):
    (tmp_path / "c.yaml").write_text(f"users:\n- {text}\nrows:\n  {text}: {text}\n")
    assert read_settings(tmp_path / "c.yaml") == {"users": [text], "rows": {text: text}}
    assert read_settings(None, [f"a.b={text}"]) == {"a": {"b": text}}
    if text.isalnum():
        assert read_settings(None, [f"c=[{text}]", f"d={{{text}: x}}"]) == {"c": [text], "d": {text: "x"}}


def test_quotes_are_told_from_none():
    tree = parse_settings("a: 1\nb: '1'\nc: \"1\"\nd: !!str 1\ne: |-\n  1\nf: ~\ng: '~'\nh:\n", "c")
    assert [key for key, value in tree.items() if isinstance(value, Plain)] == ["a", "f", "h"]
    assert tree["h"] == ""


@pytest.mark.parametrize("value", ["a: b", "#tag", "- x", "*x", "&x", "!x", "a #b", "%x", "@x", "`x`", "a]", "?", "|"])
def test_the_text_of_an_override_needs_no_quotes(value):
    assert read_settings(None, [f"request.tag={value}"]) == {"request": {"tag": value}}


def test_an_override_may_be_yaml_in_brackets_or_quotes():
    given = ["a=[1, {b: c}]", "d={e: f}", "g='010 '", 'h="x\\ty"', "i= x ", "j=", "k=a=b"]
    expected = {"a": ["1", {"b": "c"}], "d": {"e": "f"}, "g": "010 ", "h": "x\ty", "i": "x", "j": "", "k": "a=b"}
    assert read_settings(None, given) == expected


@pytest.mark.parametrize("override", ["a", "=1", ".a=1", "a.=1", "a..b=1", "", "a=[1", "a={b", "a='x", "a=[1] 2"])
def test_a_malformed_override_is_refused(override):
    assert refused(read_settings, None, [override]).startswith("--set ")


@pytest.mark.parametrize("bad", ["a\x00b", "a\ud800b"])
def test_what_no_text_can_hold_is_refused(bad):
    assert "no text can hold" in refused(read_settings, None, [f"name={bad}"])
    assert "no text can hold" in refused(read_settings, None, [f"{bad}=1"])


@pytest.mark.parametrize(
    ("text", "part"),
    [
        ("a: 1\na: 2\n", "the key 'a' stands in it twice (line 2, column 1)"),
        ("{1: a, '1': b}", "the key '1' stands in it twice"),
        ("a: !!int 3", "tags such as"),
        ("a: !!python/object/apply:os.system [ls]", "tags such as"),
        ("a: !mine 3", "tags such as !mine"),
        ("[a]: 1", "a key is no plain name"),
        ("? {a: b}\n: 1", "a key is no plain name"),
        ("a: &x [*x]", "larger or deeper"),
        ("a: &x {b: *x}", "larger or deeper"),
        ("<<: 3", "<< takes settings by name"),
        ("a: *b", "undefined alias"),
        ("a: 1\n---\nb: 2", "found another document"),
        ("a: " + "[" * 200, "levels deep"),
        ("a: " + "{b: " * 5000, "levels deep"),
        ("a: [1", "expected ',' or ']'"),
        ("a: 'x", "unexpected end of stream"),
        ('a: "\\0"', "no text can hold"),
        ('a: "\\ud800"', "no text can hold"),
        ("a: \x07", "a character that YAML does not allow"),
        ("\ta: 1", "cannot start any token"),
    ],
)
def test_damaged_yaml_is_refused_in_one_sentence(text, part):
    message = refused(parse_settings, text, "c.yaml")
    assert message.startswith("c.yaml")
    assert part in message


def test_anchors_that_stand_for_more_than_a_config_can_hold_are_refused():
    lines = ["a0: &a0 [x, x, x, x, x, x, x, x, x, x]"]
    lines += [f"a{k}: &a{k} [{', '.join([f'*a{k - 1}'] * 10)}]" for k in range(1, 10)]
    assert "larger or deeper" in refused(parse_settings, "\n".join(lines), "c.yaml")


def test_anchors_and_merge_keys_are_read_as_before():
    text = "base: &b {steps: 1, lr: 2}\nx: {<<: *b, lr: 3}\ny: {<<: [{lr: 5}, *b]}\nz: *b\n'<<': {k: v}\n"
    tree = parse_settings(text, "c")
    assert tree["x"] == {"steps": "1", "lr": "3"}
    assert tree["y"] == {"steps": "1", "lr": "5"}
    assert tree["z"] == {"steps": "1", "lr": "2"}
    assert tree["<<"] == {"k": "v"}


@pytest.mark.parametrize("extends", ["[a]", "{a: b}"])
def test_what_extends_is_one_path(tmp_path, extends):
    (tmp_path / "c.yaml").write_text(f"extends: {extends}\n")
    assert "extends: expected the path of one file" in refused(read_settings, tmp_path / "c.yaml")


def test_the_path_that_extends_names_is_text(tmp_path):
    (tmp_path / "010").write_text("seed: 3\n")
    (tmp_path / "c.yaml").write_text("extends: 010\n")
    assert read_settings(tmp_path / "c.yaml") == {"seed": "3"}


TEXTS = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\x00"))


@given(st.one_of(st.sampled_from(WRITTEN), TEXTS.filter(str.strip)))
def test_any_text_in_quotes_is_an_id_as_written(text):
    quoted = yaml.safe_dump([text], default_style='"', allow_unicode=True)
    found = typed(parse_settings(quoted, "c"), list[int | str], "users")
    assert [as_id(one, "users") for one in found] == [text]


PLAIN = st.text("0123456789abcdefxXoOeE_+-.~$?:/ ", min_size=1, max_size=12)


@given(st.one_of(st.sampled_from(WRITTEN), PLAIN))
def test_any_plain_text_is_an_id_as_written(text):
    """Whenever YAML takes the text for one plain scalar, that scalar is the id."""
    document = f"[{text}]"
    try:
        events = [event for event in yaml.parse(document) if isinstance(event, yaml.ScalarEvent)]
    except yaml.YAMLError:
        refused(parse_settings, document, "c")
        return
    if len(events) != 1 or events[0].value != text or isinstance(parse_settings(document, "c")[0], dict):
        return
    assert typed(parse_settings(document, "c"), list[int | str], "users") == [text]
    assert read_settings(None, [f"users={document}"]) == {"users": [text]}


@given(st.text(max_size=60) | st.text("[]{}:,&*!|>'\"%@`#-? \n\tab1<", max_size=40))
@settings(max_examples=300)
def test_any_text_is_a_tree_or_refused_in_one_sentence(text):
    sentence = ""
    try:
        tree = parse_settings(text, "c.yaml")
        dump_yaml({"tree": lossless(tree)})
    except UserError as error:
        sentence = str(error)
    assert "\n" not in sentence


LEAVES = (
    st.none() | st.booleans() | st.integers(-(10**9), 10**9) | st.floats(allow_nan=False, allow_infinity=False) | TEXTS
)
TREES = st.dictionaries(
    TEXTS.filter(str.strip), st.recursive(LEAVES, lambda inner: st.lists(inner, max_size=3)), max_size=4
)


@given(TREES)
def test_stored_settings_are_read_back_as_they_were(tree):
    written = dump_yaml(tree)
    assert parse_yaml(written, "config.yaml") == tree
    read = parse_settings(written, "config.yaml")
    for key, value in tree.items():
        if isinstance(value, str):
            assert type(read[key]) is str or read[key] == value
            assert typed(read[key], str, key) == value
        elif isinstance(value, float):
            assert typed(read[key], float, key) == value


@pytest.mark.parametrize("text", WRITTEN)
def test_stored_texts_have_quotes_where_others_read_something_else(text):
    assert dump_yaml({"a": text, text: 1}).count("'") in (0, 4)
    assert parse_yaml(dump_yaml({"a": text, text: 1}), "c") == {"a": text, text: 1}


def test_numbers_of_the_first_version_are_the_texts_of_today():
    assert differences({"labels": [3, "cat"], "lr": 0.5}, {"labels": ["3", "cat"], "lr": "0.5"}) == []
    assert differences({"labels": ["010"]}, {"labels": ["10"]}) == ["labels: ['010'] -> ['10']"]
    assert differences({"a": True}, {"a": "true"}) == []
