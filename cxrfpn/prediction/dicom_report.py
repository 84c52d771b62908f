"""One film's findings as a DICOM structured report by TID 1500, with the same study and patient id as the film."""

import hashlib

import highdicom as hd
from pydicom import Dataset
from pydicom.sr.codedict import codes
from pydicom.sr.coding import Code
from pydicom.uid import generate_uid

from answer_cxrfpn import Answer
from thresholds_cxrfpn import ABSENT, ANY_FINDING, PRESENT, UNCERTAIN, FindingAnswer

NAME = "cxr-densenet-fpn"
NOT_CLINICAL = "Not for clinical use"
# A scheme of our own: the standard has no code for the output of a network.
SCHEME = "99CXRFPN"
SCORE = Code("score", SCHEME, "Score")
THRESHOLD = Code("threshold", SCHEME, "Threshold of the score")
CALIBRATED = Code("probability", SCHEME, "Calibrated probability")
CALL = Code("call", SCHEME, "Score at or above its threshold")
THREE_WAY_CALL = Code("three-way-call", SCHEME, "Present, absent or uncertain")
CALL_CODES = {
    PRESENT: codes.SCT.Present,
    ABSENT: codes.SCT.Absent,
    UNCERTAIN: Code("64957009", "SCT", "Uncertain"),
}
CHEST_RADIOGRAPH = Code("399208008", "SCT", "Plain chest X-ray")
FINDING_CODES = {
    "Atelectasis": Code("46621007", "SCT", "Atelectasis"),
    "Cardiomegaly": Code("8186001", "SCT", "Cardiomegaly"),
    "Consolidation": Code("95436008", "SCT", "Lung consolidation"),
    "Edema": codes.SCT.PulmonaryEdema,
    "Effusion": codes.SCT.PleuralEffusion,
    "Emphysema": Code("87433001", "SCT", "Pulmonary emphysema"),
    "Fibrosis": codes.SCT.Fibrosis,
    "Hernia": Code("84089009", "SCT", "Hiatal hernia"),
    "Infiltration": codes.DCM.Infiltrate,
    "Mass": codes.SCT.Mass,
    "Nodule": codes.SCT.Nodule,
    "Pleural_Thickening": Code("pleural-thicken", SCHEME, "Pleural thickening"),
    "Pneumonia": Code("233604007", "SCT", "Pneumonia"),
    "Pneumothorax": codes.SCT.Pneumothorax,
    ANY_FINDING: Code("any-finding", SCHEME, "Any of the findings"),
}
# What of a film's header goes into its outputs: what links them. Names and dates of birth stay where they are.
LINKS = ("StudyInstanceUID", "SeriesInstanceUID", "SOPInstanceUID", "SOPClassUID")
_COPIED = (*LINKS, "SpecificCharacterSet", "IssuerOfPatientID", "SeriesNumber", "Modality")
# An output must have these, empty where the film has none (type 2).
_NEEDED = ("PatientID", "PatientSex", "StudyDate", "StudyTime", "StudyID", "AccessionNumber")
_LEFT_EMPTY = ("PatientName", "PatientBirthDate", "ReferringPhysicianName")


def uid_of(film: Dataset, version: str, part: str) -> str:
    """Return a UID for what this version of the model makes of a film: the same one each time."""
    return generate_uid(entropy_srcs=[NAME, version, part, str(film.SOPInstanceUID)])


def linking_header(film: Dataset) -> Dataset:
    """Return what of a film's header links an output to it.

    Raises:
        ValueError: it lacks one of LINKS.
    """
    if lacking := [keyword for keyword in LINKS if not film.get(keyword)]:
        raise ValueError(f"it lacks {', '.join(lacking)}")
    header = Dataset()
    for keyword in (*_COPIED, *_NEEDED):
        if keyword in film:
            setattr(header, keyword, film.get(keyword))
    for keyword in (*_LEFT_EMPTY, *(keyword for keyword in _NEEDED if keyword not in header)):
        setattr(header, keyword, "")
    return header


def make_report(film: Dataset, answer: Answer, version: str, operating_point: str) -> Dataset:
    """Make a Comprehensive SR: for any finding, and for each, its score, threshold, probability and calls.

    Args:
        film: the header of the film.
        answer: of the pipeline.
        version: of the model.
        operating_point: whose thresholds called.

    Raises:
        ValueError: the header lacks one of LINKS.
    """
    remarks = [f"{NOT_CLINICAL}. Operating point: {operating_point}.", *answer.notes]
    algorithm = hd.sr.AlgorithmIdentification(NAME, version, parameters=remarks)
    source = hd.sr.SourceImageForMeasurementGroup(film.SOPClassUID, film.SOPInstanceUID)
    findings = [answer.any_finding, *answer] if answer.any_finding else answer
    groups = [_group(finding, film, source, algorithm, version) for finding in findings]
    device = hd.sr.DeviceObserverIdentifyingAttributes(
        uid=generate_uid(entropy_srcs=[NAME, version]), name=NAME, manufacturer_name=NAME, model_name=version
    )
    observer = hd.sr.ObserverContext(codes.DCM.Device, device)
    report = hd.sr.MeasurementReport(
        observation_context=hd.sr.ObservationContext(observer_device_context=observer),
        procedure_reported=CHEST_RADIOGRAPH,
        imaging_measurements=groups,
        title=codes.DCM.ImagingMeasurementReport,
    )
    document = hd.sr.ComprehensiveSR(
        evidence=[linking_header(film)],
        content=report[0],
        series_instance_uid=uid_of(film, version, "report series"),
        series_number=9901,
        sop_instance_uid=uid_of(film, version, "report"),
        instance_number=1,
        manufacturer=NAME,
        is_complete=True,
        is_final=False,
    )
    document.SeriesDescription = f"{NAME} {version}: {NOT_CLINICAL.lower()}"
    return document


def _own_code(label: str) -> Code:
    """Return a code of our scheme for a finding that is none of the 14: at most 16 characters, always the same."""
    return Code(f"finding-{hashlib.sha256(label.encode()).hexdigest()[:8]}", SCHEME, label.replace("_", " ")[:64])


def _group(
    finding: FindingAnswer,
    film: Dataset,
    source: hd.sr.SourceImageForMeasurementGroup,
    algorithm: hd.sr.AlgorithmIdentification,
    version: str,
) -> hd.sr.MeasurementsAndQualitativeEvaluations:
    label = finding["label"]
    values = {SCORE: finding["score"], THRESHOLD: finding["threshold"], CALIBRATED: finding["probability"]}
    calls = {CALL: codes.SCT.Present if finding["positive"] else codes.SCT.Absent}
    if finding["call"] is not None:
        calls[THREE_WAY_CALL] = CALL_CODES[finding["call"]]
    return hd.sr.MeasurementsAndQualitativeEvaluations(
        tracking_identifier=hd.sr.TrackingIdentifier(uid=uid_of(film, version, label), identifier=label),
        finding_type=FINDING_CODES.get(label) or _own_code(label),
        algorithm_id=algorithm,
        measurements=[
            hd.sr.Measurement(name=name, value=round(float(value), 6), unit=codes.UCUM.NoUnits)
            for name, value in values.items()
            if value is not None
        ],
        qualitative_evaluations=[hd.sr.QualitativeEvaluation(name, value) for name, value in calls.items()],
        source_images=[source],
    )
