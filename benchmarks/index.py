"""A query of an index of a million synthetic rows, beside the disk, the products alone, and FAISS.

Rows of random numbers in blocks of 16 x 16 as projected gradients of layers have them, stored as
float16 and as int8. For 10 and 100 queries, the first 100 each way:

- cold: the pages of the files dropped from the cache before, beside the rate at which the same
  files are read alone, cold too;
- warm: beside the time of the same matrix products, block by block, on rows that are in memory
  already, by as many threads, with nothing decoded or compared: in float32, which scores without a
  screen would take, and in the precision and layout of the scan's own, bfloat16 or int8 by blocks;
- with `--device cuda` products on a GPU, and beside them the copying of the rows to it, as they are
  stored, alone;
- FAISS `IndexFlatIP` (float32, in memory), where it is installed, on the first 200,000 rows
  (`--faiss-rows`; a million in float32 are 4 GB), with a float16 index of as many beside it.

The parts follow each other in one process, three times over (`--repeats`), and the best of each
counts; beside seconds by the clock those of the processor, which other processes disturb less. Run
it with `python -m benchmarks.index`; `--rows` and `--dimensions` make it smaller. The numbers are
in benchmarks/results/index.json, their table in docs/how-to/index-on-disk.md.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import tempfile
import time
from collections.abc import Callable
from functools import partial
from importlib import import_module, metadata
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from benchmarks.between import between
from benchmarks.machine import described, wait_for
from whence.index.encodings import encoding_of
from whence.index.format import (
    Manifest,
    Part,
    Shard,
    mapped_rows,
    shard_name,
    write_tensors,
)
from whence.index.ids import id_tensors
from whence.index.reading import norms_of
from whence.index.scan import scan
from whence.methods.features import Block
from whence.network.precision import fast_bf16, fast_int8
from whence.workers import over_threads

K, SHARD = 100, 2**14
START, END = "<!-- python -m benchmarks.index -->", "<!-- end -->"
BLOCK, BLOCK_OF_GPU = 2**19, 2**24  # numbers of a product: about as the scan has them
MEMORY = 2**26  # numbers of the rows that are in memory: 256 MB


def synthetic(first: int, count: int, d: int) -> Tensor:
    """Return rows, the same at every call."""
    return torch.randn(count, d, generator=torch.Generator().manual_seed(first))


def written(
    folder: Path,
    encoding: str,
    n: int,
    d: int,
    rows: Callable[[int, int, int], Tensor] = synthetic,
    shard: int = SHARD,
) -> Manifest:
    """Write an index of rows by the first of them, their number and that of their columns."""
    blocks = tuple(Block(str(place), (16, 16)) for place in range(d // 256))
    stored, shards = encoding_of(encoding), []
    for first in range(0, n, shard):
        count = min(shard, n - first)
        tensors = stored.encode(rows(first, count, d), blocks)
        found = stored.rows(tensors, slice(0, count), blocks)
        tensors |= {"weights": torch.ones(count), "slopes": torch.ones(count, 1)}
        tensors |= {"norms": norms_of(found, [slice(0, d)])}
        about = {"kind": "rows", "first": first, "rows": count, "error": 0.0}
        name = shard_name(first)
        ids = id_tensors(np.arange(first, first + count))
        sha = write_tensors(folder / name, about, {**tensors, **ids})
        shards.append(Shard(name, first, count, sha, 0.0))
    manifest = Manifest(
        model={},
        method={},
        words="synthetic",
        encoding=encoding,
        columns=(blocks,),
        shard_rows=shard,
        data=(Part("synthetic", n),),
        shards=tuple(shards),
    )
    manifest.write(folder)
    return manifest


def dropped(folder: Path) -> None:
    """Drop the pages of the files from the cache."""
    for path in folder.iterdir():
        descriptor = os.open(path, os.O_RDONLY)
        os.fsync(descriptor)
        os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
        os.close(descriptor)


def read(folder: Path) -> None:
    """Read the files and nothing else, a large part at a time, the next ones asked for."""
    buffer = bytearray(2**24)
    for path in sorted(folder.iterdir()):
        with path.open("rb", buffering=0) as file:
            os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_SEQUENTIAL)
            while file.readinto(buffer):
                pass


def seconds(function: Callable[[], object]) -> float:
    return timed(function)[0]


def timed(function: Callable[[], object]) -> tuple[float, float]:
    """Return seconds by the clock, and of the processor: of all threads."""
    start, used = time.perf_counter(), time.process_time()
    function()
    return time.perf_counter() - start, time.process_time() - used


def multiplied(
    rows: Tensor,
    queries: Tensor,
    n: int,
    product: Callable[[Tensor, Tensor], object] = lambda queries, rows: queries @ rows.T,
) -> None:
    """Multiply as many rows as the index has with the queries, block by block, and do nothing else.

    The rows go round in more memory than a cache holds. Threads take blocks as those of a query do:
    torch's own are slower with few queries.
    """
    device = str(queries.device)
    size = max(1, (BLOCK if device == "cpu" else BLOCK_OF_GPU) // rows.shape[1])

    def one(first: int) -> None:
        start = first % (len(rows) - size + 1)
        product(queries, rows[start : start + min(size, n - first)])

    over_threads(one, range(0, n, size), torch.get_num_threads() if device == "cpu" else 1)
    wait_for(device)


def by_blocks(queries: Tensor, rows: Tensor) -> None:
    """Multiply int8, 256 columns at a time: each block of a row has a scale of its own."""
    for start in range(0, rows.shape[1], 256):
        torch._int_mm(queries[:, start : start + 256], rows[:, start : start + 256].T)


def own_products(encoding: str, rows: Tensor, queries: Tensor, n: int) -> Callable[[], None]:
    """Return the products alone as the scan has them: rows converted before, nothing after."""
    if encoding == "int8" and fast_int8(queries.device):
        codes, asked = ((x * 32).round().clamp(-127, 127).char() for x in (rows, queries))
        return lambda: multiplied(codes, asked, n, by_blocks)
    dtype = torch.bfloat16 if fast_bf16(queries.device) else torch.float32
    low, asked = rows.to(dtype), queries.to(dtype)
    return lambda: multiplied(low, asked, n)


def copied(folder: Path, manifest: Manifest, device: str) -> None:
    """Copy all rows as they are stored to the device, and do nothing with them."""
    for shard in manifest.shards:
        with mapped_rows(folder, shard) as tensors:
            for tensor in tensors.values():
                tensor.to(device)
    wait_for(device)


def of_encoding(
    encoding: str, n: int, d: int, repeats: int, device: str = "cpu"
) -> list[dict[str, Any]]:
    """Return a row per number of queries."""
    found = []
    nothing = np.empty(0, dtype=np.intp)
    with tempfile.TemporaryDirectory(dir=Path.cwd()) as directory:
        folder = Path(directory)
        manifest = written(folder, encoding, n, d)
        size = sum(path.stat().st_size for path in folder.iterdir())
        held = synthetic(0, max(1, MEMORY // d), d).to(device)
        wait_for(device)
        for q in (10, 100):
            queries = torch.randn(q, d, generator=torch.Generator().manual_seed(-q)).to(device)
            times: dict[str, list[float]] = {}

            def note(name: str, function: Callable[[], object], times: Any = times) -> None:
                for kind, value in zip(("s", "cpu_s"), timed(function), strict=True):
                    times.setdefault(f"{name}_{kind}", []).append(value)

            own = own_products(encoding, held, queries, n)

            def ask(queries: Tensor = queries) -> None:
                scan(folder, manifest, queries, K, nothing)

            for _ in range(repeats):
                dropped(folder)
                note("disk", lambda: read(folder))
                dropped(folder)
                note("cold", ask)
                note("warm", ask)
                note("products", partial(multiplied, held, queries, n))
                note("own_products", own)
                if device != "cpu":
                    note("copied", lambda: copied(folder, manifest, device))
            best = {name: min(each) for name, each in times.items()}
            found.append(
                {
                    "rows": encoding,
                    "n": n,
                    "d": d,
                    "queries": q,
                    "gigabytes": size / 1e9,
                    **best,
                    "cold_of_disk": best["disk_s"] / best["cold_s"],
                    "warm_of_products": best["warm_s"] / best["products_s"],
                    "warm_of_products_cpu": best["warm_cpu_s"] / best["products_cpu_s"],
                    "warm_of_own_products_cpu": best["warm_cpu_s"] / best["own_products_cpu_s"],
                }
                | (
                    {"warm_of_copied": best["warm_s"] / best["copied_s"]}
                    if "copied_s" in best
                    else {}
                )
            )
            print(found[-1], flush=True)
    return found


def in_turn(*searches: Callable[[], object]) -> None:
    """Search several times."""
    for search in searches:
        search()


def of_faiss(n: int, d: int, repeats: int) -> list[dict[str, Any]]:
    """Return a row per number of queries for FAISS; none where it is not installed."""
    if find_spec("faiss") is None:
        return []
    faiss = import_module("faiss")
    index = faiss.IndexFlatIP(d)
    for first in range(0, n, SHARD):
        index.add(synthetic(first, min(SHARD, n - first), d).numpy())
    found = []
    for q in (10, 100):
        queries = torch.randn(q, d, generator=torch.Generator().manual_seed(-q)).numpy()
        # Two searches, since a query of the index gives both ends.
        search, back = partial(index.search, queries, K), partial(index.search, -queries, K)
        both = [timed(partial(in_turn, search, back)) for _ in range(repeats)]
        one = [seconds(search) for _ in range(repeats)]
        version = metadata.version("faiss-cpu")
        found.append(
            {"rows": f"FAISS {version} flat float32", "n": n, "d": d, "queries": q}
            | {"gigabytes": 4 * n * d / 1e9, "one_end_s": min(one)}
            | {"warm_s": min(both)[0], "warm_cpu_s": min(cpu for _, cpu in both)}
        )
        print(found[-1], flush=True)
    return found


def table(content: dict[str, Any]) -> str:
    """Return the numbers as Markdown."""
    lines = [
        "| rows | n | queries | GB | warm, s | processor, s | beside float32 products, processor "
        "| beside its own products, processor | cold, of the disk's rate |",
        "|---|---:|---:|---:|---:|---:|---:|---:|---:|",
    ]
    for row in content["rows"]:
        ratios = [row.get(f"warm_of_{name}_cpu") for name in ("products", "own_products")]
        disk = row.get("cold_of_disk")
        lines.append(
            f"| {row['rows']} | {row['n']:,} | {row['queries']} | {row['gigabytes']:.2f} "
            f"| {row['warm_s']:.2f} | {row['warm_cpu_s']:.2f} "
            + "".join(f"| {'–' if ratio is None else f'{ratio:.2f} ×'} " for ratio in ratios)
            + f"| {'–' if disk is None else f'{disk:.0%}'} |"
        )
    machine, load = content["machine"], content["load_before"]
    peak, threads = content["peak_memory_gb_without_faiss"], content["threads"]
    told = (
        f"{machine['processor']}, {machine['float32_gflops']} GFLOP/s in float32, "
        f"{threads} thread{'s' if threads > 1 else ''}, load {load:.1f} before; at most "
        f"{peak:.2f} GB in memory without FAISS."
    )
    return "\n".join([*lines, "", told])


def main() -> None:
    """Print the numbers and keep them."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--dimensions", type=int, default=1_024)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--faiss-rows", type=int, default=200_000)
    parser.add_argument("--device", default="cpu", help="cuda: products on a GPU, without FAISS")
    options = parser.parse_args()
    n, d, repeats, device = options.rows, options.dimensions, options.repeats, options.device
    load = os.getloadavg()[0]
    encodings = ("float16", "int8")
    rows = [row for name in encodings for row in of_encoding(name, n, d, repeats, device)]
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    if device == "cpu":
        few = min(n, options.faiss_rows)
        rows += [*of_encoding("float16", few, d, repeats), *of_faiss(few, d, repeats)]
    threads = torch.get_num_threads()
    content = {
        "machine": described(threads, device),
        "threads": threads,
        "load_before": load,
        "peak_memory_gb_without_faiss": peak,
        "rows": rows,
    }
    path = Path(__file__).parent / "results" / ("" if device == "cpu" else device) / "index.json"
    path.parent.mkdir(exist_ok=True)
    path.write_text(json.dumps(content, indent=1) + "\n")
    if device != "cpu":
        return  # the table is on the page of the benchmarks
    page = Path(__file__).parents[1] / "docs" / "how-to" / "index-on-disk.md"
    text = page.read_text(encoding="utf-8")
    page.write_text(between(text, START, END, f"\n{table(content)}\n"), encoding="utf-8")


if __name__ == "__main__":
    main()
