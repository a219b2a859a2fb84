import numpy as np
import pytest
from scipy.sparse import csr_array

from msgm.errors import UserError
from msgm.recommender.attributes.obfuscation import Obfuscation, typicality
from tests.recommender.attributes.planted import cells, labelled


def test_typicality_is_the_log_ratio_of_smoothed_shares():
    dense = np.array([[1, 0], [1, 1], [0, 1], [0, 1], [0, 0]], dtype=np.float32)
    found = typicality(csr_array(dense), labelled(np.array(["F", "F", "M", "M", "M"])))
    shares = np.array([[3 / 4, 2 / 4], [1 / 5, 3 / 5]])
    assert np.allclose(found, np.log(shares) - np.log(shares[::-1]))


def test_the_most_typical_cells_go_and_no_more_than_the_share():
    matrix, texts = cells()
    labels = labelled(texts)
    after = Obfuscation(0.25).apply(matrix, {"gender": texts})
    typical = typicality(matrix, labels)
    for user, code in enumerate(labels.codes):
        before = set(matrix.indices[matrix.indptr[user] : matrix.indptr[user + 1]].tolist())
        kept = set(after.indices[after.indptr[user] : after.indptr[user + 1]].tolist())
        gone = before - kept
        assert kept <= before
        assert len(gone) <= 0.25 * len(before)
        if gone:
            least = min(typical[code, item] for item in gone)
            assert least > 0
            assert all(typical[code, item] <= least for item in kept)
    assert after.nnz < 0.9 * matrix.nnz


def test_profiles_tell_less_of_the_class():
    matrix, texts = cells(users=400)
    after = Obfuscation(0.5).apply(matrix, {"gender": texts})
    own = np.where(texts == "F", 0, 1)

    def share(of):
        return np.mean([of[[u]].toarray()[0, own[u] :: 2].sum() / max(of[[u]].sum(), 1) for u in range(len(own))])

    assert share(matrix) > 0.7
    assert share(after) < share(matrix) - 0.1


def test_a_weight_lowers_values_in_place_of_taking_cells_out():
    matrix, texts = cells()
    gone = Obfuscation(0.25).apply(matrix, {"gender": texts})
    lower = Obfuscation(0.25, 0.5).apply(matrix, {"gender": texts})
    assert lower.nnz == matrix.nnz
    assert lower.dtype == matrix.dtype
    assert np.array_equal((lower.toarray() == 1), gone.toarray() == 1)
    assert set(np.unique(lower.data)) == {0.5, 1.0}


def test_users_without_a_value_keep_their_profiles_and_the_matrix_given_is_kept():
    matrix, texts = cells()
    texts = texts.copy()
    texts[:10] = ""
    copied = matrix.copy()
    after = Obfuscation(0.9).apply(matrix, {"gender": texts})
    assert (after[:10].toarray() == matrix[:10].toarray()).all()
    assert np.diff(after.indptr).min() >= 1
    assert (matrix.toarray() == copied.toarray()).all()


def test_bad_input_is_refused():
    matrix, _ = cells()
    with pytest.raises(UserError, match=r"obfuscation.share must lie in \[0, 1\), got 1"):
        Obfuscation(1.0)
    with pytest.raises(UserError, match="attribute 'gender' has 5 users; the data 80"):
        Obfuscation().apply(matrix, {"gender": np.array(["F", "M", "F", "M", "F"])})
    with pytest.raises(UserError, match="at least two values"):
        Obfuscation().apply(matrix, {"gender": np.full(80, "F")})
