"""The table of W7 in docs/explanation/methods/trees.md, from the committed rows.

`python -m benchmarks.trees_page` writes it; a test holds the page and the rows equal.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

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
        cells += [f"{np.mean(sized):.2f}", _mean(some, "auc", 3), _mean(some, "cleanlab", 3)]
        cells.append(_mean(some, "cpu_seconds", 0))
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines) + "\n\n" + _sentences(rows)


def _mean(rows: list[dict[str, Any]], key: str, digits: int = 2) -> str:
    """Return the mean of a column over the rows that have it."""
    return f"{np.mean([row[key] for row in rows if key in row]):.{digits}f}"


def _sentences(rows: dict[str, dict[str, Any]]) -> str:
    """Return what else the rows say."""
    each = [row for row in rows.values() if "lds" in row]
    better = sum(row["lds"] > max(row["boostin"], row["kernel"]) for row in each)
    total = sum(row["lds"] for row in each) / sum(row["boostin"] for row in each)
    ratio = np.mean([row["lds"] / row["boostin"] for row in each])
    labels = [row for row in each if "auc" in row]
    ahead = sum(row["auc"] >= row["cleanlab"] for row in labels)
    worst = min(row["auc"] - row["cleanlab"] for row in labels)
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
        "Wrong labels are ranked as well as by cleanlab on the same model, or better, in",
        f"{ahead} of {len(labels)} cases; the largest loss of AUC is {-worst:.3f}.",
    ]
    if "speed / catboost" in rows:
        row = rows["speed / catboost"]
        times = row["catboost_10_queries"] / 10 * row["queries"] / row["seconds"]
        text += [
            "The derivative of 100 queries in 5,000 rows of 100 rounds takes",
            f"{row['seconds']:.2f} s;",
            "CatBoost's `get_object_importance` (its default, SinglePoint), of ten queries,",
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
        "of all of it, the refits, removals and label errors that judge the scores included. The",
        "slope is that of 24 refits on other halves in the scores, 1 where sizes are right.",
        "tree-influence does not run with the present libraries: BoostIn and the leaf kernel are",
        "whence's, of its formulas.",
    ]
    return " ".join(text) + "\n"


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
