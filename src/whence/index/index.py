"""An index of training examples on disk: build it once, ask it in any later process."""

from __future__ import annotations

import os
from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, final

import numpy as np
import torch

from whence.checked import checked
from whence.errors import InvalidInput
from whence.index.asking import Asked, asked_rows, positions_of, ranking, removed_rows
from whence.index.corpus import Corpus, corpus_of
from whence.index.damage import check_sizes
from whence.index.encodings import encoding_of
from whence.index.format import Manifest, read_index, write_named
from whence.index.hits import Hits, Info, Verification
from whence.index.identity import check_same, described, method_of, model_digests
from whence.index.ids import array_of, plain
from whence.index.scan import scan
from whence.index.texts import tokenized
from whence.index.verification import compared, files_read, info_of
from whence.index.writer import begin, clear_unnamed, default_rows, fill
from whence.methods.features import FeatureMap
from whence.methods.method import Method
from whence.methods.prediction import MeasureLike, measure_name
from whence.methods.projected import Projected
from whence.objective.cache import cached
from whence.objective.trained import Data, Trained
from whence.result import Card, Result
from whence.scores import check_answers, differing
from whence.storage import claim
from whence.workers import Backend


@final
@dataclass(frozen=True, eq=False, repr=False)
class Index(Result):
    """Features of training examples on disk, with the curvature that belongs to them.

    score[q, i] = (wᵢ/n) ⟨(K + (l2 + λ) I)⁻¹ φ(m_q), φ(zᵢ)⟩ for any method whose scores are such
    products. A query reads every stored row once, and computes no gradient but its own.

    Args:
        path: The folder.
        trained: The model.
        method: The method.

    Examples:
        >>> import tempfile, torch, whence
        >>> x, y = torch.randn(30, 4), torch.arange(30) % 3
        >>> model = torch.nn.Sequential(torch.nn.Linear(4, 8), torch.nn.Tanh(),
        ...                             torch.nn.Linear(8, 3))
        >>> objective = whence.from_torch(model, whence.CrossEntropy(), (x, y))
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     index = whence.Index.build(objective, folder)
        ...     hits = index.query((x[:2], y[:2]), k=3)
        ...     hits.top(3).ids.shape, index.info().n
        ((2, 3), 30)
    """

    path: Path
    trained: Trained
    method: Method

    @classmethod
    @checked
    def build(
        cls,
        trained: Trained,
        path: str | os.PathLike[str],
        *,
        method: Method | None = None,
        data: Any = None,
        rows: str = "float16",
        workers: int = 1,
        backend: Backend = "process",
        shard_rows: int | None = None,
        tokenizer: Any = None,
        max_length: int | None = None,
        trl: bool = False,
        ids: str | None = None,
        name: str = "",
    ) -> Index:
        """Compute and store the features of training examples; go on where a build was stopped.

        Args:
            trained: The model.
            path: A folder, made if absent. One that holds the same index is completed; what is
                damaged of it is computed again, with a warning: every byte is checked.
            method: What makes scores; `whence.Projected(moment="layers")` if `None`.
            data: What to index; the training examples of the model if `None`. (x, y), a map-style
                data set, a split of a Hugging Face data set, streaming or not, or a file or folder
                of Parquet or JSON lines. It is read as it is needed.
            rows: How rows are stored: "float32", "float16", "int8", or "rank-1", "rank-2", ….
            workers: Processes, or Ray tasks at a time. What is written does not depend on it.
            backend: "process" or "ray"; workers elsewhere need the folder in the same place.
            shard_rows: Rows of a file; 64 MB of float32 if `None`.
            tokenizer: Of data that are texts: rows with "text", "prompt" and "completion", or
                "messages"; the loss is on the completion, or on the answers, only.
            max_length: Tokens of a text, at most.
            trl: Whether TRL's SFTTrainer trained on the texts: a text alone then ends with the end
                of text, and all of a chat has a loss, as there without `assistant_only_loss`.
            ids: The column that names the rows; "id" or the like if `None`, else their numbers.
            name: What tells the data from others, where they do not tell themselves, as a list.

        Returns:
            The index.

        Raises:
            InvalidInput: If the folder holds another index, another process writes in it, or data
                or options cannot be used.
            UnsupportedModel: If the method's scores are not inner products of features.
            CorruptFile: If a file is damaged that these data alone do not give again.
            NotWritten: If the operating system refuses. What was written is kept.

        Cost:
            The features of every example once, and a pass over the stored rows for K. Memory for a
            shard per worker, whatever n is.

        References:
            Choe et al. (2024), section 3 (LoGra).
        """
        folder, chosen = Path(path), Projected(moment="layers") if method is None else method
        encoding_of(rows)
        if shard_rows is not None and shard_rows < 1:
            raise InvalidInput(f"Expected shard_rows >= 1. Got {shard_rows}.")
        index = cls(folder, trained, chosen)
        how: dict[str, Any] = {"max_length": max_length, "trl": trl, "ids": ids, "name": name}
        corpus = corpus_of(data, trained, tokenizer=tokenizer, **how)
        asked = Manifest(
            model=model_digests(trained),
            method=described(chosen),
            words=index.features.words,
            encoding=rows,
            columns=index.features.parts,
            shard_rows=shard_rows or default_rows(index.features),
        )
        with claim(folder):
            try:
                there = Manifest.read(folder)
            except FileNotFoundError:
                there = asked
            same = not there.data or there.data[0].identity == corpus.identity
            if not (there.same_kind(asked) and same):
                raise InvalidInput(
                    f"Expected an empty folder, or the same index of the same data, in {folder}. "
                    "Got an index of another model, method, encoding or data. Choose another "
                    "folder, or use append for more data."
                )
            if (manifest := begin(folder, there, corpus)) is not None:
                index._fill(manifest, corpus, workers, backend)
            clear_unnamed(folder, "rows", "moment", "curvature")
        return index

    @classmethod
    @checked
    def open(
        cls, path: str | os.PathLike[str], trained: Trained, method: Method | None = None
    ) -> Index:
        """Return an index that was built before, by this process or another.

        Args:
            path: The folder.
            trained: The model it was built for; its training data are not read.
            method: The method; read from the folder if `None`, which holds the options of methods
                without checkpoints and functions.

        Raises:
            InvalidInput: If the index is of another model or method, or there is none.
            CorruptFile: If the manifest is damaged.
        """
        folder = Path(path)
        manifest = read_index(folder)
        found = method_of(manifest.method) if method is None else method
        check_same(folder, manifest, trained, found)
        return cls(folder, trained, found)

    @property
    def features(self) -> FeatureMap:
        """The features of single examples."""
        key = (Index, "features", self.method)
        return cached(self.trained, key, self.method.feature_map)

    @checked
    def append(
        self,
        data: Any,
        *,
        workers: int = 1,
        backend: Backend = "process",
        tokenizer: Any = None,
        max_length: int | None = None,
        trl: bool = False,
        ids: str | None = None,
        name: str = "",
    ) -> None:
        """Add more training examples, as if the index had been built with them.

        n and the second moments count them too. Data that were added before are not added again,
        so that an interrupted call can be repeated.

        Args:
            data: As for `build`.
            workers: As for `build`.
            backend: As for `build`.
            tokenizer: As for `build`.
            max_length: As for `build`.
            trl: As for `build`.
            ids: As for `build`.
            name: As for `build`.

        Raises:
            InvalidInput: If nothing tells the data from others, another append was interrupted, or
                the tokenizer is not that of the texts before.
            CorruptFile: If a file is missing or has another size.
            NotWritten: If the operating system refuses.
        """
        how: dict[str, Any] = {"max_length": max_length, "trl": trl, "ids": ids, "name": name}
        corpus = corpus_of(data, self.trained, tokenizer=tokenizer, **how)
        if not corpus.identity:
            raise InvalidInput(
                "Expected data that tell what they are, so that they are not added twice: files, "
                f"(x, y), or a Hugging Face data set. Got {type(data).__name__}. Pass name=, any "
                "text of your own."
            )
        with claim(self.path):
            there = read_index(self.path)
            if (manifest := begin(self.path, there, corpus)) is not None:
                self._fill(manifest, corpus, workers, backend)
            clear_unnamed(self.path, "rows", "moment")

    @checked
    def remove(self, ids: Iterable[Any]) -> None:
        """Leave examples out of all answers from now on.

        Their rows stay, and count in n and the second moments: the model has seen them.

        Args:
            ids: The names of the examples.

        Raises:
            InvalidInput: If the index has no such example.
            NotWritten: If the operating system refuses.
        """
        wanted = plain(array_of(ids))
        with claim(self.path):
            manifest = self.complete()
            before = removed_rows(self.path, manifest)
            positions = np.union1d(before, positions_of(self.path, manifest, wanted))
            tensors = {"positions": torch.from_numpy(positions.astype(np.int64))}
            if len(positions) > len(before):
                file = write_named(self.path, "removed", len(positions), tensors)
                replace(manifest, removed=file).write(self.path)
            clear_unnamed(self.path, "removed")

    def info(self) -> Info:
        """Return what the index holds; a damaged manifest raises `CorruptFile`."""
        return info_of(self.path)

    @checked
    def query(
        self,
        queries: Data,
        k: int = 100,
        *,
        against: Data | None = None,
        measure: MeasureLike = "loss",
        tokenizer: Any = None,
        max_length: int | None = None,
    ) -> Hits:
        """Return the k most helpful and the k most harmful of all indexed examples.

        Args:
            queries: (x, y) of q queries, or of one; with a tokenizer a text, or a list of texts or
                of rows as for `build`: of {"prompt": …, "completion": …} the answer counts.
            k: How many on each side, >= 1; all if there are fewer.
            against: Other answers, one for each query or one for all: scores are then those of the
                difference of the two measures, why this answer and not that.
            measure: "loss", "margin", "probability", or a function (outputs, targets) -> [b].
            tokenizer: Of queries that are texts: the one that the index was built with; another is
                refused.
            max_length: Tokens of a text, at most.

        Returns:
            The examples with their ids and scores: exact for the rows as they are stored. Their
            `report` writes a page of them.

        Raises:
            InvalidInput: If queries, measure or k cannot be used, or the index is not complete.
            CorruptFile: If a file is missing or has another size, or one beside the rows is not as
                it was written. A changed byte of the rows is found by `verify` and `build`.
            NotPositiveDefinite: If a second moment is singular and not damped.

        Cost:
            The gradients of the queries, and one pass over the stored rows: q d products each.
            Memory for a block of rows, [q, d] and [q, k].
        """
        if k < 1:
            raise InvalidInput(f"Expected k >= 1. Got {k}.")
        manifest, features = self.complete(), self.features
        how = tokenizer, max_length, manifest.tokenizer
        encoded = self.trained.examples(tokenized(queries, *how))
        rows, measured = asked_rows(self.path, manifest, features, encoded, measure)
        if against is not None:
            others = self.trained.examples(tokenized(against, *how))
            check_answers(len(encoded), len(others))
            rows = rows - asked_rows(self.path, manifest, features, others, measure)[0]
        removed = removed_rows(self.path, manifest)
        best = scan(self.path, manifest, rows, min(k, manifest.n), removed)
        helpful, harmful = (ranking(self.path, manifest, each) for each in best)
        asked = Asked(
            manifest=manifest,
            features=features,
            queries=encoded,
            rows=rows,
            measure=differing(measure_name(measure) + features.unit, against is not None),
            diagnostics=measured,
        )
        return Hits(helpful=helpful, harmful=harmful, asked=asked)

    @checked
    def verify(
        self, queries: Data | None = None, k: int = 100, *, measure: MeasureLike = "loss"
    ) -> Verification:
        """Read every byte, and tell what is damaged and what the encoding of the rows costs.

        Args:
            queries: If given, scores of the first 2,000 examples by stored rows are compared with
                those by features in float32, computed anew from the training data of the model.
            k: Of the comparison of the first k, >= 1.
            measure: Of the comparison.

        Returns:
            The findings. A damaged file is named; delete it and build again: the others are kept.

        Raises:
            CorruptFile: If the manifest itself is damaged.
            InvalidInput: If k < 1, or queries are given, and the index is not of the model's own
                data.
        """
        if k < 1:
            raise InvalidInput(f"Expected k >= 1 of the first hits to compare. Got {k}.")
        manifest = read_index(self.path)
        found = files_read(self.path, manifest)
        if queries is None or not found.ok:
            return found
        self.complete()
        if manifest.data[0].identity != corpus_of(None, self.trained).identity:
            raise InvalidInput(
                "Expected an index of the training data of this model, whose features can be "
                "computed anew. Got one of other data. Leave queries out."
            )
        encoded = self.trained.examples(queries)
        asked, _ = asked_rows(self.path, manifest, self.features, encoded, measure)
        return compared(found, self.path, manifest, self.features, asked, k)

    def card(self) -> Card:
        """Return what the index holds."""
        try:
            return self.info().card()
        except (InvalidInput, OSError) as error:
            return Card(title=f"an index in {self.path} that cannot be read", words=(str(error),))

    def _fill(self, manifest: Manifest, corpus: Corpus, workers: int, backend: Backend) -> None:
        """Write what is missing of a corpus."""
        # Not those that are cached, which refer to all that is cached: this goes to the workers.
        features = self.method.feature_map(self.trained)
        fill(self.path, manifest, features, corpus, workers=workers, backend=backend)

    def complete(self) -> Manifest:
        """Return the manifest of an index whose data are all there.

        Raises:
            InvalidInput: If the build or an append was interrupted.
            CorruptFile: If the manifest is damaged, or a file is missing or has another size.
        """
        manifest = read_index(self.path)
        if not manifest.complete:
            raise InvalidInput(
                f"Expected a complete index in {self.path}. Got one whose build or append was "
                f"interrupted at {manifest.n:,} rows. Give the same command again."
            )
        check_sizes(self.path, manifest.files)
        return manifest
