"""Unlearning for recommenders: models that forget exactly where mathematics allows it, and methods that approximate.

    model = msgm.recommender.EASE().fit(matrix)         # sparse, users x items
    ids, scores = model.recommend([0, 7], N=10)
    answer = model.forget(users=[7])

The names below are imported on first use. Type checkers read the imports under ``TYPE_CHECKING``.
"""

from msgm.lazy import on_first_use

TYPE_CHECKING = False
if TYPE_CHECKING:
    from msgm.recommender.models.adversarial_mult_vae import AdversarialMultVAE as AdversarialMultVAE
    from msgm.recommender.models.als import ALS as ALS
    from msgm.recommender.models.bpr import BPR as BPR
    from msgm.recommender.models.ease import EASE as EASE
    from msgm.recommender.models.item_knn import ItemKNN as ItemKNN
    from msgm.recommender.models.lightgcn import LightGCN as LightGCN
    from msgm.recommender.models.mf import MF as MF
    from msgm.recommender.models.mult_vae import MultVAE as MultVAE
    from msgm.recommender.models.plugged import Plugged as Plugged
    from msgm.recommender.models.session_knn import SessionKNN as SessionKNN
    from msgm.recommender.models.user_knn import UserKNN as UserKNN
    from msgm.recommender.sharding.laser import SequentialRecommender as SequentialRecommender
    from msgm.recommender.sharding.system import ShardedRecommender as ShardedRecommender
    from msgm.recommender.whatif import what_if as what_if

_HOME = {
    "AdversarialMultVAE": "msgm.recommender.models.adversarial_mult_vae",
    "ALS": "msgm.recommender.models.als",
    "BPR": "msgm.recommender.models.bpr",
    "EASE": "msgm.recommender.models.ease",
    "ItemKNN": "msgm.recommender.models.item_knn",
    "LightGCN": "msgm.recommender.models.lightgcn",
    "MF": "msgm.recommender.models.mf",
    "MultVAE": "msgm.recommender.models.mult_vae",
    "Plugged": "msgm.recommender.models.plugged",
    "SessionKNN": "msgm.recommender.models.session_knn",
    "UserKNN": "msgm.recommender.models.user_knn",
    "SequentialRecommender": "msgm.recommender.sharding.laser",
    "ShardedRecommender": "msgm.recommender.sharding.system",
    "what_if": "msgm.recommender.whatif",
}

__all__ = list(_HOME)
__getattr__ = on_first_use(__name__, _HOME)
