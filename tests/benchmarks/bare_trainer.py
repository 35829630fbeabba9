"""The same training steps in a bare Trainer, with a baton as its last callback."""

import sys
from pathlib import Path

import datasets
import transformers
from transformers import (
    AutoModelForSequenceClassification,
    AutoTokenizer,
    Trainer,
    TrainingArguments,
    set_seed,
)

from tests.benchmarks.baton import Baton


def main() -> None:
    model_folder, train_file, documents, batch, seed, folder, first = sys.argv[1:]
    transformers.utils.logging.disable_progress_bar()
    train = (
        datasets.Dataset.from_file(train_file).select(range(int(documents))).with_format("torch")
    )
    set_seed(int(seed))
    baton = Baton(Path(folder) / "bare", Path(folder) / "harness", first=first == "bare")
    arguments = TrainingArguments(
        output_dir=f"{folder}/bare-output",
        num_train_epochs=1,
        per_device_train_batch_size=int(batch),
        learning_rate=2e-5,
        weight_decay=0.01,
        save_strategy="no",
        eval_strategy="no",
        logging_steps=100,
        report_to="none",
        disable_tqdm=True,
        use_cpu=True,
        seed=int(seed),
    )
    trainer = Trainer(
        model=AutoModelForSequenceClassification.from_pretrained(model_folder, num_labels=2),
        args=arguments,
        train_dataset=train,
        processing_class=AutoTokenizer.from_pretrained(model_folder),
        callbacks=[baton],
    )
    trainer.train()
    baton.write(Path(folder) / "bare.json")


if __name__ == "__main__":
    main()
