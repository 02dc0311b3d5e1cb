"""The index on disk: scores beside those in memory, and everything that happens to its files."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from safetensors.torch import load_file
from sklearn.linear_model import LogisticRegression, Ridge
from torch import nn

import whence
from tests.damage import assert_noticed
from whence.errors import CorruptFile, InvalidInput, UnsupportedModel
from whence.index.damage import sha256
from whence.index.format import MANIFEST, Manifest, mapped_rows, read_tensor
from whence.methods.method import Method
from whence.network.objective import ModuleObjective
from whence.storage import claim

pytestmark = pytest.mark.filterwarnings("ignore::whence.errors.NotConvergedWarning")

N = 90
_SIGNS = torch.tensor([1.0, -1.0])  # ℓ of this answer less ℓ of that
LAYERS = whence.Projected(moment="layers", size=4)


def made(n: int = N, hidden: int = 8) -> tuple[ModuleObjective, Any]:
    """Return a small network on n examples, and five queries."""
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(n, 6, generator=generator)
    y = (x @ torch.randn(6, 3, generator=generator)).argmax(1)
    torch.manual_seed(1)
    model = nn.Sequential(nn.Linear(6, hidden), nn.Tanh(), nn.Linear(hidden, 3))
    weights = torch.rand(n, generator=generator) + 0.5
    loss = whence.CrossEntropy()
    objective = whence.from_torch(model, loss, (x, y), l2=1e-3, weights=weights)
    queries = torch.randn(5, 6, generator=generator), torch.arange(5) % 3
    return objective, queries


@pytest.fixture(scope="module")
def network() -> tuple[ModuleObjective, Any]:
    return made()


@pytest.fixture(scope="module")
def standing(network: tuple[ModuleObjective, Any], tmp_path_factory: Any) -> whence.Index:
    """An index of the network's training data in three shards."""
    folder = tmp_path_factory.mktemp("standing")
    return whence.Index.build(network[0], folder, method=LAYERS, shard_rows=32)


def all_scores(index: whence.Index, queries: Any, measure: Any = "loss") -> np.ndarray:
    """Return the scores of all rows, [q, n], put in the order of the rows."""
    hits = index.query(queries, k=10_000, measure=measure)
    q, n = hits.helpful.positions.shape
    scores = np.full((q, n), np.nan)
    np.put_along_axis(scores, hits.helpful.positions, hits.helpful.values, 1)
    assert np.array_equal(hits.harmful.values, np.sort(scores, 1))
    return scores


def contents(folder: Path) -> dict[str, str]:
    return {path.name: sha256(path) for path in sorted(folder.iterdir())}


METHODS: dict[str, Method] = {
    "LoGra, a moment per layer": LAYERS,
    "LoGra": whence.Projected(size=3, damping=0.01),
    "TRAK": whence.Projected(output="margin", projection="dense", size=20),
    "projected products": whence.Projected(moment="none", size=4),
    "TracIn": whence.TracIn(),
    "gradient cosine": whence.TracIn(cosine=True, size=3),
    "cosine of scaled gradients": whence.TracIn(
        cosine=True, scales=[whence.linalg.Diagonal(torch.linspace(0.1, 2, 83))]
    ),
    "influence": whence.Influence(damping=0.1),
    "influence by EKFAC": whence.Influence(solver=whence.EKFAC(rtol=1e-7), damping=0.1),
    "EKFAC, projected": whence.Projected(solver=whence.EKFAC(), damping=0.1, size=3),
    "KFAC, projected whole": whence.Projected(solver=whence.KFAC(), projection="dense", size=20),
}


@pytest.mark.parametrize("name", METHODS)
@pytest.mark.parametrize(("rows", "rtol"), [("float32", 1e-5), ("float16", 1e-3)])
def test_scores_are_those_in_memory(
    network: tuple[ModuleObjective, Any], tmp_path: Path, name: str, rows: str, rtol: float
) -> None:
    objective, queries = network
    method = METHODS[name]
    index = whence.Index.build(objective, tmp_path, method=method, rows=rows, shard_rows=32)
    for measure in ("loss", "margin"):
        expected = method.fit(objective).scores(queries, measure=measure)
        found = all_scores(index, queries, measure)
        largest = np.abs(expected.values).max()
        np.testing.assert_allclose(found, expected.values, rtol=0, atol=rtol * largest)
    hits = index.query(queries, k=4)
    assert (hits.helpful.ids == hits.helpful.positions).all()
    assert hits.measure == method.fit(objective).scores(queries).measure


def test_checkpoints_each_have_their_own_moment(
    network: tuple[ModuleObjective, Any], tmp_path: Path
) -> None:
    objective, queries = network
    points = [objective.params, objective.params * 0.9]
    method = whence.Projected(output="margin", projection="dense", size=10, checkpoints=points)
    index = whence.Index.build(objective, tmp_path, method=method, rows="float32", shard_rows=50)
    expected = method.fit(objective).scores(queries).values
    np.testing.assert_allclose(
        all_scores(index, queries), expected, atol=1e-5 * np.abs(expected).max()
    )
    with pytest.raises(InvalidInput, match="as method=: Projected"):
        whence.Index.open(tmp_path, objective)
    assert whence.Index.open(tmp_path, objective, method).info().n == N


@pytest.mark.parametrize("rows", ["int8", "rank-1", "rank-2"])
def test_smaller_rows_keep_the_ranking(tmp_path: Path, rows: str) -> None:
    """At a quarter of float16's size or a half of it; layers that see one position have rank 1."""
    objective, queries = made(n=1_000, hidden=40)
    method = whence.Projected(moment="layers", size=16)
    index = whence.Index.build(objective, tmp_path, method=method, rows=rows)
    expected = method.fit(objective).scores(queries).values
    found = all_scores(index, queries)
    for mine, theirs in zip(found, expected, strict=True):
        assert np.corrcoef(mine, theirs)[0, 1] >= 0.99
        firsts = [{*np.argsort(-scores)[:100].tolist()} for scores in (mine, theirs)]
        assert len(firsts[0] & firsts[1]) >= 95
    verified = index.verify(queries, k=100)
    assert verified.ok
    assert verified.pearson is not None
    assert verified.pearson >= 0.99
    assert verified.overlap is not None
    assert verified.overlap >= 0.95
    assert 0 < verified.error < 0.02
    assert rows in str(verified)


def test_the_error_of_an_encoding_is_that_of_its_rows(
    network: tuple[ModuleObjective, Any], tmp_path: Path
) -> None:
    """Against rows decoded by hand: whole numbers times their scales."""
    objective, _ = network
    index = whence.Index.build(objective, tmp_path, method=LAYERS, rows="int8", shard_rows=1_000)
    stored = load_file(tmp_path / "rows-000000000000.safetensors")
    sizes = [block.size for block in index.features.blocks]
    scales = stored["scales"].repeat_interleave(torch.tensor(sizes), 1)
    exact = index.features.rows(objective.train)
    lost = (stored["rows"] * scales - exact).double().norm() / exact.double().norm()
    assert index.verify().error == pytest.approx(float(lost), rel=1e-4)


def test_a_later_process_computes_no_training_gradient(
    network: tuple[ModuleObjective, Any], standing: whence.Index, monkeypatch: Any
) -> None:
    """The model alone is needed: here with three other examples as its training data."""
    objective, queries = network
    other, _ = made()
    few = other.restricted(np.arange(3))
    asked: list[int] = []
    kind = type(standing.features)
    rows = kind.rows
    monkeypatch.setattr(kind, "rows", lambda self, e: asked.append(len(e)) or rows(self, e))
    again = whence.Index.open(standing.path, few)
    assert again.method == LAYERS
    np.testing.assert_array_equal(all_scores(again, queries), all_scores(standing, queries))
    assert asked == []
    with pytest.raises(InvalidInput, match="another digest of its parameters"):
        whence.Index.open(standing.path, objective.at(objective.params + 1))
    with pytest.raises(InvalidInput, match="Leave method= out"):
        whence.Index.open(standing.path, objective, whence.TracIn())


def test_append_is_a_build_of_all(network: tuple[ModuleObjective, Any], tmp_path: Path) -> None:
    objective, queries = network
    x, y = objective.train.inputs, objective.train.targets
    plain = objective.reweighted(torch.ones(N))
    whole = whence.Index.build(plain, tmp_path / "a", method=LAYERS, rows="float32", shard_rows=20)
    first = plain.restricted(np.arange(50))
    index = whence.Index.build(first, tmp_path / "b", method=LAYERS, rows="float32", shard_rows=20)
    index.append((x[50:70], y[50:70]))
    index.append((x[70:], y[70:]))
    index.append((x[70:], y[70:]))  # it is there
    assert index.info().n == N
    assert index.query(queries, k=N).helpful.ids[0].tolist() == (
        whole.query(queries, k=N).helpful.ids[0].tolist()
    )
    expected = all_scores(whole, queries)
    np.testing.assert_allclose(
        all_scores(index, queries), expected, atol=1e-5 * np.abs(expected).max()
    )


def test_removed_examples_are_no_answers(
    network: tuple[ModuleObjective, Any], standing: whence.Index, tmp_path: Path
) -> None:
    objective, queries = network
    shutil.copytree(standing.path, tmp_path / "index")
    index = whence.Index.open(tmp_path / "index", objective)
    before = index.query(queries, k=N)
    gone = before.helpful.ids[0, [0, N - 1, 30]].tolist()
    index.remove(gone[:2])
    index.remove([gone[2], gone[0]])
    files = contents(index.path)
    index.remove(gone)
    assert contents(index.path) == files
    assert (index.info().n, index.info().removed) == (N, 3)
    after = index.query(queries, k=N)
    for q in range(5):
        left = [
            (i, v)
            for i, v in zip(before.helpful.ids[q], before.helpful.values[q], strict=True)
            if i not in gone
        ]
        assert after.helpful.ids[q].tolist() == [i for i, _ in left]
        assert after.helpful.values[q].tolist() == [v for _, v in left]
        assert after.harmful.ids[q].tolist() == [i for i, _ in left][::-1]
    with pytest.raises(InvalidInput, match="Got 1000 and 1 others"):
        index.remove([1_000, 2_000, 3])
    assert index.info().removed == 3


@pytest.mark.parametrize("first", [0, 2**63 - 10, 2**63])
def test_ids_of_64_bits_come_back(first: int, tmp_path: Path) -> None:
    X = np.random.default_rng(0).normal(size=(30, 3))
    ids = np.arange(30, dtype=np.uint64) + np.uint64(first)
    model = Ridge().fit(X, X[:, 0])
    table = pd.DataFrame(X, index=ids)
    trained = whence.from_sklearn(model, table, X[:, 0])
    index = whence.Index.build(trained, tmp_path / "index", method=whence.TracIn(), shard_rows=8)
    found = index.query((X[:2], X[:2, 1]), k=30).helpful
    assert found.ids.astype(str).tolist() == ids[found.positions].astype(str).tolist()
    index.remove([ids[4], int(ids[20])])
    left = index.query((X[:2], X[:2, 1]), k=30).helpful.positions
    assert np.array_equal(np.unique(left), np.delete(np.arange(30), [4, 20]))


@pytest.mark.parametrize("workers", [1, 2])
def test_what_is_written_does_not_depend_on_workers_or_interruptions(
    network: tuple[ModuleObjective, Any],
    standing: whence.Index,
    tmp_path: Path,
    monkeypatch: Any,
    workers: int,
) -> None:
    """A build whose manifest is from before the second shard, with a damaged third one."""
    objective, _ = network
    shutil.copytree(standing.path, tmp_path / "index")
    manifest = Manifest.read(standing.path)
    part = type(manifest.data[0])(manifest.data[0].identity)
    replace(manifest, data=(part,), shards=manifest.shards[:1], moment=None).write(
        tmp_path / "index"
    )
    third = tmp_path / "index" / manifest.shards[2].name
    third.write_bytes(third.read_bytes()[:-1] + b"x")
    begun = whence.Index.open(tmp_path / "index", objective)
    assert not begun.info().complete
    with pytest.raises(InvalidInput, match="interrupted at 32 rows"):
        begun.query(network[1])
    with pytest.raises(InvalidInput, match="Give the interrupted command again"):
        begun.append((objective.train.inputs[:2], objective.train.targets[:2]))
    kept = (tmp_path / "index" / manifest.shards[1].name).stat().st_mtime_ns
    whence.Index.build(objective, tmp_path / "index", method=LAYERS, shard_rows=32, workers=workers)
    assert contents(tmp_path / "index") == contents(standing.path)
    assert (tmp_path / "index" / manifest.shards[1].name).stat().st_mtime_ns == kept


def test_what_a_killed_worker_half_wrote_is_removed(
    network: tuple[ModuleObjective, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One that is killed while others go on, as on a Ray cluster, which begins its shard anew."""
    real = Manifest.write

    def write(self: Manifest, folder: Path) -> None:
        (folder / ".whence-0123.tmp").write_bytes(b"half")
        real(self, folder)

    monkeypatch.setattr(Manifest, "write", write)
    objective, (x, y) = network
    index = whence.Index.build(objective, tmp_path, method=LAYERS)
    assert not list(tmp_path.glob(".whence-*"))
    index.append((x, y))
    assert not list(tmp_path.glob(".whence-*"))
    index.remove([1])
    assert not list(tmp_path.glob(".whence-*"))


def test_damage_is_named(standing: whence.Index, network: Any, tmp_path: Path) -> None:
    shutil.copytree(standing.path, tmp_path / "index")
    index = whence.Index.open(tmp_path / "index", network[0])

    def read() -> None:
        faults = index.verify().faults
        if faults:
            raise CorruptFile(faults[0])

    for path in sorted(index.path.iterdir()):
        size = path.stat().st_size
        assert_noticed(path, read, flips=40, cuts=[0, 1, size // 2, size - 1])
    assert index.verify().ok
    shard = index.path / Manifest.read(index.path).shards[1].name
    whole = shard.read_bytes()
    shard.write_bytes(whole[:-7])
    with pytest.raises(CorruptFile, match=shard.name):
        index.query(network[1])
    shard.write_bytes((index.path / Manifest.read(index.path).shards[0].name).read_bytes())
    with pytest.raises(CorruptFile, match=f"{shard.name}.*in place of"):
        index.query(network[1])
    with (
        pytest.raises(CorruptFile, match=f"{shard.name}.*other rows"),
        mapped_rows(index.path, Manifest.read(index.path).shards[1]),
    ):
        pass
    shard.unlink()
    with pytest.raises(CorruptFile, match=f"{shard.name}.*missing"):
        index.query(network[1])
    assert index.verify().faults == (f"{shard.name} is missing",)


def changed(path: Path) -> None:
    whole = path.read_bytes()
    path.write_bytes(whole[:-9] + bytes([whole[-9] ^ 1]) + whole[-8:])


DAMAGES: list[Callable[[Path], object]] = [
    changed,
    lambda path: path.write_bytes(path.read_bytes()[:-7]),
    Path.unlink,
]


@pytest.mark.parametrize("damage", DAMAGES, ids=["flipped", "cut", "missing"])
def test_a_build_of_a_damaged_index_computes_what_is_damaged(
    standing: whence.Index, network: Any, tmp_path: Path, damage: Callable[[Path], object]
) -> None:
    """The same bytes again; what is whole is not written again, and what is removed stays so."""
    shutil.copytree(standing.path, tmp_path / "index")
    index = whence.Index.open(tmp_path / "index", network[0])
    index.remove([3])
    before, manifest = contents(index.path), Manifest.read(index.path)
    assert manifest.moment is not None
    kept = index.path / manifest.shards[2].name
    written = kept.stat().st_mtime_ns
    for name in (manifest.shards[1].name, manifest.moment.name):
        damage(index.path / name)
        with pytest.warns(UserWarning, match=f"{name}.* computed again"):
            whence.Index.build(network[0], index.path, method=LAYERS, shard_rows=32)
        assert contents(index.path) == before
    assert kept.stat().st_mtime_ns == written
    assert Manifest.read(index.path) == manifest
    whence.Index.build(network[0], index.path, method=LAYERS, shard_rows=32)  # without a warning


@pytest.mark.parametrize("damage", DAMAGES, ids=["flipped", "cut", "missing"])
def test_what_cannot_be_computed_again_is_named(
    standing: whence.Index, network: Any, tmp_path: Path, damage: Callable[[Path], object]
) -> None:
    """The build of an index with more data, or whose list of removed examples is damaged."""
    objective, _ = network
    shutil.copytree(standing.path, tmp_path / "index")
    index = whence.Index.open(tmp_path / "index", objective)
    more = objective.train.inputs[:9] + 1, objective.train.targets[:9]
    index.append(more)
    index.remove([3])
    manifest = Manifest.read(index.path)
    assert manifest.removed is not None
    for name in (manifest.shards[1].name, manifest.removed.name):
        whole = (index.path / name).read_bytes()
        damage(index.path / name)
        with pytest.raises(CorruptFile, match=rf"{name}.*index\.verify\(\).*Delete manifest"):
            whence.Index.build(objective, index.path, method=LAYERS, shard_rows=32)
        (index.path / name).write_bytes(whole)
    before = contents(index.path)
    damage(index.path / manifest.shards[-1].name)
    with pytest.warns(UserWarning, match="computed again"):
        index.append(more)
    assert contents(index.path) == before


@pytest.mark.parametrize("damage", DAMAGES, ids=["flipped", "cut", "missing"])
def test_no_use_of_a_damaged_index_is_silent(
    standing: whence.Index, network: Any, tmp_path: Path, damage: Callable[[Path], object]
) -> None:
    """Sizes are checked by every use; bytes of all files but the rows by those that read them."""
    objective, queries = network
    shutil.copytree(standing.path, tmp_path / "index")
    whence.Index.open(tmp_path / "index", objective).remove([3])
    manifest = Manifest.read(tmp_path / "index")
    more = objective.train.inputs[:9] + 1, objective.train.targets[:9]
    for file in manifest.files:
        shutil.rmtree(tmp_path / "index")
        shutil.copytree(standing.path, tmp_path / "index")
        whence.Index.open(tmp_path / "index", objective).remove([3])
        damage(tmp_path / "index" / file.name)
        uses: list[Callable[[whence.Index], object]] = [
            lambda index: index.query(queries, k=3),
            lambda index: whence.select(index, queries, 3),
        ]
        if damage is not changed:
            uses += [
                lambda index: index.remove([4]),
                lambda index: whence.explain(
                    index.trained, [part[:1] for part in queries], method=whence.Stored(index)
                ),
                lambda index: index.append(more),
                lambda index: index.info(),
            ]
        elif file in manifest.shards:
            continue
        for use in uses:
            afresh = made()[0]  # nothing of the index is in memory
            with pytest.raises(CorruptFile, match=rf"{file.name}.*index\.verify\(\)"):
                use(whence.Index.open(tmp_path / "index", afresh))


def test_a_second_writer_is_refused(standing: whence.Index, network: Any) -> None:
    objective, _ = network
    with claim(standing.path):
        for write in (
            lambda: standing.remove([1]),
            lambda: standing.append((objective.train.inputs[:2], objective.train.targets[:2])),
            lambda: whence.Index.build(objective, standing.path, method=LAYERS, shard_rows=32),
        ):
            with pytest.raises(InvalidInput, match="no other process to write"):
                write()
        assert standing.query(network[1], k=3).n == N


KILLED = """
import os, signal, sys
import tests.index.test_index as here
import whence, whence.index.writer as writer
real, left = writer.write_tensors, [int(sys.argv[2])]
def killed(path, about, tensors):
    left[0] -= 1
    if left[0] == 0:
        os.kill(os.getpid(), signal.SIGKILL)
    return real(path, about, tensors)
writer.write_tensors = killed
objective, _ = here.made()
whence.Index.build(objective, sys.argv[1], method=here.LAYERS, shard_rows=32)
"""


def test_a_killed_build_goes_on(standing: whence.Index, network: Any, tmp_path: Path) -> None:
    """`python -m tests.crash` does so at random points; here before the third shard."""
    folder = tmp_path / "index"
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    ended = subprocess.run(
        [sys.executable, "-c", KILLED, str(folder), "3"],
        env=environment,
        cwd=Path(__file__).parents[2],
    )
    assert ended.returncode == -9
    assert len(Manifest.read(folder).shards) == 2
    whence.Index.build(network[0], folder, method=LAYERS, shard_rows=32)
    assert contents(folder) == contents(standing.path)


def test_refusals(standing: whence.Index, network: Any, tmp_path: Path) -> None:
    objective, queries = network
    with pytest.raises(InvalidInput, match="Got no manifest"):
        whence.Index.open(tmp_path, objective)
    with pytest.raises(InvalidInput, match="Expected k >= 1"):
        standing.query(queries, k=0)
    with pytest.raises(InvalidInput, match="Expected 1 <= k <= 3"):
        standing.query(queries, k=3).top(4)
    with pytest.raises(InvalidInput, match="rows 'float32'"):
        whence.Index.build(objective, tmp_path, rows="int4")
    with pytest.raises(InvalidInput, match="larger than rank 9"):
        whence.Index.build(objective, tmp_path / "r", rows="rank-9", method=LAYERS)
    with pytest.raises(UnsupportedModel, match=r"whence.Projected\(\) or whence.TracIn\(\)"):
        whence.Index.build(objective, tmp_path, method=whence.Influence(order="newton"))
    with pytest.raises(UnsupportedModel, match="evaluated and not linear"):
        whence.Index.build(objective, tmp_path, method=whence.Representer())
    with pytest.raises(InvalidInput, match="moment= and checkpoints= of the second moment"):
        whence.Projected(solver=whence.EKFAC(), moment="none")
    with pytest.raises(InvalidInput, match="another model, method, encoding or data"):
        whence.Index.build(objective, standing.path, method=LAYERS, rows="int8", shard_rows=32)
    with pytest.raises(InvalidInput, match="shard_rows >= 1"):
        whence.Index.build(objective, tmp_path, shard_rows=0)
    bad = objective.train.inputs.clone()
    bad[3] = 3e38
    data = [*zip(bad, objective.train.targets, strict=True)]
    with pytest.raises(InvalidInput, match="finite gradients.*example 3"):
        whence.Index.build(objective, tmp_path / "bad", data=data, method=LAYERS)
    assert not Manifest.read(tmp_path / "bad").complete


def test_a_stored_curvature_is_read_and_not_computed_again(
    network: tuple[ModuleObjective, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nothing of the training data is touched by a query of an index of influence by EKFAC."""
    objective, queries = network
    method = whence.Projected(solver=whence.EKFAC(), damping=0.1, size=3)
    index = whence.Index.build(objective, tmp_path, method=method, rows="float32", shard_rows=40)
    scores, written = all_scores(index, queries), contents(tmp_path)
    whence.Index.build(objective, tmp_path, method=method, rows="float32", shard_rows=40)
    assert contents(tmp_path) == written
    few, _ = made()
    few = few.restricted(np.arange(2))
    monkeypatch.setattr(whence.EKFAC, "prepare", None)
    again = whence.Index.open(tmp_path, few)
    assert again.method == method
    np.testing.assert_allclose(all_scores(again, queries), scores, atol=1e-6)
    assert "lies in the index" in str(again.query(queries).diagnostics)
    damaged = next(tmp_path.glob("curvature-*"))
    damaged.write_bytes(damaged.read_bytes()[:-1])
    assert damaged.name in str(again.verify())


def test_a_projection_that_keeps_all_is_influence(network: tuple[ModuleObjective, Any]) -> None:
    """P is orthogonal where no side is made smaller."""
    objective, queries = network
    solver = whence.EKFAC(rtol=1e-7)
    found = whence.Projected(solver=solver, damping=0.1, size=100).fit(objective).scores(queries)
    expected = whence.influence(objective, queries, solver=solver, damping=0.1)
    atol = 1e-5 * np.abs(expected.values).max()
    np.testing.assert_allclose(found.values, expected.values, atol=atol)
    assert found.diagnostics is not None
    assert found.diagnostics.damping == 0.1


def test_why_this_answer_and_not_that(standing: whence.Index, network: Any) -> None:
    """The difference of two answers' scores, and the exact first of it, by every row's score."""
    objective, (x, y) = network
    others = (x, (y + 1) % 3)
    fitted = LAYERS.fit(objective)
    expected = fitted.scores((x, y)).against(fitted.scores(others))
    direct = fitted.scores(
        (x, y),
        measure=lambda f, t: f.log_softmax(1).gather(1, torch.stack([(t + 1) % 3, t], 1)) @ _SIGNS,
    )
    largest = np.abs(expected.values).max()
    np.testing.assert_allclose(expected.values, direct.values, atol=1e-4 * largest)
    hits = standing.query((x, y), k=4, against=others)
    assert hits.measure == expected.measure == "difference of the loss"
    np.testing.assert_allclose(hits.helpful.values, expected.top(4).values, atol=1e-3 * largest)
    one = standing.query((x, y), k=4, against=(x[:1], others[1][:1]))
    single = fitted.scores((x, y)).against(fitted.scores((x[:1], others[1][:1])))
    np.testing.assert_allclose(one.harmful.values, single.bottom(4).values, atol=1e-3 * largest)
    with pytest.raises(InvalidInput, match="one for each query. Got 2"):
        standing.query((x, y), against=(x[:2], y[:2]))
    with pytest.raises(InvalidInput, match="one for each query. Got 2"):
        expected.against(replace(expected, values=expected.values[:2], query_ids=np.arange(2)))
    with pytest.raises(InvalidInput, match="the same measure"):
        fitted.scores((x, y)).against(fitted.scores((x, y), measure="margin"))


def test_a_changed_frozen_base_is_named(tmp_path: Path) -> None:
    """Adapters over another base have other gradients, though the trained weights are the same."""
    x, y = torch.randn(12, 4, generator=torch.Generator().manual_seed(0)), torch.arange(12) % 3
    base, top = nn.Linear(4, 6).requires_grad_(False), nn.Linear(6, 3)
    model = nn.Sequential(base, nn.BatchNorm1d(6).requires_grad_(False), top).eval()
    loss = whence.CrossEntropy()
    whence.Index.build(whence.from_torch(model, loss, (x, y)), tmp_path)
    whence.Index.open(tmp_path, whence.from_torch(model, loss, (x, y)))
    with pytest.raises(InvalidInput, match="another digest of its loss or penalty"):
        whence.Index.open(tmp_path, whence.from_torch(model, loss, (x, y), l2=0.1))
    for changed in (base.weight, model[1].running_mean):
        before = changed.detach().clone()
        changed.data[0] += 1e-3
        with pytest.raises(InvalidInput, match="another digest of its frozen weights"):
            whence.Index.open(tmp_path, whence.from_torch(model, loss, (x, y)))
        changed.data.copy_(before)


def test_a_changed_extractor_is_named(tmp_path: Path) -> None:
    x, y = torch.randn(12, 4, generator=torch.Generator().manual_seed(0)), torch.arange(12) % 2
    extractor = nn.Linear(4, 3).requires_grad_(False)
    top = LogisticRegression(tol=1e-8).fit(extractor(x), y)
    whence.Index.build(whence.from_frozen(extractor, top, x, y), tmp_path)
    whence.Index.open(tmp_path, whence.from_frozen(extractor, top, x, y))
    extractor.weight[0] += 1e-3
    with pytest.raises(InvalidInput, match="another digest of its frozen weights"):
        whence.Index.open(tmp_path, whence.from_frozen(extractor, top, x, y))


def test_pages_read_the_stored_rows(
    standing: whence.Index, network: Any, tmp_path: Path, monkeypatch: Any
) -> None:
    """Explanations by an index are those by its method, and compute no training gradient."""
    objective, queries = network
    one = queries[0][:1], queries[1][:1]
    expected = whence.explain(objective, one, method=LAYERS, k=4)
    monkeypatch.setattr(type(standing.features), "rows", None)
    method = whence.Stored(standing)
    found = whence.explain(objective, one, method=method, k=4)
    assert [each.id for each in found.helpful] == [each.id for each in expected.helpful]
    np.testing.assert_allclose(
        found.scores.values,
        expected.scores.values,
        atol=1e-3 * np.abs(expected.scores.values).max(),
    )
    whence.report(objective, queries, tmp_path / "many.html", method=method)
    assert "rows of an index" in (tmp_path / "many.html").read_text(encoding="utf-8")
    where = [5, 80, 2]
    scores = method.fit(objective).scores(queries, indices=where)
    assert np.array_equal(scores.values, method.fit(objective).scores(queries).values[:, where])
    with pytest.raises(InvalidInput, match="Got one of 90 rows of other or more data"):
        method.fit(objective.restricted(np.arange(20)))


def test_passes_in_bfloat16_are_another_index(
    standing: whence.Index, network: Any, tmp_path: Path
) -> None:
    """Its scores are nearly those of float32, and neither index takes rows of the other."""
    objective, queries = network
    rough = objective.in_bf16()
    assert rough.bf16
    index = whence.Index.build(
        rough, tmp_path, method=METHODS["projected products"], rows="float32"
    )
    expected = METHODS["projected products"].fit(objective).scores(queries).values
    off = np.linalg.norm(all_scores(index, queries) - expected) / np.linalg.norm(expected)
    assert 1e-6 < off < 0.03
    with pytest.raises(InvalidInput, match=r"Got that of the model. Give objective.in_bf16\(\)"):
        whence.Index.open(tmp_path, objective)
    with pytest.raises(InvalidInput, match="Got bfloat16."):
        whence.Index.open(standing.path, rough)


def test_it_prints_what_it_is(standing: whence.Index, network: Any) -> None:
    assert "90 rows of" in repr(standing)
    assert "float16" in standing._repr_html_()
    hits = standing.query(network[1], k=3)
    assert "3 most helpful" in repr(hits)
    assert len(hits.to_frame()) == 2 * 5 * 3
    assert (standing.path / MANIFEST).exists()
    assert "every byte as it was written" in str(standing.verify())


class Interrupted:
    """A file whose first read meets a Ctrl-C that torch takes for an error of its own."""

    def __init__(self, failures: int) -> None:
        self.failures = failures

    def get_tensor(self, name: str) -> torch.Tensor:
        self.failures -= 1
        if self.failures >= 0:
            raise ValueError("could not determine the shape of object type")
        return torch.zeros(1)


def test_an_interrupted_read_is_no_damaged_file() -> None:
    assert len(read_tensor(Interrupted(0), "rows")) == 1
    with pytest.raises(KeyboardInterrupt):
        read_tensor(Interrupted(1), "rows")
    with pytest.raises(ValueError, match="shape"):  # said of the file by the one who opened it
        read_tensor(Interrupted(2), "rows")


def test_queries_whose_scores_are_all_alike_have_no_correlation(
    standing: whence.Index, network: tuple[ModuleObjective, Any]
) -> None:
    queries = network[1][0][:3], torch.tensor([0, 1, 0])
    verified = standing.verify(queries, measure=lambda f, y: f[:, 0] * (y > 0))
    assert verified.pearson is not None
    assert verified.pearson > 0.99
    verified = standing.verify(queries, measure=lambda f, y: 0 * f[:, 0])
    assert verified.pearson is None
    assert "correlation none" in str(verified)
