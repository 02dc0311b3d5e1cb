"""What a gradient of a network costs beside the plain module's backward pass. Prints two rows.

GPT-2 of 124 M parameters, from its configuration with random weights, on 4 sequences: the gradient
of their summed loss by `ModuleObjective.gradient_sum` and by the module's own `.backward()`, in
turns, in processor seconds of one thread, since that is what a shared machine can repeat. Memory is
what is resident beyond what was before, over the size of the model: `..._memory` in a process as it
is, where the heap of glibc keeps what was freed for later, and `..._held` in one that gives blocks
of 256 KB and more back to the system at once, so that what is counted is in use.

Run it with `python -m benchmarks.backward [tokens] [label]`, `PYTHONPATH` set to the `src` of the
revision to measure. Results are in benchmarks/results/backward.json.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import torch
from torch.nn import functional

from benchmarks.machine import described

_SEQUENCES, _REPEATS = 4, 4
_RESULTS = Path(__file__).parent / "results" / "backward.json"


def resident(kind: str) -> float:
    """Return resident bytes: "VmRSS" now, "VmHWM" at most since `reset`."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return 1024.0 * next(int(line.split()[1]) for line in lines if line.startswith(kind))


def reset() -> None:
    """Begin a new high-water mark."""
    Path("/proc/self/clear_refs").write_text("5")


def best(call: Any) -> float:
    """Return processor seconds, the best of a few calls after one that is not counted."""
    call()
    times = []
    for _ in range(_REPEATS):
        start = time.process_time()
        call()
        times.append(time.process_time() - start)
    return min(times)


def measure(tokens: int, label: str) -> dict[str, Any]:
    """Return the row of one length of the sequences."""
    from transformers import GPT2Config, GPT2LMHeadModel

    import whence

    torch.set_num_threads(1)
    torch.manual_seed(0)
    model = GPT2LMHeadModel(GPT2Config()).eval()
    size = float(sum(p.numel() * p.element_size() for p in model.parameters()))
    ids = torch.randint(50257, (_SEQUENCES, tokens))
    make, base = whence.from_transformers, resident("VmRSS")
    reset()
    start = time.process_time()
    objective = make(model, [{"input_ids": row} for row in ids], batch_size=_SEQUENCES)
    construct_s, construct = time.process_time() - start, resident("VmHWM") - base
    ones, held = torch.ones(_SEQUENCES, 1), resident("VmRSS")
    reset()
    found = objective.gradient_sum(objective.train, objective.loss, ones)[:, 0]
    gradient = resident("VmHWM") - held

    def plain() -> None:
        model.zero_grad(set_to_none=True)
        logits = model(input_ids=ids, attention_mask=torch.ones_like(ids)).logits[:, :-1]
        functional.cross_entropy(
            logits.flatten(0, 1), ids[:, 1:].flatten(), reduction="sum"
        ).backward()

    held = resident("VmRSS")
    reset()
    plain()
    own = resident("VmHWM") - held
    truth = torch.cat([p.grad.flatten() for p in model.parameters() if p.grad is not None])
    off = float((found - truth).abs().max() / truth.abs().max())
    del found, truth
    ours_s = best(lambda: objective.gradient_sum(objective.train, objective.loss, ones))
    plain_s = best(plain)
    return {
        "label": label,
        "parameters": len(objective.params),
        "sequences": _SEQUENCES,
        "tokens": tokens,
        "construct_s": round(construct_s, 2),
        "construct_memory": round(construct / size, 2),
        "gradient_s": round(ours_s, 2),
        "plain_s": round(plain_s, 2),
        "ratio": round(ours_s / plain_s, 2),
        "gradient_memory": round(gradient / size, 2),
        "plain_memory": round(own / size, 2),
        "relative_difference": off,
        "machine": described(1),
    }


def apart(tokens: int, label: str, **variables: str) -> dict[str, Any]:
    """Return the row that a process of its own measures, with some variables of the environment."""
    call = (
        f"import json; from benchmarks.backward import measure as m; row = m({tokens}, {label!r})"
    )
    found = subprocess.run(
        [sys.executable, "-c", f"{call}; print(json.dumps(row))"],
        check=True,
        capture_output=True,
        text=True,
        env={**os.environ, **variables},
    )
    return dict(json.loads(found.stdout.splitlines()[-1]))


def main() -> None:
    """Measure, print and keep the row."""
    tokens = int(sys.argv[1]) if len(sys.argv) > 1 else 128
    label = sys.argv[2] if len(sys.argv) > 2 else "whence"
    row = apart(tokens, label)
    returned = apart(tokens, label, MALLOC_MMAP_THRESHOLD_=str(2**18))
    row |= {f"{key}_held": returned[f"{key}_memory"] for key in ("construct", "gradient", "plain")}
    rows = json.loads(_RESULTS.read_text()) if _RESULTS.exists() else []
    kept = [r for r in rows if (r["label"], r["tokens"]) != (row["label"], row["tokens"])]
    _RESULTS.write_text(json.dumps([*kept, row], indent=1) + "\n")
    print(json.dumps(row, indent=1))


if __name__ == "__main__":
    main()
