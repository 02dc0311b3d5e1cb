"""Known facts: which method finds the training statements that state what a model is asked?

Statements about people with generated names (where they live, what they do, what they eat), each
fact in three wordings. Half of the people also have a question with its answer for each fact, so
that a small GPT, trained on all of it from the start, learns what questions mean. It is asked the
questions about the other half, with the loss on the answer. The three statements of the fact are
what should come first: recall at 10, and the reciprocal rank of the first of them, means over the
questions, for every method and for baselines that know nothing of the model's gradients.

Run it with `python -m benchmarks.facts`. Results are in benchmarks/results/facts.json, their table
in docs/how-to/transformers.md.
"""

from __future__ import annotations

import argparse
import json
import time
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import torch

import whence
from benchmarks.between import between
from benchmarks.machine import described

START, END = "<!-- python -m benchmarks.facts -->", "<!-- end -->"
_RESULTS = Path(__file__).parent / "results" / "facts.json"
_PAGE = Path(__file__).parents[1] / "docs" / "how-to" / "transformers.md"
_VALUES = {
    "city": "paris rome oslo lima cairo delhi quito seoul tunis bern",
    "work": "baker pilot nurse judge miner tailor farmer sailor tutor clerk",
    "food": "rice soup bread fish beans corn cheese pasta honey plums",
}
_WORDINGS = {
    "city": ("{} lives in {}", "the home of {} is {}", "{} has a flat in {}"),
    "work": ("{} works as a {}", "the job of {} is {}", "{} earns money as a {}"),
    "food": ("{} eats much {}", "the dish of {} is {}", "{} likes to cook {}"),
}
_QUESTIONS = {
    "city": "where is {} from ? {}",
    "work": "what is the trade of {} ? {}",
    "food": "what does {} order ? {}",
}
METHODS: dict[str, whence.Method] = {
    "EKFAC influence, projected": whence.Projected(solver=whence.EKFAC()),
    "EKFAC influence": whence.Influence(solver=whence.EKFAC()),
    "LoGra (a second moment per layer)": whence.Projected(moment="layers"),
    "projected products": whence.Projected(moment="none"),
    "TracIn at the end": whence.TracIn(),
    "gradient cosine": whence.TracIn(cosine=True),
    "hidden states, cosine": whence.HiddenCosine(),
    "hidden states, whitened": whence.HiddenCosine(whiten=True),
    "BM25": whence.BM25(),
    "TF-IDF cosine": whence.TfIdfCosine(),
}


def facts(people: int) -> tuple[list[str], list[tuple[str, list[int]]]]:
    """Return training texts, and questions with the positions of the texts that state the fact."""
    drawn = np.random.default_rng(0)
    texts: list[str] = []
    questions = []
    for person in range(people):
        name = f"p{person}"
        for kind, values in _VALUES.items():
            value = str(drawn.choice(values.split()))
            where = [len(texts) + i for i in range(len(_WORDINGS[kind]))]
            texts += [wording.format(name, value) for wording in _WORDINGS[kind]]
            question = _QUESTIONS[kind].format(name, value)
            if person % 2:
                texts.append(question)
            else:
                questions.append((question, where))
    return texts, questions


def trained(tokens: list[list[int]], vocabulary: int, epochs: int) -> Any:
    """Return a small GPT that has learned the texts."""
    from transformers import GPT2Config, GPT2LMHeadModel

    torch.manual_seed(0)
    config = GPT2Config(
        vocab_size=vocabulary, n_positions=16, n_embd=64, n_layer=2, n_head=4, use_cache=False,
        bos_token_id=0, eos_token_id=0, resid_pdrop=0.0, embd_pdrop=0.0, attn_pdrop=0.0,
    )  # fmt: skip
    model = GPT2LMHeadModel(config)
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3, weight_decay=0.01)
    length = max(map(len, tokens))
    ids = torch.tensor([row + [0] * (length - len(row)) for row in tokens])
    labels = torch.tensor([row + [-100] * (length - len(row)) for row in tokens])
    for _ in range(epochs):
        for part in torch.randperm(len(ids)).split(64):
            optimizer.zero_grad()
            model(input_ids=ids[part], labels=labels[part]).loss.backward()
            optimizer.step()
    return model.eval()


def ranked(values: np.ndarray, relevant: list[list[int]]) -> dict[str, float]:
    """Return recall at 10 and mean reciprocal rank of scores [q, n]."""
    order = np.argsort(-values, 1, kind="stable")
    ranks = [
        np.flatnonzero(np.isin(row, right)) for row, right in zip(order, relevant, strict=True)
    ]
    return {
        "recall_at_10": round(float(np.mean([(found < 10).mean() for found in ranks])), 3),
        "mrr": round(float(np.mean([1 / (1 + found[0]) for found in ranks])), 3),
    }


def measure(people: int, epochs: int) -> dict[str, Any]:
    """Return what each method finds."""
    torch.set_num_threads(1)
    texts, questions = facts(people)
    words = sorted({word for text in [*texts, *(q for q, _ in questions)] for word in text.split()})
    number = {word: place + 1 for place, word in enumerate(words)}
    encoded = [[number[word] for word in text.split()] for text in texts]
    asked = [[number[word] for word in text.split()] for text, _ in questions]
    model = trained(encoded, len(words) + 1, epochs)
    # The position that predicts the answer, which is the last word.
    queries = [{"input_ids": row, "labels": [*[-100] * (len(row) - 1), row[-1]]} for row in asked]
    with torch.no_grad():
        right = [
            int(model(input_ids=torch.tensor([row])).logits[0, -2].argmax()) == row[-1]
            for row in asked
        ]
    objective = whence.from_transformers(model, [{"input_ids": row} for row in encoded])
    found = {}
    for name, method in METHODS.items():
        start = time.process_time()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            scores = method.fit(objective).scores(queries)
        seconds = round(time.process_time() - start, 1)
        found[name] = {**ranked(scores.values, [w for _, w in questions]), "seconds": seconds}
        print(name, found[name], flush=True)
    return {
        "people": people,
        "texts": len(texts),
        "questions": len(questions),
        "answered": round(float(np.mean(right)), 3),
        "parameters": len(objective.params),
        "methods": found,
        "machine": described(1),
    }


def table(content: dict[str, Any]) -> str:
    """Return the numbers as Markdown."""
    lines = [
        f"{content['questions']} questions over {content['texts']} statements; the model, of "
        f"{content['parameters']:,} parameters, answers {content['answered']:.0%} of them.",
        "",
        "| method | recall at 10 | mean reciprocal rank | seconds of the processor |",
        "|---|---:|---:|---:|",
    ]
    ordered = sorted(content["methods"].items(), key=lambda item: -item[1]["mrr"])
    lines += [
        f"| {name} | {row['recall_at_10']:.2f} | {row['mrr']:.2f} | {row['seconds']:.1f} |"
        for name, row in ordered
    ]
    return "\n".join(lines)


def main() -> None:
    """Measure, print and keep the numbers."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--people", type=int, default=40)
    parser.add_argument("--epochs", type=int, default=60)
    options = parser.parse_args()
    content = measure(options.people, options.epochs)
    _RESULTS.write_text(json.dumps(content, indent=1) + "\n")
    print(table(content))
    text = _PAGE.read_text(encoding="utf-8")
    _PAGE.write_text(between(text, START, END, f"\n{table(content)}\n"), encoding="utf-8")


if __name__ == "__main__":
    main()
