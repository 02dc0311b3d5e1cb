"""The tables of W7 in docs/explanation/methods/trees.md, from the committed rows.

`python -m benchmarks.trees_page` writes it; a test holds the page and the rows equal.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from benchmarks import tree_influence, tree_labels
from benchmarks.between import between
from benchmarks.trees import LIBRARIES, known

PAGE = Path(__file__).parent.parent / "docs" / "explanation" / "methods" / "trees.md"
_START, _END = "<!-- table: python -m benchmarks.trees_page -->\n", "<!-- end of table -->\n"


def table() -> str:
    """Return the table, a line per library, and the sentences under it."""
    rows = known()
    lines = [
        "| library | tables | LDS | BoostIn | leaf kernel | its own estimate | slope | label errors"
        " | cleanlab | processor seconds |",
        "|---|---|---|---|---|---|---|---|---|---|",
    ]
    for library in (*LIBRARIES, ""):
        some = [row for case, row in rows.items() if "lds" in row and case.endswith(library)]
        cells = [library or "**all**", str(len(some))]
        cells += [_mean(some, key) for key in ("lds", "boostin", "kernel", "estimate")]
        sized = [row["slope"] / 2 ** row["response"][1] for row in some if row["response"]]
        cells += [f"{np.mean(sized):.2f}", *_labels(library), _mean(some, "cpu_seconds", 0)]
        lines.append("| " + " | ".join(cells) + " |")
    return "\n\n".join(["\n".join(lines), _sentences(rows), _peer()])


def _labels(library: str) -> list[str]:
    """Return the mean areas under the curve of rankings of labels, whence's and cleanlab's."""
    some = [row for case, row in tree_labels.known().items() if case.endswith(library)]
    return [f"{np.mean([row[key] for row in some]):.3f}" for key in ("whence", "cleanlab")]


def _peer() -> str:
    """Return the table of tree-influence's methods, and the sentences under it."""
    found = tree_influence.known()
    speed = found.pop(tree_influence.SPEED, None)
    lines = [
        "| tree-influence's | cases | LDS | whence's | whence ahead | least lead / its error |",
        "|---|---|---|---|---|---|",
    ]
    for method in tree_influence.QUICK + tree_influence.SLOW:
        some = [row for row in found.values() if "lds" in row.get(method, {})]
        leads = np.array([row[method]["lead"] for row in some])
        means = [
            np.mean([row[method]["lds"] for row in some]),
            np.mean([r["whence"] for r in some]),
        ]
        cells = [method, str(len(some)), *(f"{mean:.2f}" for mean in means)]
        cells += [str(int((leads[:, 0] > 0).sum())), f"{(leads[:, 0] / leads[:, 1]).min():.1f}"]
        lines.append("| " + " | ".join(cells) + " |")
    text = [
        "tree-influence 0.1.7 runs in its own Python, by its own code, on these models",
        "(`python -m benchmarks.tree_influence`): its readers do not know today's libraries, so",
        "that it is given the trees in its own form. The measure is the loss of the queries, which",
        "its scores predict, and the judges are 48 refits on random halves; errors are over",
        "resamples of queries and refits. LeafInfluence and LeafRefit take half a minute a case,",
        "and were run on some. Its methods that retrain, and InputSim, which knows no model, were",
        "not run.",
    ]
    if speed is not None:
        took = speed["cpu_seconds"]
        words = f"takes {took:.0f} s" if took else f"had not ended after {speed['limit']} s"
        least = (took or speed["limit"]) / known()["speed / catboost"]["seconds"]
        text.append(
            f"Its LeafInfluence of 100 queries in 5,000 rows of 100 rounds {words}: "
            f"{'' if took else 'more than '}{least:,.0f} times as long as the derivative here."
        )
    return "\n".join(lines) + "\n\n" + " ".join(text) + "\n"


def _mean(rows: list[dict[str, Any]], key: str, digits: int = 2) -> str:
    """Return the mean of a column over the rows that have it."""
    return f"{np.mean([row[key] for row in rows if key in row]):.{digits}f}"


def _sentences(rows: dict[str, dict[str, Any]]) -> str:
    """Return what else the rows say."""
    each = [row for row in rows.values() if "lds" in row]
    better = sum(row["lds"] > max(row["boostin"], row["kernel"]) for row in each)
    total = sum(row["lds"] for row in each) / sum(row["boostin"] for row in each)
    ratio = np.mean([row["lds"] / row["boostin"] for row in each])
    labels = [tree_labels.difference(row) for row in tree_labels.known().values()]
    ahead = sum(mean >= 0 for mean, _ in labels)
    behind = sum(mean < -error for mean, error in labels)
    worst = min(labels)
    off = np.abs([row["estimate"] - row["lds"] for row in each])
    curve = sum(row["curve"] > 0 for row in each)
    least = min(row["finite"] for row in each)
    text = [
        f"The derivative and central differences correlate at {least:.6f} in all.",
        f"The mean LDS is {total:.2f} times BoostIn's, the mean of their ratios {ratio:.2f}. It is",
        f"above both others' in {better} of {len(each)} cases;",
        f"its own estimate is off by {off.mean():.2f} on average, {off.max():.2f} at most.",
        "Removing the tenth of highest scores raises the loss of other queries further than",
        f"removing random rows in {curve} of {len(each)}.",
        "Over four draws of which labels are wrong (`python -m benchmarks.tree_labels`), they are",
        "ranked as well as by cleanlab on the same model, or better, on average in",
        f"{ahead} of {len(labels)} cases measured, and below it by more than the standard error in",
        f"{behind}; the least lead in AUC is {worst[0]:+.3f} ± {worst[1]:.3f}.",
    ]
    if "speed / catboost" in rows:
        row = rows["speed / catboost"]
        times = row["catboost_10_queries"] / 10 * row["queries"] / row["seconds"]
        text += [
            "The derivative of 100 queries in 5,000 rows of 100 rounds takes",
            f"{row['seconds']:.2f} s;",
            "CatBoost's `get_object_importance` (its default, SinglePoint, of one tree at a time),",
            "by its time for ten queries,",
            f"{times:,.0f} times as long. {_all_points(row)}",
        ]
    if "speed / 100,000 rows" in rows:
        row = rows["speed / 100,000 rows"]
        text += [
            "100,000 rows, 100 rounds and 100 queries by LightGBM take",
            f"{row['wall']:.0f} s of two cores, 20 retrainings included, and",
            f"{row['peak_mb']:,.0f} MB.",
        ]
    text += [
        "Each case has at most 400 training rows, 40 queries and 40 rounds; processor seconds are",
        "of all of it, the refits and removals that judge the scores included, and of these rows",
        "the ranking of labels. The slope is that of 24 refits on other halves in the scores, 1",
        "where sizes are right.",
        "BoostIn and the leaf kernel of this table are whence's, of the paper's formulas;",
        "tree-influence's code takes leaf values after the learning rate where the derivative of a",
        "leaf has them before it, and does better on wine, perhaps for that.",
    ]
    return " ".join(text)


def _all_points(row: dict[str, Any]) -> str:
    """Return what is known of CatBoost's AllPoints."""
    if "all_points_limit" not in row:
        return ""
    ten = row["all_points_10_queries"]
    took = f"took {ten:.0f} s" if ten else f"had not ended after {row['all_points_limit']} s"
    least = (ten or row["all_points_limit"]) / row["seconds"]
    return (
        f"Its AllPoints, which the derivative equals, {took} of one processor for ten queries: "
        f"{'' if ten else 'more than '}{least:,.0f} times as long as 100 queries here."
    )


def written(page: str) -> str:
    """Return a page with the table in its place."""
    return between(page, _START, _END, table())


if __name__ == "__main__":
    PAGE.write_text(written(PAGE.read_text(encoding="utf-8")), encoding="utf-8")
