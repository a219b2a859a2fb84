import pytest

from msgm.errors import UserError
from msgm.recommender.data import load_interactions
from msgm.recommender.data.splits import load_split


def written(folder, train, test=None):
    (folder / "train.txt").write_text(train)
    if test is not None:
        (folder / "test.txt").write_text(test)
    return {"name": "lightgcn", "path": str(folder)}


def test_a_line_is_a_user_and_his_items_and_the_published_test_part_is_kept_apart(tmp_path):
    data = load_interactions(written(tmp_path, "0 5 6 7\n1\n\n2 5 \n", "0 8\n1\n"))
    assert (data.users.ids, data.items.ids) == (["0", "2"], ["5", "6", "7", "8"])
    assert data.matrix.toarray().tolist() == [[1, 1, 1, 1], [1, 0, 0, 0]]
    split = load_split({"name": "published", "validation": 0}, data)
    assert split.test.toarray().tolist() == [[0, 0, 0, 1], [0, 0, 0, 0]]
    assert split.train.nnz == 4


def test_without_a_test_file_there_is_no_published_part(tmp_path):
    data = load_interactions(written(tmp_path, "0 1\n"))
    assert data.test is None
    with pytest.raises(UserError, match="no published test part; use per-user"):
        load_split("published", data)


def test_a_pair_in_both_files_is_a_duplicate_and_never_a_training_cell(tmp_path):
    settings = written(tmp_path, "0 1 2\n", "0 2\n")
    with pytest.raises(UserError, match=r"test\.txt, line 1: user 0 and item 2 are given twice"):
        load_interactions(settings)
    assert load_interactions(settings | {"duplicates": "last"}).test.tolist() == [False, True]


def test_a_user_of_the_test_part_alone_is_refused(tmp_path):
    data = load_interactions(written(tmp_path, "0 1 2\n", "3 2\n"))
    with pytest.raises(UserError, match="user 3 is in the test part alone"):
        load_split("published", data)


@pytest.mark.parametrize(
    ("train", "sentence"),
    [
        ("0 1\n1 x\n", r"train\.txt, line 2: expected whole numbers .*, a user and his items, got '1 x'"),
        ("0 1\n1 -2\n", r"train\.txt, line 2: expected whole numbers"),
        ("0 1\n01 1\n", r"train\.txt, line 2: expected whole numbers without leading zeros, .*, got '01 1'"),
        ("0 1\n0 02\n", r"train\.txt, line 2: .* leading zeros"),
        ("0 1\n1 2_0\n", r"train\.txt, line 2: expected whole numbers"),
        ("0 1\n\n1 ٣\n", r"train\.txt, line 3: expected whole numbers"),
        ("0 1 1\n", r"train\.txt, line 1: user 0 and item 1 are given twice"),
        ("0\n1\n", r"train\.txt holds no interaction"),
        ("", r"train\.txt holds no interaction"),
    ],
)
def test_malformed_lines_are_refused(tmp_path, train, sentence):
    with pytest.raises(UserError, match=sentence):
        load_interactions(written(tmp_path, train))


def test_a_missing_folder_is_named(tmp_path):
    with pytest.raises(UserError, match=r"cannot read .*train\.txt"):
        load_interactions({"name": "lightgcn", "path": str(tmp_path)})
