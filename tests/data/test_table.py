import numpy as np
import pytest

from msgm.data import load_dataset
from msgm.errors import UserError
from msgm.requests import ForgetRequest

CSV = """subject,a,b,note,label
s1,1.5,2,x,no
s2,-3,4e1,y,yes
s1,0,0.25,z,no
"""


def table(path, content=CSV, **settings):
    path = path / "table.csv"
    path.write_text(content)
    return load_dataset({"name": "table", "path": str(path)} | settings)


def test_a_csv_gives_vectors_labels_and_groups(tmp_path):
    data = table(tmp_path, groups=["subject"], drop=["note"])
    assert data.items.tolist() == [[1.5, 2], [-3, 40], [0, 0.25]]
    assert str(data.items.dtype) == "torch.float32"
    assert (data.shape, data.levels) == ((2,), None)
    assert data.classes == ["no", "yes"]
    assert data.labels.tolist() == [0, 1, 0]
    assert data.groups["subject"].tolist() == ["s1", "s2", "s1"]


def test_a_request_selects_the_rows_of_a_subject(tmp_path):
    data = table(tmp_path, groups=["subject"], drop=["note"])
    assert data.forget_mask(ForgetRequest(group={"subject": ["s1"]})).tolist() == [True, False, True]


def test_labels_that_are_numbers_are_classes_in_their_order(tmp_path):
    data = table(tmp_path, "a,label\n1,10\n2,9\n3,10\n")
    assert data.classes == ["9", "10"]
    assert data.labels.tolist() == [1, 0, 1]


def test_npz_columns_may_be_matrices(tmp_path):
    features = np.arange(6.0).reshape(3, 2)
    np.savez(tmp_path / "t.npz", features=features, label=np.array([2, 0, 2]), subject=np.array([7, 8, 7]))
    data = load_dataset({"name": "table", "path": str(tmp_path / "t.npz"), "groups": ["subject"]})
    assert data.items.numpy() == pytest.approx(features)
    assert data.labels.tolist() == [1, 0, 1]
    assert data.classes == ["0", "2"]
    assert data.groups["subject"].tolist() == ["7", "8", "7"]


def test_npy_columns_are_named_by_their_number(tmp_path):
    np.save(tmp_path / "t.npy", np.array([[1.0, 2.0, 0.0], [3.0, 4.0, 1.0]]))
    data = load_dataset({"name": "table", "path": str(tmp_path / "t.npy"), "label": "2", "drop": ["0"]})
    assert data.items.tolist() == [[2.0], [4.0]]


def test_a_table_may_have_no_label(tmp_path):
    data = table(tmp_path, "a,b\n1,2\n", label=None)
    assert data.labels is None
    assert data.shape == (2,)


@pytest.mark.parametrize(
    ("content", "settings", "parts"),
    [
        (CSV, {}, ["table.csv, line 2, column 'subject'", "'s1'"]),
        (CSV, {"label": "lable"}, ["data.label", "no column 'lable'", "Did you mean 'label'?"]),
        (CSV, {"groups": ["person"]}, ["data.groups", "'person'", "subject, a, b"]),
        ("a,label\n1,x\nnan,y\n", {}, ["line 3, column 'a'", "a number", "'nan'"]),
        ("a,label\n1,\n", {}, ["line 2, column 'label'", "expected a class, got an empty cell"]),
        ("a,label\n1,2,3\n", {}, ["line 2", "expected 2 columns, found 3"]),
        ("a,a,label\n1,2,3\n", {}, ["two columns are named 'a'"]),
        ("a,label\n", {}, ["no rows"]),
        ("label\nx\n", {}, ["no column is left"]),
        ("", {}, ["no rows"]),
    ],
)
def test_a_bad_table_is_refused_in_one_sentence(tmp_path, content, settings, parts):
    with pytest.raises(UserError) as error:
        table(tmp_path, content, **settings)
    assert all(part in str(error.value) for part in parts), str(error.value)
    assert "\n" not in str(error.value)


def test_missing_and_foreign_files_are_refused(tmp_path):
    with pytest.raises(UserError, match=r"data\.path: say where"):
        load_dataset("table")
    with pytest.raises(UserError, match=r"no known kind.*\.csv"):
        load_dataset({"name": "table", "path": "x.xls"})
    with pytest.raises(UserError, match=r"cannot read .*none\.csv"):
        load_dataset({"name": "table", "path": str(tmp_path / "none.csv")})
    (tmp_path / "t.npz").write_bytes(b"no zip")
    with pytest.raises(UserError, match=r"t\.npz is no file of plain NumPy arrays"):
        load_dataset({"name": "table", "path": str(tmp_path / "t.npz")})


def many(tmp_path, labels, **settings):
    return table(tmp_path, "a,label\n" + "".join(f"{k},{label}\n" for k, label in enumerate(labels)), **settings)


@pytest.mark.parametrize(
    ("labels", "count"),
    [
        (range(300), 300),
        ([k % 101 for k in range(1000)], 101),
        ([k % 11 + 0.5 for k in range(1000)], 11),
        ([f"name {k}" for k in range(12)], 12),
    ],
)
def test_labels_that_look_like_no_classes_are_refused_until_their_number_is_said(tmp_path, labels, count):
    with pytest.raises(UserError, match=f"data.label: column 'label' .* has {count} distinct values: is this a class"):
        many(tmp_path, labels)
    assert len(many(tmp_path, labels, max_classes=count).classes) == count
    with pytest.raises(UserError, match="is this a class"):
        many(tmp_path, labels, max_classes=count - 1)


def test_classes_are_as_many_as_data_sets_have(tmp_path):
    assert len(many(tmp_path, [k % 100 for k in range(200)]).classes) == 100
    assert len(many(tmp_path, [k % 10 / 2 for k in range(20)]).classes) == 10


@pytest.mark.parametrize("ending", ["tsv", "TSV", "parquet", "npz"])
def test_every_kind_of_table_gives_the_same_data(tmp_path, ending):
    path = tmp_path / f"t.{ending}"
    if ending == "parquet":
        pa = pytest.importorskip("pyarrow", reason="Parquet is read by pyarrow, which is not installed")
        from pyarrow import parquet

        parquet.write_table(pa.table({"a": [1.5, 2.0], "subject": [1.0, 7.0], "label": ["no", "yes"]}), path)
    elif ending == "npz":
        np.savez(path, a=np.array([1.5, 2.0]), subject=np.array([1.0, 7.0]), label=np.array(["no", "yes"]))
    else:
        path.write_text('"a"\tsubject\tlabel\n1.5\t1\t"no"\n2\t7\tyes\n')
    data = load_dataset({"name": "table", "path": str(path), "groups": ["subject"]})
    assert (data.items.tolist(), data.classes, data.labels.tolist()) == ([[1.5], [2]], ["no", "yes"], [0, 1])
    assert data.forget_mask(ForgetRequest(group={"subject": [7]})).tolist() == [False, True]


@pytest.mark.parametrize("value", ["", "nan", "NA", "Null", "None"])
@pytest.mark.parametrize("column", ["subject", "label"])
def test_a_missing_value_of_a_group_or_a_class_is_refused_by_line(tmp_path, column, value):
    row = {"subject": "s2", "label": "no"} | {column: value}
    content = f"subject,a,label\ns1,1,yes\n\n{row['subject']},2,{row['label']}\n"
    with pytest.raises(UserError, match=f"table.csv, line 4, column '{column}': expected a (class|group's value), got"):
        table(tmp_path, content, groups=["subject"])


def test_a_column_without_a_name_is_no_input(tmp_path):
    with pytest.raises(UserError, match="a column has no name, like the row numbers of pandas"):
        table(tmp_path, ",a,label\n0,1,x\n1,2,y\n")
    assert table(tmp_path, ",a,label\n0,1,x\n1,2,y\n", drop=[""]).items.tolist() == [[1], [2]]
