import os

import numpy as np
import pytest
import torch
from PIL import Image

from msgm.data import Folder, load_dataset
from msgm.data.listing import BESIDE, BROKEN, EMPTY, EMPTY_FOLDER, HIDDEN, NO_FILE, NOWHERE, SEEN, list_pictures, said
from msgm.errors import UserError
from msgm.requests import ForgetRequest


def picture(path, level=100):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("L", (6, 6), level).save(path, format="PNG")


@pytest.fixture
def pets(tmp_path):
    """Two cats and two dogs."""
    root = tmp_path / "pets"
    for number, name in enumerate(["cat/1.png", "cat/2.png", "dog/1.png", "dog/2.png"]):
        picture(root / name, 50 * number)
    return root


NAMES = ["cat/1.png", "cat/2.png", "dog/1.png", "dog/2.png"]


def load(root, **options):
    return Folder(root=str(root), size=4, channels=1, **options).load()


@pytest.mark.parametrize(
    "hidden",
    [
        ".ipynb_checkpoints/dog-checkpoint.png",
        "dog/.ipynb_checkpoints/1-checkpoint.png",
        "__MACOSX/dog/1.png",
        "dog/__MACOSX/1.png",
        "dog/._1.png",
        "._1.png",
        ".git/a/b.png",
        ".thumbnails/1.png",
    ],
)
def test_hidden_names_are_left_out_at_every_level(pets, hidden):
    before = load(pets)
    picture(pets / hidden)
    after = load(pets)
    assert after.names == before.names == NAMES
    assert after.classes == ["cat", "dog"]
    assert torch.equal(after.items, before.items)
    assert after.digest() == before.digest()
    assert sum(map(len, after.left_out.values())) == 1
    assert HIDDEN in after.left_out


def test_a_folder_below_a_hidden_one_is_read_when_it_is_named(tmp_path):
    picture(tmp_path / ".cache" / "pets" / "cat" / "1.png")
    assert load(tmp_path / ".cache" / "pets").names == ["cat/1.png"]


def test_names_are_paths_and_are_sorted_as_paths(tmp_path):
    for name in ("a/b.png", "a-b/c.png", "a/b/c.png", "B/1.png", "a/10.PNG", "a/9.Jpg"):
        picture(tmp_path / name)
    assert load(tmp_path).names == ["B/1.png", "a/10.PNG", "a/9.Jpg", "a/b/c.png", "a/b.png", "a-b/c.png"]


def test_what_is_no_picture_is_counted_by_its_reason(pets):
    (pets / "dog" / "notes.txt").write_text("a dog")
    (pets / "cat" / "notes.TXT").write_text("a cat")
    (pets / "README").write_text("pets")
    (pets / "dog" / "3.png").write_bytes(b"")
    (pets / "bird").mkdir()
    (pets / "cat" / "gone.png").symlink_to(pets / "nowhere.png")
    os.mkfifo(pets / "cat" / "pipe.png")
    data = load(pets)
    assert data.names == NAMES
    assert data.left_out == {
        "a file ending in .txt": ["dog/notes.txt"],
        "a file ending in .TXT": ["cat/notes.TXT"],
        "a file without an ending": ["README"],
        EMPTY: ["dog/3.png"],
        EMPTY_FOLDER: ["bird"],
        NOWHERE: ["cat/gone.png"],
        NO_FILE: ["cat/pipe.png"],
    }


def test_a_folder_named_like_a_picture_is_a_folder(pets):
    picture(pets / "dog" / "x.png" / "deep.png")
    assert load(pets).names == [*NAMES, "dog/x.png/deep.png"]


def test_a_picture_beside_class_folders_leaves_the_classes(pets):
    picture(pets / "cover.png")
    data = load(pets)
    assert data.names == NAMES
    assert data.classes == ["cat", "dog"]
    assert data.left_out == {BESIDE: ["cover.png"]}


def test_a_picture_beside_class_folders_is_read_without_classes_when_asked(pets):
    picture(pets / "cover.png")
    data = load(pets, classes="none")
    assert data.names == [*NAMES[:2], "cover.png", *NAMES[2:]]
    assert data.labels is None
    assert not data.left_out


def test_more_pictures_beside_class_folders_than_in_them_are_refused(pets):
    for number in range(5):
        picture(pets / f"{number}.png")
    with pytest.raises(
        UserError, match=r"holds 5 pictures, such as 0\.png, beside 4 in folders \(cat, dog\); move them"
    ):
        load(pets)


def test_a_linked_folder_is_a_folder(pets, tmp_path):
    picture(tmp_path / "elsewhere" / "9.png")
    (pets / "ape").symlink_to(tmp_path / "elsewhere")
    data = load(pets)
    assert data.classes == ["ape", "cat", "dog"]
    assert data.names == ["ape/9.png", *NAMES]


def test_each_thing_is_read_once_under_its_own_path(pets):
    (pets / "all").mkdir()
    for name in NAMES:
        (pets / "all" / name.replace("/", "-")).symlink_to(pets / name)
    (pets / "ape").symlink_to(pets / "dog")
    data = load(pets)
    assert data.names == NAMES
    assert data.classes == ["cat", "dog"]
    assert data.left_out == {SEEN: [*(f"all/{name.replace('/', '-')}" for name in NAMES), "ape"]}


def test_links_in_a_circle_end(pets):
    (pets / "dog" / "up").symlink_to(pets)
    (pets / "cat" / "self").symlink_to(pets / "cat" / "self")
    (pets / "cat" / "here").symlink_to(pets / "cat")
    data = load(pets)
    assert data.names == NAMES
    assert data.left_out == {SEEN: ["cat/here", "dog/up"], NOWHERE: ["cat/self"]}


def test_two_links_to_one_file_elsewhere_are_one_item(pets, tmp_path):
    picture(tmp_path / "elsewhere.png")
    (pets / "dog" / "b.png").symlink_to(tmp_path / "elsewhere.png")
    (pets / "cat" / "a.png").symlink_to(tmp_path / "elsewhere.png")
    assert load(pets).names == [*NAMES[:2], "cat/a.png", *NAMES[2:]]


def test_a_folder_that_cannot_be_read_is_refused(pets, monkeypatch):
    def refuse(path):
        raise PermissionError(13, "Permission denied", path)

    monkeypatch.setattr(os, "listdir", refuse)
    with pytest.raises(UserError, match=r"data\.root: cannot read .*pets: Permission denied\."):
        list_pictures(pets)


def test_nothing_but_other_files_is_said(tmp_path):
    (tmp_path / "a.heic").write_bytes(b"x")
    with pytest.raises(UserError, match=r"no image in .*: 1 left out, a file ending in \.heic: a\.heic; read are"):
        load(tmp_path)


def test_loading_says_what_is_left_out(pets, capsys):
    picture(pets / ".hidden" / "1.png")
    load_dataset({"name": "folder", "root": str(pets)})
    assert capsys.readouterr().out == "data: 1 left out, hidden: .hidden\n"


def test_a_name_of_any_bytes_can_be_printed():
    lines = said({HIDDEN: [".a\nb", ".\udcff", ".é"] + [".x"] * 4})
    assert lines == ["7 left out, hidden: .a\\nb, .\\udcff, .é, ..."]


def test_a_name_of_any_bytes_is_read_and_asked_for(pets):
    picture(pets / "dog" / os.fsdecode(b"\xff\n.png"))
    data = load(pets)
    assert data.forget_mask(ForgetRequest(files=["dog/\udcff\n.png"])).tolist() == [False] * 4 + [True]
    assert len(data.digest()) == 16


# Broken files


def test_a_broken_file_is_refused_or_skipped_and_said(pets, capsys):
    whole = (pets / "cat" / "2.png").read_bytes()
    (pets / "cat" / "2.png").write_bytes(whole[:50])
    with pytest.raises(UserError, match=r"cannot read the image .*cat/2\.png"):
        load(pets)
    for resident_mb in (0, 2048):
        data = load(pets, broken="skip", resident_mb=resident_mb)
        assert data.names == ["cat/1.png", "dog/1.png", "dog/2.png"]
        assert data.labels.tolist() == [0, 1, 1]
        assert data.take(np.arange(3))[:, 0, 0, 0].tolist() == [0, 100, 150]
        assert [name.split(" (")[0] for name in data.left_out[BROKEN]] == ["cat/2.png"]
        assert str(pets) not in data.left_out[BROKEN][0]


def test_what_is_left_out_is_counted_for_manifests_and_broken_files_are_named(pets):
    (pets / "cat" / "2.png").write_bytes(b"broken")
    picture(pets / ".a" / "1.png")
    picture(pets / "dog" / ".b.png")
    assert load(pets, broken="skip").omissions() == {
        "left_out": {HIDDEN: 2, BROKEN: 1},
        "broken": ["cat/2.png (its content is no picture of a known format)"],
    }


def test_a_class_of_broken_files_alone_is_no_class(pets):
    for name in ("1.png", "2.png"):
        (pets / "cat" / name).write_bytes(b"broken")
    assert load(pets, broken="skip").classes == ["dog"]


def test_skipping_changes_the_digest_with_the_positions(pets):
    before = load(pets, broken="skip").digest()
    (pets / "cat" / "1.png").write_bytes(b"broken")
    assert load(pets, broken="skip").digest() != before


def test_a_picture_smaller_than_the_crop_counts_as_broken_when_skipping(pets):
    Image.new("L", (3, 9)).save(pets / "cat" / "2.png")
    data = load(pets, crop=5, broken="skip")
    assert data.names == ["cat/1.png", "dog/1.png", "dog/2.png"]
    assert "3x9 pixels" in data.left_out[BROKEN][0]


# Digests


@pytest.mark.parametrize("resident_mb", [0, 2048])
def test_other_pictures_of_the_same_names_and_sizes_have_another_digest(pets, resident_mb):
    before = load(pets, resident_mb=resident_mb)
    digest = before.digest()
    path = pets / "dog" / "1.png"
    size = path.stat().st_size
    picture(path, 101)
    assert path.stat().st_size == size
    assert load(pets, resident_mb=resident_mb).digest() != digest
    assert before.digest() != digest


def test_a_streaming_set_has_the_digest_of_a_resident_one(pets):
    assert load(pets, resident_mb=0).digest() == load(pets).digest()


def test_a_renamed_picture_changes_the_digest(pets):
    before = load(pets).digest()
    (pets / "dog" / "2.png").rename(pets / "dog" / "3.png")
    assert load(pets).digest() != before


@pytest.mark.parametrize("change", [{"crop": 4}, {"background": "black"}, {"channels": 3}])
def test_how_pictures_are_seen_changes_the_digest(pets, change):
    options = {"name": "folder", "root": str(pets), "size": 4, "channels": 1}
    assert load_dataset(options | change).digest() != load_dataset(options).digest()


def test_an_unchanged_file_is_hashed_once(pets, monkeypatch):
    data = load(pets)
    data.digest()
    monkeypatch.setattr(type(data.files), "content", lambda self, index: pytest.fail("read again"))
    data.digest()


def test_the_content_of_an_item_is_its_file(pets):
    data = load(pets, resident_mb=0)
    assert data.content(2) == (pets / "dog" / "1.png").read_bytes()
    (pets / "dog" / "1.png").unlink()
    with pytest.raises(UserError, match=r"cannot read the image .*dog/1\.png: No such file"):
        data.content(2)
    with pytest.raises(UserError, match=r"cannot read the image .*dog/1\.png: No such file"):
        data.digest()


def test_the_content_of_an_item_in_memory_is_its_numbers():
    digits = load_dataset("digits")
    assert digits.content(5) == digits.items[5].numpy().tobytes()


def test_a_relative_folder_is_looked_for_here_and_then_below_the_folder_of_the_variable(pets, tmp_path, monkeypatch):
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    monkeypatch.setenv("MSGM_DATA", str(tmp_path))
    assert load("pets").names == NAMES
    picture(tmp_path / "here" / "pets" / "cow" / "1.png")
    assert load("pets").names == ["cow/1.png"]
    monkeypatch.delenv("MSGM_DATA")
    with pytest.raises(UserError, match="'others' is no folder"):
        load("others")
