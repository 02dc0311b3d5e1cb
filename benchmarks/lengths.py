"""What one long text among many short ones costs: memory and time of an index. Prints a row.

10,000 texts of 20 tokens and one of 4,000, beside as many tokens in texts of 20 alone, indexed for
a small GPT-2 with random weights. Memory is what is resident at most beyond the loaded model and
its data; time is that of the processor, per token.

Run it with `python -m benchmarks.lengths`. Results are in benchmarks/results/lengths.json.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from pathlib import Path
from typing import Any

import torch

from benchmarks.backward import reset, resident
from benchmarks.machine import described

_RESULTS = Path(__file__).parent / "results" / "lengths.json"
_SHORT, _LONG, _VOCABULARY = 20, 4_000, 1_000


def rows_of(lengths: list[int]) -> list[dict[str, Any]]:
    """Return random texts of these lengths."""
    generator = torch.Generator().manual_seed(0)
    return [
        {"input_ids": torch.randint(_VOCABULARY, (length,), generator=generator)}
        for length in lengths
    ]


def measure(lengths: list[int]) -> dict[str, float]:
    """Return megabytes beyond the model and data, and microseconds of the processor per token."""
    from transformers import GPT2Config, GPT2LMHeadModel

    import whence

    torch.manual_seed(0)
    config = GPT2Config(
        vocab_size=_VOCABULARY, n_positions=_LONG, n_embd=64, n_layer=2, n_head=2, use_cache=False
    )
    objective = whence.from_transformers(GPT2LMHeadModel(config).eval(), rows_of([_SHORT] * 8))
    rows = rows_of(lengths)
    with tempfile.TemporaryDirectory() as folder:
        whence.Index.build(objective, Path(folder) / "warm", data=rows[:64], name="warm")
        held = resident("VmRSS")
        reset()
        start = time.process_time()
        whence.Index.build(objective, Path(folder) / "index", data=rows, name="lengths")
        used = time.process_time() - start
    return {
        "megabytes": round((resident("VmHWM") - held) / 1e6, 1),
        "microseconds_per_token": round(1e6 * used / sum(lengths), 2),
    }


def main() -> None:
    """Measure, print and keep the row."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--texts", type=int, default=10_000)
    texts = parser.parse_args().texts
    torch.set_num_threads(1)
    row = {
        "texts": texts,
        "one_long": measure([_SHORT] * texts + [_LONG]),
        "equal": measure([_SHORT] * (texts + _LONG // _SHORT)),
        "machine": described(1),
    }
    _RESULTS.write_text(json.dumps(row, indent=1) + "\n")
    print(json.dumps(row, indent=1))


if __name__ == "__main__":
    main()
