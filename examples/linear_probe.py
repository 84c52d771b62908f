"""A logistic regression on embeddings, and its AUROC: examples/linear_probe.py ward/ ward.csv --finding TB

ward.csv has a column `image` (names in the folder), a column of 0 and 1 named by --finding, and, where patients have
several radiographs, a column `patient_id`.
"""

import argparse
from pathlib import Path

import numpy as np
import pandas as pd
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GroupKFold, cross_val_predict
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from cxrfpn.evaluation.intervals import Bootstrap, interval
from loading_cxrfpn import load_pipeline


def main() -> None:
    """Run the command."""
    parser = argparse.ArgumentParser(description="Fit a logistic regression on embeddings, patients held out in turn.")
    parser.add_argument("folder", type=Path, help="the folder of the radiographs")
    parser.add_argument("labels", type=Path, help="a CSV: image, the finding, and optionally patient_id")
    parser.add_argument("--finding", required=True, help="the column of 0 and 1; other rows are left out")
    parser.add_argument("--model", default=".", help="the package whose embeddings are used (default: this folder)")
    parser.add_argument("--folds", type=int, default=5, help="parts that are held out in turn (default 5)")
    arguments = parser.parse_args()
    table = pd.read_csv(arguments.labels)
    table = table[table[arguments.finding].isin([0, 1])].reset_index(drop=True)
    patients = table.get("patient_id", table["image"]).astype(str).to_numpy()
    labels = table[arguments.finding].to_numpy(dtype=int)
    paths = [arguments.folder / name for name in table["image"]]
    answers = load_pipeline(arguments.model)(paths, embedding=True, batch_size=16)
    embeddings = np.stack([answer.embedding for answer in answers])
    probe = make_pipeline(StandardScaler(), LogisticRegression(C=0.01, max_iter=1000))
    folds = GroupKFold(arguments.folds)
    scores = cross_val_predict(probe, embeddings, labels, groups=patients, cv=folds, method="predict_proba")[:, [1]]
    bootstrap = Bootstrap.draw(patients)
    auroc = bootstrap.once().auroc(labels[:, None], scores).item()
    low, high = interval(bootstrap.auroc(labels[:, None], scores)[:, 0])
    print(f"{arguments.finding}: AUROC {auroc:.3f} ({low:.3f} to {high:.3f}) on {len(labels)} radiographs")


if __name__ == "__main__":
    main()
