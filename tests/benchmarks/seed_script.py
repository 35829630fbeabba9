"""The peer: the course exercise as a plain script, one cell a process, as a shell loop would run it.

It is deliberately self-contained and shares no code with ftbench. As the exercise does, it
tokenises the whole data set with `map` (cached by datasets from one process to the next) and only
then shuffles and selects. It prints one JSON line: the accuracy, and the seconds of its parts.
"""

import argparse
import json
import time

START = time.perf_counter()

import evaluate  # noqa: E402
import numpy as np  # noqa: E402
from datasets import DatasetDict, Features, Value, load_dataset  # noqa: E402
from transformers import (  # noqa: E402
    AutoModelForSequenceClassification,
    AutoTokenizer,
    Trainer,
    TrainingArguments,
    set_seed,
)


class Accuracy(evaluate.Metric):
    """Stands in for evaluate.load("accuracy"), which fetches code from the hub."""

    def _info(self):
        features = Features({"predictions": Value("int64"), "references": Value("int64")})
        return evaluate.MetricInfo(
            description="accuracy", citation="", inputs_description="", features=features
        )

    def _compute(self, predictions, references):
        return {"accuracy": float(np.mean(np.asarray(predictions) == np.asarray(references)))}


def load_reviews(file: str) -> DatasetDict:
    """Read the packaged IMDb rows into a train and a test split, disjoint and balanced."""
    rows = load_dataset("csv", data_files=file, split="train")
    rows = rows.filter(lambda row: row["source"] == "imdb").remove_columns(["source"])
    first = {text: i for i, text in reversed(list(enumerate(rows["text"])))}
    unique = sorted(first.values())
    labels = np.asarray(rows["label"])[unique]
    classes = [np.asarray(unique)[labels == label] for label in (0, 1)]
    size = min(map(len, classes))
    cut = size - round(0.2 * size)
    train = np.concatenate([indices[:cut] for indices in classes])
    test = np.concatenate([indices[cut:size] for indices in classes])
    return DatasetDict(train=rows.select(train), test=rows.select(test))


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--model", required=True)
    parser.add_argument("--data", required=True)
    parser.add_argument("--output", required=True)
    parser.add_argument("--max-length", type=int, required=True)
    parser.add_argument("--batch", type=int, required=True)
    parser.add_argument("--train-size", type=int, required=True)
    parser.add_argument("--eval-size", type=int, required=True)
    parser.add_argument("--learning-rate", type=float, required=True)
    parser.add_argument("--loader-workers", type=int, default=0)
    args = parser.parse_args()

    dataset = load_reviews(args.data)
    tokenizer = AutoTokenizer.from_pretrained(args.model)
    max_length = args.max_length  # not args: the cache of `map` hashes what the function holds

    def tokenize(batch):
        return tokenizer(
            batch["text"], truncation=True, padding="max_length", max_length=max_length
        )

    dataset = dataset.map(tokenize, batched=True)
    dataset = dataset.remove_columns(["text"]).rename_column("label", "labels")
    dataset = dataset.with_format("torch")
    train = dataset["train"].shuffle(seed=42).select(range(args.train_size))
    test = dataset["test"].shuffle(seed=42).select(range(args.eval_size))
    tokenised = time.perf_counter()

    set_seed(42)
    model = AutoModelForSequenceClassification.from_pretrained(args.model, num_labels=2)
    metric = Accuracy()

    def compute_metrics(prediction):
        logits, labels = prediction
        return metric.compute(predictions=np.argmax(logits, axis=-1), references=labels)

    arguments = TrainingArguments(
        output_dir=args.output,
        num_train_epochs=3,
        per_device_train_batch_size=args.batch,
        per_device_eval_batch_size=8,
        learning_rate=args.learning_rate,
        weight_decay=0.01,
        eval_strategy="epoch",
        save_strategy="epoch",
        logging_steps=100,
        load_best_model_at_end=True,
        metric_for_best_model="accuracy",
        report_to="none",
        disable_tqdm=True,
        use_cpu=True,
        dataloader_num_workers=args.loader_workers,
    )
    trainer = Trainer(
        model=model,
        args=arguments,
        train_dataset=train,
        eval_dataset=test,
        processing_class=tokenizer,
        compute_metrics=compute_metrics,
    )
    result = trainer.train()
    trainer.log_metrics("train", result.metrics)
    trainer.save_metrics("train", result.metrics)
    trainer.save_model()
    trainer.save_state()
    metrics = trainer.evaluate()
    trainer.log_metrics("eval", metrics)
    trainer.save_metrics("eval", metrics)
    ended = time.perf_counter()
    seconds = {"before_training": tokenised - START, "training": ended - tokenised}
    print(json.dumps({"accuracy": metrics["eval_accuracy"], **seconds}))


if __name__ == "__main__":
    main()
