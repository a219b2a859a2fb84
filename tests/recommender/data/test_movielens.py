import os

import numpy as np
import pytest

from msgm.errors import UserError
from msgm.recommender.data import load_interactions
from msgm.recommender.data.movielens import GENRES_100K

DATA = os.environ.get("MSGM_DATA", "")
real = pytest.mark.skipif(
    not os.path.isfile(os.path.join(DATA, "ml-100k", "u.data")), reason="MSGM_DATA names no folder with ml-100k/u.data"
)


@pytest.fixture
def small(tmp_path):
    """Write both sets in small: users 1, 2, 10 and items 5, 7."""
    old, new = tmp_path / "ml-100k", tmp_path / "ml-1m"
    old.mkdir()
    (old / "u.data").write_text("10\t5\t3\t100\n1\t7\t5\t200\n2\t5\t1\t300\n")
    (old / "u.user").write_text("1|24|M|technician|85711\n2|17|F|other|94043\n10|56|F|writer|X0\n")
    genres = {"5": ["Comedy"], "7": ["Drama", "War"], "9": []}
    marks = {item: "|".join(str(int(g in named)) for g in GENRES_100K) for item, named in genres.items()}
    lines = [f"{item}|Café {item}|01-Jan-1995||url|{text}" for item, text in marks.items()]
    (old / "u.item").write_bytes("\n".join(lines).encode("latin-1"))
    new.mkdir()
    (new / "ratings.dat").write_text("10::5::3::100\n1::7::5::200\n2::5::1::300\n")
    (new / "users.dat").write_text("1::M::18::12::85711\n2::F::1::0::94043\n10::F::56::20::X0\n")
    (new / "movies.dat").write_bytes("5::Café: a (1995)::Comedy\n7::B (1995)::Drama|War\n".encode("latin-1"))
    return tmp_path


@pytest.mark.parametrize("name", ["ml-100k", "ml-1m"])
def test_both_formats_give_the_same_interactions(small, name):
    data = load_interactions({"name": name, "root": str(small), "feedback": "explicit"})
    assert (data.users.ids, data.items.ids) == (["1", "10", "2"], ["5", "7"])
    assert data.matrix.toarray().tolist() == [[0, 5], [3, 0], [1, 0]]
    assert data.times.tolist() == [200, 100, 300]
    assert data.attributes["gender"].tolist() == ["M", "F", "F"]
    assert data.attributes["age"].tolist() == ["18-24", "56+", "under 18"]
    assert len(data.attributes["occupation"]) == 3
    assert data.tags["Drama"].tolist() == [False, True]
    assert data.tags["Comedy"].tolist() == [True, False]
    assert load_interactions({"name": name, "root": str(small / name)}).matrix.data.tolist() == [1, 1, 1]


@pytest.mark.parametrize("name", ["ml-100k", "ml-1m"])
def test_ratings_alone_suffice(small, name):
    for extra in ("u.user", "u.item", "users.dat", "movies.dat"):
        (small / name / extra).unlink(missing_ok=True)
    data = load_interactions({"name": name, "root": str(small), "threshold": 3})
    assert (data.users.ids, data.attributes, data.tags) == (["1", "10"], {}, {})


def test_an_item_without_a_row_has_no_tag(small):
    (small / "ml-1m" / "movies.dat").write_text("5::A::Comedy\n")
    data = load_interactions({"name": "ml-1m", "root": str(small)})
    assert {name: marks.tolist() for name, marks in data.tags.items()} == {"Comedy": [True, False]}


@pytest.mark.parametrize(
    ("name", "file", "line", "sentence"),
    [
        ("ml-100k", "u.data", "3\t5\t4", "u.data, line 4: expected 4 columns, found 3"),
        ("ml-100k", "u.data", "3\t5\tgood\t1", "u.data, line 4, column 'rating': expected a number, got 'good'"),
        ("ml-100k", "u.data", "3\t5\tnan\t1", "u.data, line 4, column 'rating': expected a number, got 'nan'"),
        ("ml-100k", "u.data", "2\t5\t4\t1", "u.data, line 4: user 2 and item 5 are given twice"),
        ("ml-100k", "u.user", "2|30|F|other|1", "u.user, line 4: user 2 is given twice"),
        ("ml-1m", "ratings.dat", "3::5::4", "ratings.dat, line 4: expected 4 columns, found 3"),
        (
            "ml-1m",
            "ratings.dat",
            "3::5::good::1",
            "line 4, column 'rating': expected a number, got 'good'",
        ),
        ("ml-1m", "users.dat", "3::F::old::1::2", "users.dat, line 4, column 'age': expected a number, got 'old'"),
    ],
)
def test_malformed_rows_are_refused_by_file_and_line(small, name, file, line, sentence):
    with (small / name / file).open("a") as out:
        out.write(line + "\n")
    with pytest.raises(UserError, match=sentence):
        load_interactions({"name": name, "root": str(small)})


def test_missing_files_and_a_missing_root_are_named(tmp_path, monkeypatch):
    with pytest.raises(UserError, match=r"found no ml-1m/ratings\.dat below .*; unpack ml-1m\.zip"):
        load_interactions({"name": "ml-1m", "root": str(tmp_path)})
    monkeypatch.delenv("MSGM_DATA", raising=False)
    with pytest.raises(UserError, match="data.root: say where the ml-100k files are, or set the variable MSGM_DATA"):
        load_interactions("ml-100k")


def test_the_variable_names_the_root(small, monkeypatch):
    monkeypatch.setenv("MSGM_DATA", str(small))
    assert load_interactions("ml-100k").shape == (3, 2)


@real
def test_the_published_set_has_its_published_numbers():
    data = load_interactions({"name": "ml-100k", "feedback": "explicit"})
    assert data.shape == (943, 1682)
    assert data.matrix.nnz == 100_000
    assert np.unique(data.matrix.data).tolist() == [1, 2, 3, 4, 5]
    assert data.matrix.data.mean() == pytest.approx(3.52986)
    user, item = data.users.number("196"), data.items.number("242")
    at = data.matrix.indptr[user] + np.searchsorted(data.matrix[[user]].indices, item)
    assert (data.matrix.data[at], data.times[at]) == (3, 881250949)
    assert np.unique(data.attributes["gender"], return_counts=True)[1].tolist() == [273, 670]
    assert (data.attributes["age"] == "under 18").sum() == 36
    assert len(np.unique(data.attributes["occupation"])) == 21
    assert data.tags["Drama"].sum() == 725
    assert data.tags["Film-Noir"].sum() == 24


@real
def test_the_published_set_as_positives_of_four_stars():
    data = load_interactions({"name": "ml-100k", "threshold": 4, "min_count": 5})
    assert set(data.matrix.data) == {1}
    assert np.diff(data.matrix.indptr).min() >= 5
    assert np.bincount(data.matrix.indices).min() >= 5
