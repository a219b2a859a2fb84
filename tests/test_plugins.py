"""The user's own Python files: what runs is what was imported."""

from msgm.digests import file_digest
from msgm.plugins import digest_of, load_file


def test_a_file_that_is_edited_while_it_is_loaded_has_the_digest_of_what_runs(tmp_path):
    file = tmp_path / "plugin.py"
    file.write_text("VALUE = 1\n")
    before = digest_of(str(file))
    assert before == file_digest(file)
    assert load_file(str(file)).VALUE == 1
    file.write_text("VALUE = 2\n")
    assert load_file(str(file)).VALUE == 1
    assert digest_of(str(file)) == before != file_digest(file)
