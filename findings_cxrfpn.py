"""Names of findings: the 14 of NIH, and which names of other collections mean the same. Needs nothing to import."""

import re
from collections.abc import Iterable, Sequence

# The order of Wang et al. (CVPR 2017), which most published predictions share. Everything else maps by name.
FINDINGS: tuple[str, ...] = (
    "Atelectasis",
    "Cardiomegaly",
    "Effusion",
    "Infiltration",
    "Mass",
    "Nodule",
    "Pneumonia",
    "Pneumothorax",
    "Consolidation",
    "Edema",
    "Emphysema",
    "Fibrosis",
    "Pleural_Thickening",
    "Hernia",
)

# Other collections' names (as `normalise_name` writes them) -> ours. CheXpert and MIMIC-CXR, PadChest, VinDr-CXR, RSNA
# and SIIM. Only names that mean the same are here: "Nodule/Mass" is neither a nodule nor a mass, and has no entry.
ALIASES = {
    "pleural effusion": "effusion",
    "pleural effusions": "effusion",
    "infiltrates": "infiltration",
    "infiltrate": "infiltration",
    "pulmonary edema": "edema",
    "pulmonary oedema": "edema",
    "oedema": "edema",
    "pulmonary mass": "mass",
    "lung mass": "mass",
    "lung tumor": "mass",
    "pulmonary nodule": "nodule",
    "lung nodule": "nodule",
    "pulmonary fibrosis": "fibrosis",
    "lung fibrosis": "fibrosis",
    "pleural thickening": "pleural thickening",
    "hiatal hernia": "hernia",
    "hiatus hernia": "hernia",
    "pulmonary emphysema": "emphysema",
    "pulmonary consolidation": "consolidation",
    "lung consolidation": "consolidation",
    "cardiac enlargement": "cardiomegaly",
    "enlarged heart": "cardiomegaly",
    "pneumo thorax": "pneumothorax",
    "lung opacity": "lung opacity",
    "airspace opacity": "lung opacity",
    "ild": "interstitial lung disease",
}


def normalise_name(name: str) -> str:
    """Return a finding's name in the form that is compared: lower case, single spaces, our word for an alias."""
    plain = " ".join(re.split(r"[\s_\-]+", name.strip().lower()))
    return ALIASES.get(plain, plain)


def match_findings(names: Sequence[str], known: Iterable[str]) -> dict[int, int]:
    """Return which of `names` mean the same as one of `known`, as {place in names: place in known}."""
    places = {normalise_name(name): place for place, name in reversed(list(enumerate(known)))}
    found = {place: places.get(normalise_name(name)) for place, name in enumerate(names)}
    return {place: where for place, where in found.items() if where is not None}
