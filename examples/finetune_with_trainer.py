"""Fine-tune on your own findings with transformers' Trainer: examples/finetune_with_trainer.py ward.csv runs/ward

ward.csv has a column `image` (paths beside the table), optionally `age`, `sex` and `view_position`, and a column for
each finding: 1 is present, 0 is absent, an empty cell or -1 is unknown and does not count.
"""

import argparse
from pathlib import Path

import pandas as pd
import torch
from transformers import Trainer, TrainingArguments

from loading_cxrfpn import load_pipeline
from modeling_cxrfpn import CxrFpnForImageClassification
from pipeline_cxrfpn import ChestXrayFindingsPipeline

KNOWN_COLUMNS = ("image", "age", "sex", "view_position")
# Trainer leaves these labels out when it counts those of a step.
UNKNOWN = -100.0


class Radiographs(torch.utils.data.Dataset):
    """The rows of a table as Trainer takes them; a pipeline reads image and patient as it does for predictions."""

    def __init__(self, table: pd.DataFrame, folder: Path, pipe: ChestXrayFindingsPipeline):
        self.findings = [column for column in table.columns if column not in KNOWN_COLUMNS]
        patient = [column for column in table.columns if column in KNOWN_COLUMNS]
        self.rows = table[patient].astype(object).where(table[patient].notna(), None).to_dict("records")
        self.labels = table[self.findings].fillna(-1).astype("float32").to_numpy()
        self.folder, self.pipe = folder, pipe

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index: int) -> dict[str, torch.Tensor]:
        row = self.rows[index]
        inputs = self.pipe.preprocess({**row, "image": self.folder / row["image"]})
        labels = torch.from_numpy(self.labels[index])
        return {
            "pixel_values": inputs["pixel_values"][0],
            "patient": inputs["patient"][0],
            "labels": labels.masked_fill(labels < 0, UNKNOWN),
        }


def main() -> None:
    """Run the command."""
    parser = argparse.ArgumentParser(description="Fine-tune a package on the findings of a table.")
    parser.add_argument("table", type=Path, help="a CSV: image, any of age, sex and view_position, and the findings")
    parser.add_argument("output", type=Path, help="the folder of the new package")
    parser.add_argument("--model", default=".", help="the package that training starts from (default: this folder)")
    parser.add_argument("--epochs", type=float, default=3, help="passes over the table (default 3)")
    parser.add_argument("--batch-size", type=int, default=16, help="radiographs of a step (default 16)")
    parser.add_argument("--learning-rate", type=float, default=1e-4, help="of AdamW (default 0.0001)")
    arguments = parser.parse_args()
    pipe = load_pipeline(arguments.model)
    data = Radiographs(pd.read_csv(arguments.table), arguments.table.parent, pipe)
    # Findings that the package knows, by any of their usual names, keep what their rows of the head have learnt.
    model = CxrFpnForImageClassification.from_pretrained(
        arguments.model, id2label=dict(enumerate(data.findings)), ignore_mismatched_sizes=True
    )
    settings = TrainingArguments(
        str(arguments.output / "trainer"), num_train_epochs=arguments.epochs, learning_rate=arguments.learning_rate,
        per_device_train_batch_size=arguments.batch_size, logging_steps=10, report_to=[], save_strategy="no",
    )  # fmt: skip
    trainer = Trainer(model=model, args=settings, train_dataset=data)
    trainer.train()
    trainer.save_model(str(arguments.output))
    print(f"model package: {arguments.output}")


if __name__ == "__main__":
    main()
