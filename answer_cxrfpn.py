"""What a pipeline takes and gives, whichever engine runs the network: a radiograph with its patient, and an answer."""

import logging
from collections.abc import Hashable, Iterable, Mapping, Sequence
from functools import cache

import numpy as np

try:  # inside a package made by transformers (from_pretrained); beside the scripts, the plain name
    from .patient_cxrfpn import PATIENT_KEYS, Patient
    from .thresholds_cxrfpn import FindingAnswer, Thresholds, sigmoid
except ImportError:
    from patient_cxrfpn import PATIENT_KEYS, Patient
    from thresholds_cxrfpn import FindingAnswer, Thresholds, sigmoid

logger = logging.getLogger(__name__)


class Answer(list[FindingAnswer]):
    """The findings of one radiograph, the highest score first: a list of mappings, and more as attributes.

    Args:
        findings: mappings with `label`, `score`, `probability`, `threshold`, `positive` and `call`, and `map` where
            asked for.
        notes: short sentences on what the findings may not hold for, such as a lateral view. Normally empty.
        embedding: the pooled features of the network, an array [levels * pyramid_channels], where asked for.
        any_finding: whether any of the findings is there, a mapping like theirs; None where thresholds.json does not
            say.
        fit: how well the picture fits what the network was trained on, 0..1; None where it was not looked at.
    """

    def __init__(
        self,
        findings: Iterable[FindingAnswer] = (),
        notes: Iterable[str] = (),
        embedding: np.ndarray | None = None,
        any_finding: FindingAnswer | None = None,
        fit: float | None = None,
    ):
        super().__init__(findings)
        self.notes = list(notes)
        self.embedding = embedding
        self.any_finding = any_finding
        self.fit = fit

    def called(self, call: str) -> list[str]:
        """Return the labels of the findings with this three-way call, the highest score first."""
        return [finding["label"] for finding in self if finding["call"] == call]

    def to_dict(self) -> dict[str, object]:
        """Return `fit`, `any_finding`, `findings` and `notes`, without maps: ready for JSON."""
        plain = [{key: value for key, value in finding.items() if key != "map"} for finding in self]
        return {"fit": self.fit, "any_finding": self.any_finding, "findings": plain, "notes": self.notes}


def split_input(inputs: object) -> tuple[object, Patient]:
    """Split what a pipeline takes, a radiograph or a mapping of it and its patient, into the two.

    Keys that mean nothing here are named once in a warning.

    Raises:
        ValueError: a mapping without an image, or values that are no patient's.
    """
    known = _fields(inputs)
    if "image" not in known:
        raise ValueError(f"an input needs the key 'image'; it has {', '.join(map(str, known)) or 'none'}")
    if others := sorted(str(key) for key in set(known) - {"image", *PATIENT_KEYS}):
        _warn_once(f"not read of an input: {', '.join(others)}; read are image, {', '.join(PATIENT_KEYS)}")
    return known["image"], Patient(**{key: known.get(key) for key in PATIENT_KEYS})


def _fields(inputs: object) -> dict[Hashable, object]:
    """Name what an input says: a mapping, or a row of pandas, as it is, and anything else as an image."""
    if hasattr(inputs, "_asdict"):  # a row of itertuples
        inputs = {key: value for key, value in inputs._asdict().items() if key != "Index"}
    elif hasattr(inputs, "iloc") and hasattr(inputs, "to_dict"):  # a row of iterrows
        inputs = inputs.to_dict()
    if isinstance(inputs, Mapping) and not inputs.keys() <= {"bytes", "path"}:
        return dict(inputs)
    return {"image": inputs}


@cache
def _warn_once(text: str) -> None:
    logger.warning(text)


def make_answer(
    logits: Sequence[float],
    findings: Sequence[str],
    thresholds: Thresholds,
    operating_point: str | None = None,
    notes: Iterable[str] = (),
    maps: np.ndarray | None = None,
    embedding: np.ndarray | None = None,
    fit: float | None = None,
) -> Answer:
    """Turn the logits of one radiograph into its findings, the highest score first.

    Args:
        logits: [F], in the order of `findings`.
        findings: their names.
        thresholds: of the model.
        operating_point: one of the thresholds' own; None for the default.
        notes: of the answer.
        maps: [F,h,w] of 0..1, or None.
        embedding: of the answer, or None.
        fit: of the answer, or None.

    Raises:
        ThresholdsError: no operating point has this name.
    """
    chosen = thresholds.at(operating_point)
    answers = []
    for index, (label, logit) in enumerate(zip(findings, logits, strict=True)):
        score = sigmoid(logit)
        finding: FindingAnswer = {
            "label": label,
            "score": score,
            "probability": thresholds.probability(label, logit),
            "threshold": chosen[label],
            "positive": score >= chosen[label],
            "call": thresholds.call(label, score),
        }
        if maps is not None:
            finding["map"] = maps[index]
        answers.append(finding)
    answers.sort(key=lambda finding: finding["score"], reverse=True)
    any_finding = thresholds.answer_any(dict(zip(findings, logits, strict=True)), operating_point)
    return Answer(answers, notes, embedding, any_finding, fit)
