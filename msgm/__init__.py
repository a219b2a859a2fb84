"""msgm: make a trained model forget, and show honestly what it forgot.

The public names below are imported on first use, so that ``import msgm`` and ``msgm --help`` stay fast
(and nothing of weight is imported before Ctrl-C is handled, in ``msgm.__main__``). Type checkers read the imports
under ``TYPE_CHECKING``.
"""

from msgm.lazy import on_first_use

TYPE_CHECKING = False
if TYPE_CHECKING:
    from msgm.api.fit import edit as edit
    from msgm.api.fit import fit as fit
    from msgm.api.metrics import CopyRate as CopyRate
    from msgm.api.metrics import ForgettingRate as ForgettingRate
    from msgm.api.metrics import JunkRate as JunkRate
    from msgm.api.metrics import MembershipAUC as MembershipAUC
    from msgm.api.metrics import UnlearningRatio as UnlearningRatio
    from msgm.api.report import Report as Report
    from msgm.api.sharded import ShardedModel as ShardedModel
    from msgm.api.tuning import tune as tune
    from msgm.api.verbs import compare as compare
    from msgm.api.verbs import evaluate as evaluate
    from msgm.api.verbs import train as train
    from msgm.api.verbs import unlearn as unlearn
    from msgm.config import Config as Config
    from msgm.config import load_config as load_config
    from msgm.data import load_dataset as load_dataset
    from msgm.diffusion import DDPM as DDPM
    from msgm.diffusion import VE as VE
    from msgm.diffusion import VP as VP
    from msgm.diffusion import Process as Process
    from msgm.diffusion import ScoreModel as ScoreModel
    from msgm.diffusion import SubVP as SubVP
    from msgm.diffusion import log_likelihood as log_likelihood
    from msgm.diffusion import sample as sample
    from msgm.errors import RunError as RunError
    from msgm.errors import UserError as UserError
    from msgm.objectives import EraseDiff as EraseDiff
    from msgm.objectives import Objective as Objective
    from msgm.objectives import Obtuse as Obtuse
    from msgm.objectives import Orthogonal as Orthogonal
    from msgm.objectives import Redirect as Redirect
    from msgm.objectives import Standard as Standard
    from msgm.objectives import Subtract as Subtract
    from msgm.objectives import Unseen as Unseen
    from msgm.requests import Concept as Concept
    from msgm.requests import ForgetRequest as ForgetRequest
    from msgm.runs import Run as Run

__version__ = "0.4.0"

_PUBLIC = {
    "msgm.api.fit": ("edit", "fit"),
    "msgm.api.metrics": ("CopyRate", "ForgettingRate", "JunkRate", "MembershipAUC", "UnlearningRatio"),
    "msgm.api.report": ("Report",),
    "msgm.api.sharded": ("ShardedModel",),
    "msgm.api.tuning": ("tune",),
    "msgm.api.verbs": ("compare", "evaluate", "train", "unlearn"),
    "msgm.config": ("Config", "load_config"),
    "msgm.data": ("load_dataset",),
    "msgm.diffusion": ("DDPM", "VE", "VP", "Process", "ScoreModel", "SubVP", "log_likelihood", "sample"),
    "msgm.errors": ("RunError", "UserError"),
    "msgm.objectives": ("EraseDiff", "Objective", "Obtuse", "Orthogonal", "Redirect", "Standard", "Subtract", "Unseen"),
    "msgm.requests": ("Concept", "ForgetRequest"),
    "msgm.runs": ("Run",),
}
_MODULES = {name: f"msgm.{name}" for name in ("classifier", "recommender", "testing")}
_HOME = {name: module for module, names in _PUBLIC.items() for name in names}

__all__ = ["__version__", *_HOME, *_MODULES]
__getattr__ = on_first_use(__name__, _HOME | _MODULES)


def __dir__() -> list[str]:
    return sorted(__all__)
