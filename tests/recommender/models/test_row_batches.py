import numpy as np
import pytest
from scipy.sparse import csr_array

from msgm.recommender.models import row_batches
from msgm.recommender.models.row_batches import batches, pad
from tests.recommender.models.cells import cells


@pytest.mark.parametrize("most", [1, 50, 4000])
def test_batches_hold_every_cell_once_and_pad_with_zeros(monkeypatch, most):
    monkeypatch.setattr(row_batches, "CELLS", most)
    matrix = cells().tolil()
    matrix[[3, 77]] = 0
    matrix = csr_array(matrix.tocsr())
    matrix.data[:] = np.arange(matrix.nnz) + 1
    table = np.random.default_rng(0).normal(size=(matrix.shape[1], 4)).astype(np.float32)
    rebuilt = np.zeros(matrix.shape)
    for batch in batches(matrix):
        there = batch.columns < matrix.shape[1]
        assert len(batch.rows) == 1 or there.size <= most
        rows = np.repeat(batch.rows, there.sum(1))
        rebuilt[rows, batch.columns[there]] += matrix.data[batch.cells[there]]
        features = batch.features(pad(table))
        assert (features[~there] == 0).all()
        assert (features[there] == table[batch.columns[there]]).all()
    assert (rebuilt == matrix.toarray()).all()


def test_a_matrix_without_cells_has_no_batch():
    assert batches(csr_array((5, 4))) == []
