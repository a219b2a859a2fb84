"""Plain noise prediction on all training items, or on the retain set alone."""

from dataclasses import dataclass

from msgm.objectives.base import OBJECTIVES, Card, Matched, Noised, Predict, Term


class _Denoising(Matched):
    def terms(self, predict: Predict, retain: Noised, forget: Noised | None) -> dict[str, Term]:
        return {self.data: Term(1.0, self.kept_loss(predict, retain))}


@OBJECTIVES.register("standard")
@dataclass
class Standard(_Denoising):
    """Ordinary training on all data.

    Example:
        >>> base = msgm.fit(msgm.ScoreModel.new("unet", "vp"), "digits", msgm.Standard(), steps=2, batch_size=8)
        fit: standard, 2 steps on ...
    """

    data = "all"
    card = Card(
        formula="mean (eps_theta - eps)^2 over all training items",
        source="Song et al., arXiv 2011.13456, eq. 7 with lambda = sigma^2; Ho et al., arXiv 2006.11239, eq. 14",
        deviations="none",
    )


@OBJECTIVES.register("unseen")
@dataclass
class Unseen(_Denoising):
    """Training on the retain set alone: from scratch it is retraining, from a trained model plain fine-tuning.

    Example:
        >>> objective = msgm.Unseen()
        >>> request = msgm.ForgetRequest(labels=[3, 7])
        >>> made = msgm.fit(base, "digits", objective, request, steps=2, batch_size=8)
        fit: unseen, 2 steps on ...
    """

    data = "retain"
    card = Card(
        formula="mean (eps_theta - eps)^2 over the retain set",
        source='arXiv 2412.07229, "Unseen"',
        deviations="none",
    )
