import pytest

from msgm.errors import UserError
from msgm.recommender.data import load_interactions

HEADER = "user_id:token\titem_id:token\trating:float\ttimestamp:float\n"


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "toy.inter").write_text(HEADER + "u1\ti1\t4.0\t881250949.0\nu2\ti1\t3\t8.9e8\n")
    (tmp_path / "toy.user").write_text("user_id:token\tage:token\tnames:token_seq\theight:float\nu2\t30\ta b\t1.8\n")
    return tmp_path


def test_columns_are_found_by_their_header(folder):
    data = load_interactions({"name": "recbole", "path": str(folder), "feedback": "explicit"})
    assert data.matrix.toarray().tolist() == [[4], [3]]
    assert data.times.tolist() == [881250949, 890000000]
    assert {name: values.tolist() for name, values in data.attributes.items()} == {
        "age": ["", "30"],
        "height": ["", "1.8"],
    }


def test_hidden_files_beside_the_log_are_none(folder):
    (folder / "._toy.inter").write_bytes(b"\0\5\x16\7")
    assert load_interactions({"name": "recbole", "path": str(folder), "feedback": "explicit"}).shape == (2, 1)


def test_ratings_times_and_users_may_be_absent_and_columns_have_any_order_and_name(tmp_path):
    (tmp_path / "toy.inter").write_text("track:token\tlistener:token\tplays:float_seq\nt1\tl1\t1 2\n")
    data = load_interactions(
        {"name": "recbole", "path": str(tmp_path / "toy.inter"), "user": "listener", "item": "track"}
    )
    assert (data.users.ids, data.items.ids, data.times, data.attributes) == (["l1"], ["t1"], None, {})


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        ("user_id\titem_id\nu\ti\n", r"toy.inter, line 1: expected name:type with a type of token, .*, got 'user_id'"),
        ("user_id:token\titem:token\nu\ti\n", "line 1: no column 'item_id'; found user_id, item. Did you mean 'item'"),
        ("user_id:token\tuser_id:token\nu\ti\n", "two columns are named 'user_id:token'"),
        (HEADER, "toy.inter holds no rows"),
        (HEADER + "u\ti\t3\n", "line 2: expected 4 columns, found 3"),
        (
            HEADER + "u\ti\t3\tnow\n",
            "line 2, column 'timestamp:float': expected seconds since 1970, or a date as in ISO 8601, got 'now'",
        ),
        (HEADER + "u\ti\t3\t1\nu\ti\t4\t2\n", "line 3: user u and item i are given twice"),
    ],
)
def test_malformed_files_are_refused_by_line(tmp_path, content, sentence):
    (tmp_path / "toy.inter").write_text(content)
    with pytest.raises(UserError, match=sentence):
        load_interactions({"name": "recbole", "path": str(tmp_path / "toy.inter")})


def test_a_folder_must_hold_one_file(tmp_path):
    with pytest.raises(UserError, match="holds 0 .inter files; name one"):
        load_interactions({"name": "recbole", "path": str(tmp_path)})
    with pytest.raises(UserError, match="data.path: say which .inter file"):
        load_interactions("recbole")


def test_quotes_are_as_in_csv(tmp_path):
    (tmp_path / "toy.inter").write_text('"user_id:token"\titem_id:token\n"u1"\t"a\tb"\n')
    data = load_interactions({"name": "recbole", "path": str(tmp_path)})
    assert (data.users.ids, data.items.ids) == (["u1"], ["a\tb"])
