"""An index of projected gradients, in sequences a second: whence, bergson and dattri in turns.

GPT-NeoX with random weights, of the size of W3 (4 layers, 128 wide) and of 11 million parameters,
and sequences of 128 random tokens. Each library projects the gradient of every linear layer within
the blocks to 16 x 16 numbers, float32: whence by `Index.build` and bergson by its own `build` (what
`bergson build` calls, with batches of 2,048 tokens as by default), which write them to the disk;
dattri by `LoGraAttributor.cache` without a Hessian, which keeps them in memory, since its
`offload="disk"` needs a GPU; torch makes the forward and the backward pass and nothing else. Both
are measured once more with passes in bfloat16, which is another precision than the peers'. Each
run is a process of its own, which first builds 16 sequences; reading model and data again is part
of bergson's `build`, and takes milliseconds.

Run it with `python -m benchmarks.build`. The best of the runs of each
are in benchmarks/results/build.json, their table on the page of benchmarks.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from benchmarks.cells import bold, table
from benchmarks.environments import python_of, version_of
from benchmarks.machine import described

RESULTS = Path(__file__).parent / "results" / "build.json"
SIZES = {"4 layers, 128 wide": (4, 128, 4, 256), "6 layers, 384 wide": (6, 384, 6, 96)}
SIDE, CONTEXT, VOCABULARY, WARM, BATCH = 16, 128, 65, 16, 16
LAYERS = ("query_key_value", "attention.dense", "dense_h_to_4h", "dense_4h_to_h")


def made(folder: Path, layers: int, width: int, heads: int, n: int) -> None:
    """Write a model, a tokenizer that is asked nothing, and data, as the hub has them."""
    from datasets import Dataset
    from tokenizers import Tokenizer, models
    from transformers import GPTNeoXConfig, GPTNeoXForCausalLM, PreTrainedTokenizerFast

    torch.manual_seed(0)
    config = GPTNeoXConfig(
        vocab_size=VOCABULARY,
        hidden_size=width,
        intermediate_size=4 * width,
        num_hidden_layers=layers,
        num_attention_heads=heads,
    )
    GPTNeoXForCausalLM(config).save_pretrained(folder / "model")
    words = Tokenizer(models.WordLevel({str(i): i for i in range(VOCABULARY)}, unk_token="0"))
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=words, unk_token="0", pad_token="0")
    tokenizer.save_pretrained(folder / "model")
    tokens = torch.randint(VOCABULARY, (n, CONTEXT)).tolist()
    for name, some in (("data", tokens), ("warm", tokens[:WARM])):
        columns = {"input_ids": some, "labels": some, "length": [CONTEXT] * len(some)}
        Dataset.from_dict(columns).save_to_disk(folder / name)


def loaded(folder: Path) -> tuple[Any, list[str]]:
    """Return the model, and the names of the layers that are projected."""
    from transformers import GPTNeoXForCausalLM

    model = GPTNeoXForCausalLM.from_pretrained(folder / "model").eval()
    return model, [name for name, _ in model.named_modules() if name.endswith(LAYERS)]


def tokens_of(folder: Path, data: str) -> list[list[int]]:
    """Return the tokens of each sequence."""
    from datasets import load_from_disk

    found: list[list[int]] = load_from_disk(str(folder / data))["input_ids"][:]
    return found


def whence(folder: Path, *, bf16: bool = False) -> Callable[[str, Path], object]:
    """Return how whence builds."""
    import whence as library

    model, layers = loaded(folder)
    rows = [{"input_ids": torch.tensor(row)} for row in tokens_of(folder, "warm")]
    params = {f"{name}.weight" for name in layers}
    objective = library.from_transformers(model, rows, params=params)
    if bf16:
        objective = objective.in_bf16()
    method = library.Projected(moment="none", size=SIDE)

    def build(data: str, out: Path) -> object:
        given = [{"input_ids": torch.tensor(row)} for row in tokens_of(folder, data)]
        return library.Index.build(
            objective, out, method=method, data=given, rows="float32", name=data
        )

    return build


def bergson(folder: Path) -> Callable[[str, Path], object]:
    """Return how bergson builds."""
    from bergson.build import build as build_index
    from bergson.config import DataConfig, IndexConfig, PreprocessConfig

    def build(data: str, out: Path) -> object:
        config = IndexConfig(
            run_path=str(out),
            model=str(folder / "model"),
            data=DataConfig(dataset=str(folder / data)),
            projection_dim=SIDE,
        )
        return build_index(config, PreprocessConfig())

    return build


class Logits(nn.Module):
    """A model as LoGra looks at it: through one example out of its batch first, [1, t]."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, x: Tensor) -> Tensor:
        """Return logits, classes before positions."""
        logits: Tensor = self.model(x.flatten(0, -2)).logits
        return logits.transpose(1, 2)


def dattri(folder: Path) -> Callable[[str, Path], object]:
    """Return how dattri builds."""
    from dattri.algorithm.logra import LoGraAttributor
    from dattri.task import AttributionTask

    from benchmarks.peers.loading import loader

    model, layers = loaded(folder)
    seen = Logits(model)

    def loss(model: nn.Module, batch: tuple[Tensor, Tensor], device: str) -> Tensor:
        return cross_entropy(model(batch[0]), batch[1], reduction="sum")

    def build(data: str, out: Path) -> object:
        attributor = LoGraAttributor(
            AttributionTask(loss, seen, seen.state_dict()),
            layer_names=[f"model.{name}" for name in layers],
            hessian="Identity",
            proj_dim=SIDE * SIDE,
            offload="none",
            cache_dir=str(out),
        )
        tokens = torch.tensor(tokens_of(folder, data))
        return attributor.cache(loader(tokens[:, None, :-1], tokens[:, 1:], BATCH))

    return build


def passes(folder: Path, *, bf16: bool = False) -> Callable[[str, Path], object]:
    """Return the passes that each library needs, and nothing else: torch's, without weights."""
    model, _ = loaded(folder)
    model.requires_grad_(False)

    def build(data: str, out: Path) -> object:
        for rows in torch.tensor(tokens_of(folder, data)).split(BATCH):
            seen = model.get_input_embeddings()(rows).requires_grad_()
            with torch.autocast("cpu", torch.bfloat16, enabled=bf16):
                logits = model(inputs_embeds=seen).logits[:, :-1].float()
            cross_entropy(logits.transpose(1, 2), rows[:, 1:], reduction="sum").backward()
        out.mkdir()
        return None

    return build


LIBRARIES: dict[str, Callable[[Path], Callable[[str, Path], object]]] = {
    "whence": whence,
    "bergson": bergson,
    "dattri": dattri,
    "torch": passes,
    "whence, bfloat16": partial(whence, bf16=True),
    "torch, bfloat16": partial(passes, bf16=True),
}


def child(library: str, folder: Path, threads: int) -> None:
    """Build the few sequences, then all of them, and print what that took."""
    torch.set_num_threads(threads)
    build = LIBRARIES[library](folder)
    with tempfile.TemporaryDirectory(dir=folder) as where:
        build("warm", Path(where) / "warm")
        start, used = time.perf_counter(), time.process_time()
        build("data", Path(where) / "data")
        found = {"s": time.perf_counter() - start, "cpu_s": time.process_time() - used}
        files = (Path(where) / "data").rglob("*")
        found["megabytes"] = sum(path.stat().st_size for path in files if path.is_file()) / 1e6
    print(json.dumps(found))


def measured(library: str, folder: Path, threads: int) -> dict[str, float]:
    """Return what a run in a process of its own took."""
    command = [
        str(python_of(library.partition(",")[0])),
        "-m",
        "benchmarks.build",
        "--child",
        library,
    ]
    command += ["--folder", str(folder), "--threads", str(threads)]
    offline = {"HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": str(threads)}
    told = subprocess.run(
        command, check=True, capture_output=True, text=True, env={**os.environ, **offline}
    )
    found: dict[str, float] = json.loads(told.stdout.splitlines()[-1])
    return found


def section(path: Path) -> str:
    """Return the section of the page of benchmarks, nothing if there are no rows."""
    if not path.exists():
        return ""
    content = json.loads(path.read_text())
    body = [
        [
            bold(row["library"]),
            row["model"],
            f"{row['n']:,}",
            f"{row['n'] / row['cpu_s']:.0f}",
            f"{row['cpu_s'] / ours['cpu_s']:.2f}",
            f"{row['megabytes']:.1f}",
        ]
        for row in content["rows"]
        for ours in content["rows"]
        if ours["library"] == "whence" and ours["model"] == row["model"]
    ]
    header = ["library", "model", "n", "sequences a second of the processor"]
    machine = content["machine"]
    return (
        "## Building an index\n\n`python -m benchmarks.build`: an index on disk of the gradients "
        "of the linear layers of a GPT-NeoX, each projected to 16 × 16 numbers in float32, of "
        "sequences of 128 tokens. whence builds with `Index.build`, bergson with its own `build`; "
        "dattri's LoGra keeps them in memory, since it needs a GPU to write them; torch makes the "
        "forward and backward passes alone, which no library can do without. Lines in bfloat16 are "
        "of passes under autocast (`objective.in_bf16()`), the others of float32. In turns, the "
        "best of "
        f"{content['repeats']}, by the processor's clock, threads: {content['threads']}.\n\n"
        + table([*header, "time, of whence's", "MB"], body)
        + f"\n{machine['processor']}, {machine['cores']} cores, load "
        f"{content['load_before']:.1f} before; "
        + ", ".join(f"{name} {version}" for name, version in content["versions"].items())
        + ".\n"
    )


def main() -> None:
    """Measure all, print and keep the rows."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--child", choices=tuple(LIBRARIES), help=argparse.SUPPRESS)
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--repeats", type=int, default=3)
    options = parser.parse_args()
    if options.child:
        child(options.child, options.folder, options.threads)
        return
    load, rows = os.getloadavg()[0], []
    for model, (layers, width, heads, n) in SIZES.items():
        with tempfile.TemporaryDirectory(dir=Path.cwd()) as directory:
            folder = Path(directory)
            made(folder, layers, width, heads, n)
            runs: dict[str, list[dict[str, float]]] = {name: [] for name in LIBRARIES}
            for _ in range(options.repeats):
                for library, found in runs.items():
                    found.append(measured(library, folder, options.threads))
        for library, found in runs.items():
            best = {key: min(run[key] for run in found) for key in found[0]}
            rows.append({"library": library, "model": model, "n": n, **best})
            print(rows[-1], flush=True)
    content = {
        "machine": described(options.threads),
        "threads": options.threads,
        "repeats": options.repeats,
        "load_before": load,
        "versions": {library: version_of(library) for library in LIBRARIES if "," not in library},
        "rows": rows,
    }
    RESULTS.write_text(json.dumps(content, indent=1) + "\n")


if __name__ == "__main__":
    main()
