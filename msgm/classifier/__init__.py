"""Unlearning for classifiers: methods with one signature, metrics against a band of retrained models, and an audit.

    made = msgm.classifier.Scrub().forget(module, dataset, msgm.ForgetRequest(labels=[3]))

The methods below are imported on first use. Type checkers read the imports under ``TYPE_CHECKING``.
"""

from msgm.lazy import on_first_use

TYPE_CHECKING = False
if TYPE_CHECKING:
    from msgm.classifier.methods.amnesiac import Amnesiac as Amnesiac
    from msgm.classifier.methods.bad_teacher import BadTeacher as BadTeacher
    from msgm.classifier.methods.boundary_expand import BoundaryExpand as BoundaryExpand
    from msgm.classifier.methods.boundary_shrink import BoundaryShrink as BoundaryShrink
    from msgm.classifier.methods.cf_k import CFk as CFk
    from msgm.classifier.methods.do_nothing import DoNothing as DoNothing
    from msgm.classifier.methods.eu_k import EUk as EUk
    from msgm.classifier.methods.finetune import FineTune as FineTune
    from msgm.classifier.methods.fisher import Fisher as Fisher
    from msgm.classifier.methods.forsaken import Forsaken as Forsaken
    from msgm.classifier.methods.influence import Influence as Influence
    from msgm.classifier.methods.l1_sparse import L1Sparse as L1Sparse
    from msgm.classifier.methods.neggrad import NegGrad as NegGrad
    from msgm.classifier.methods.neggrad_plus import NegGradPlus as NegGradPlus
    from msgm.classifier.methods.newton_certified import NewtonCertified as NewtonCertified
    from msgm.classifier.methods.random_label import RandomLabel as RandomLabel
    from msgm.classifier.methods.retrain import Retrain as Retrain
    from msgm.classifier.methods.salun import SalUn as SalUn
    from msgm.classifier.methods.scrub import Scrub as Scrub
    from msgm.classifier.methods.sisa import Sisa as Sisa
    from msgm.classifier.methods.ssd import SSD as SSD
    from msgm.classifier.methods.task_vector import TaskVector as TaskVector

_HOME = {
    "Amnesiac": "msgm.classifier.methods.amnesiac",
    "BadTeacher": "msgm.classifier.methods.bad_teacher",
    "BoundaryExpand": "msgm.classifier.methods.boundary_expand",
    "BoundaryShrink": "msgm.classifier.methods.boundary_shrink",
    "CFk": "msgm.classifier.methods.cf_k",
    "DoNothing": "msgm.classifier.methods.do_nothing",
    "EUk": "msgm.classifier.methods.eu_k",
    "FineTune": "msgm.classifier.methods.finetune",
    "Fisher": "msgm.classifier.methods.fisher",
    "Forsaken": "msgm.classifier.methods.forsaken",
    "Influence": "msgm.classifier.methods.influence",
    "L1Sparse": "msgm.classifier.methods.l1_sparse",
    "NegGrad": "msgm.classifier.methods.neggrad",
    "NegGradPlus": "msgm.classifier.methods.neggrad_plus",
    "NewtonCertified": "msgm.classifier.methods.newton_certified",
    "RandomLabel": "msgm.classifier.methods.random_label",
    "Retrain": "msgm.classifier.methods.retrain",
    "SalUn": "msgm.classifier.methods.salun",
    "Scrub": "msgm.classifier.methods.scrub",
    "Sisa": "msgm.classifier.methods.sisa",
    "SSD": "msgm.classifier.methods.ssd",
    "TaskVector": "msgm.classifier.methods.task_vector",
}

__all__ = list(_HOME)
__getattr__ = on_first_use(__name__, _HOME)
