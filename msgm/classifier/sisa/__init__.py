r"""SISA: sharded, isolated, sliced, aggregated training, whose ensemble forgets items exactly.

Bourtoule et al., "Machine Unlearning", IEEE S&P 2021 (arXiv 1912.03817). The N items are split into S shards by a draw
that reads no data, and a model is trained on each shard alone. A shard's items come in R slices: stage r trains on
slices 1..r from the weights of stage r - 1, and these are kept, one checkpoint a (shard, slice). To forget an item
whose slice is j is to delete its shard's checkpoints j..R and to run stages j..R again without it; other shards never
saw it. All models together predict.

Stage r runs e_r = floor(r e) - floor((r - 1) e) epochs with e = 2 e' / (R + 1), so that training visits as many points
as e' epochs over the shard.

What makes it exact, each enforced here:

- shards, slices, first weights and orders follow from the seed, N, S and R and read no item;
- slices are of original positions: a deletion moves no other item;
- every stage starts a fresh optimiser and schedule, in the first training and in a resumed one alike, so on a CPU the
  result after a deletion is, bit for bit, that of training without the item;
- a checkpoint's name hashes the items below it, the data, the hyper-parameters, the first weights and the versions;
- checkpoints that depend on a forgotten item are deleted before anything is trained again.

Not covered: requests that were chosen after looking at the ensemble's outputs weaken the guarantee (Gupta et al.,
NeurIPS 2021), and the file ``ensemble.json`` keeps the numbers of forgotten items, which a resumed training needs.
"""

from msgm.classifier.sisa.ensemble import Ensemble
from msgm.classifier.sisa.layout import Layout
from msgm.classifier.sisa.system import SISA, Work, load_ensemble
from msgm.slices import ExpectedCost, expected_cost

__all__ = ["SISA", "Ensemble", "ExpectedCost", "Layout", "Work", "expected_cost", "load_ensemble"]
