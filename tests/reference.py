"""Write the reference: a page for each public name, and a list of them by task.

python -m tests.reference

The pages are plain Markdown, so that they read on a code host as they do on the site.
"""

from __future__ import annotations

import importlib
import inspect
import re
from pathlib import Path
from types import ModuleType
from typing import Any

import griffe

import whence

FOLDER = Path(__file__).parent.parent / "docs" / "reference"
EXAMPLES = FOLDER.parent / "examples.md"

# What a reader wants to do, and the names that do it; a public name in no line comes last.
TASKS: dict[str, str] = {
    "Hand over a model": "from_sklearn from_torch from_transformers from_frozen "
    "from_statsmodels from_lifelines Trained Examples",
    "Explain a prediction": "explain applications.explanation.Explanation report explore influence "
    "influence_by_token methods.tokens.TokenScores report_evaluation compare_influence "
    "applications.comparison.Comparison",
    "Read scores": "Scores scores.Ranking Diagnostics average self_influence "
    "influence_on_parameters error_bound",
    "Ask what would be": "group_effect edit perturbation flip_set applications.flip_set.FlipSet "
    "removal_curve applications.removals.RemovalCurve",
    "Measure a set of queries": "measures.SetMeasure measures.OfSet measures.Mean "
    "measures.Accuracy measures.AUROC measures.DemographicParity measures.EqualOpportunity "
    "measures.Calibration measures.WorstGroup measures.CohensD",
    "Keep an index on disk": "Index select Stored SavedCurvature index.hits.Hits index.hits.Info "
    "index.hits.Verification index.selection.Selection",
    "Clean data": "find_label_errors applications.label_errors.LabelErrors domain_mismatch "
    "applications.domain_mismatch.DomainMismatch",
    "Check by retraining": "leave_one_out retrain evaluation.Agreement evaluate stability "
    "applications.stability.Stability",
    "Look at the model": "diagnose applications.diagnose.Diagnosis regression_diagnostics spectrum "
    "applications.diagnose.Spectrum",
    "Draw": "plot.effects plot.predicted_against_actual plot.input_attribution "
    "plot.leverage_and_residuals plot.by_row",
    "Attack": "attacks.attack attacks.strongest attacks.resume attacks.as_predicted attacks.Attack "
    "attacks.flip_labels attacks.LabelFlips attacks.change_cells attacks.CellChanges",
    "Choose a method": "Method Attribution Influence Boosting BoostIn LeafKernel ForestWeights "
    "DataOOB LeaveOneOut Composition Retrained KNNShapley TracIn tracin Projected projected "
    "Representer representer Metagradient metagradient Unrolled unrolled BM25 TfIdfCosine "
    "HiddenCosine Semivalue",
    "Record a training": "train Recipe Run trainer_callback lightning_callback "
    "training.trajectory.Trajectory "
    "metasmoothness training.metasmoothness.Metasmoothness",
    "Choose a solver": "Cholesky CG EKFAC KFAC LiSSA linalg.Nystrom linalg.Arnoldi linalg.Direct "
    "linalg.Solution curvature.exact.Hessian curvature.exact.GGN curvature.exact.EmpiricalFisher",
    "Choose a loss": "CrossEntropy Logistic SquaredError Tweedie SmoothHinge SquaredHinge",
    "Evaluate a method": "evaluation.lds evaluation.LDS evaluation.noise_ceiling "
    "evaluation.retraining_ensemble "
    "evaluation.load_ensemble evaluation.RetrainingEnsemble evaluation.replays "
    "evaluation.loo_correlation "
    "evaluation.detection_curve evaluation.top_k_removal evaluation.brittleness_curve",
}
_INDEX = """# API by task

A page for each function, class and result. Everything is imported as `import whence`.
"""


def pages() -> dict[Path, str]:
    """Return the text of each page of the reference."""
    table = {task: names.split() for task, names in TASKS.items()}
    listed = {name for names in table.values() for name in names}
    heads = {name.partition(".")[0] for name in listed}
    rest = [name for name in whence.__all__ if name not in {"__version__", "errors"} | heads]
    if rest:
        table["More"] = rest
    found, index = {}, [_INDEX]
    for task, names in table.items():
        index.append(f"\n## {task}\n\n| name | what it is |\n|---|---|")
        for name in names:
            value, parsed = thing(name), sections(thing(name))
            first = _line(parsed[0].value) if parsed else ""
            index.append(f"| [`{short(name)}`](api/{stem(name)}.md) | {first} |")
            found[FOLDER / "api" / f"{stem(name)}.md"] = page(name, value)
    index.append(
        "\n## Errors\n\nAll are `whence.errors.WhenceError`.\n\n| error | when |\n|---|---|"
    )
    index += [
        f"| `{error.__name__}` | {_line(inspect.getdoc(error) or '')} |" for error in errors()
    ]
    found[FOLDER / "index.md"] = "\n".join(index) + "\n"
    return found


def with_examples(text: str) -> str:
    """Return the page of examples with the code of each, and what it prints, as they are now."""

    def shown(found: re.Match[str]) -> str:
        path = FOLDER.parent.parent / found[1]
        code = path.read_text(encoding="utf-8").rstrip()
        printed = path.with_suffix(".txt").read_text(encoding="utf-8").rstrip()
        return f"`{found[1]}`\n\n```py\n{code}\n```\n\n```text\n{printed}\n```"

    block = r"`(examples/\w+\.py)`\n\n```py\n.*?\n```\n\n```text\n.*?\n```"
    return re.sub(block, shown, text, flags=re.DOTALL)


def errors() -> list[type]:
    """Return the errors and warnings of the library."""
    values = vars(importlib.import_module("whence.errors")).values()
    own = [v for v in values if isinstance(v, type) and v.__module__ == "whence.errors"]
    return [v for v in own if issubclass(v, Exception)]


def thing(name: str) -> Any:
    """Return what a dotted name of the package means."""
    value: Any = whence
    place = "whence"
    for part in name.split("."):
        place = f"{place}.{part}"
        try:
            value = getattr(value, part)
        except AttributeError:
            value = importlib.import_module(place)
    return value


def short(name: str) -> str:
    """Return what a reader calls it."""
    head, _, last = name.rpartition(".")
    return name if head in ("", *whence._MODULES) else last


def stem(name: str) -> str:
    """Return the name of a page's file, which differs from others in more than its capitals."""
    names = {*whence.__all__, *" ".join(TASKS.values()).split()}
    return f"{name}-class" if name != name.lower() and name.lower() in names else name


def page(name: str, value: Any) -> str:
    """Return the page of one name."""
    lines = [f"# {short(name)}", "", f"`whence.{name}`", ""]
    lines += _described(value, short(name))
    for member, inner in _members(value):
        lines += ["", f"## .{member}", ""]
        lines += _described(inner, member)
    return re.sub(r"\n{3,}", "\n\n", "\n".join(lines)).rstrip() + "\n"


def sections(value: Any) -> list[Any]:
    """Return the sections of a docstring."""
    text = inspect.getdoc(value) or ""
    return list(griffe.Docstring(text, parser="google").parse("google", warnings=False))


def _members(value: Any) -> list[tuple[str, Any]]:
    """Return the public methods and properties that a class has a docstring for."""
    if not isinstance(value, type):
        return []
    found = []
    for name, member in sorted(vars(value).items()):
        inner = member.__func__ if isinstance(member, classmethod | staticmethod) else member
        described = getattr(inner, "__doc__", None)
        methodic = callable(inner) or isinstance(inner, property) or hasattr(inner, "func")
        if not name.startswith("_") and described and methodic:
            found.append((name, inner))
    return found


def _described(value: Any, name: str) -> list[str]:
    """Return a signature, and the sections of a docstring as Markdown."""
    lines = [*_signature(value, name), ""]
    for section in sections(value):
        kind = section.kind.value
        if kind == "text":
            lines += [section.value, ""]
        elif kind in ("parameters", "attributes", "raises", "returns", "yields", "warns"):
            lines += [f"**{kind.capitalize()}**", ""]
            lines += [_item(each) for each in section.value] + [""]
        elif kind == "examples":
            lines += ["**Examples**", ""]
            for part, text in section.value:
                lines += [text, ""] if part.value == "text" else ["```pycon", text, "```", ""]
        elif kind == "admonition":
            lines += [f"**{section.title}**", "", section.value.description, ""]
    return lines


def _signature(value: Any, name: str) -> list[str]:
    """Return how a function or a class is called."""
    if isinstance(value, ModuleType | property) or not callable(value):
        return []
    try:
        found = inspect.signature(value)
    except (TypeError, ValueError):
        return []
    shown = [
        each.replace(annotation=inspect.Parameter.empty)
        for each in found.parameters.values()
        if each.name != "self"
    ]
    text = str(found.replace(parameters=shown, return_annotation=inspect.Signature.empty))
    text = re.sub(r"<(?:function )?([\w.]+)(?: object)? at 0x\w+>", r"\1", text)
    call = f"{name}{text}"
    if len(call) > 90:
        inside = ",\n    ".join(map(str, _split(text[1:-1])))
        call = f"{name}(\n    {inside},\n)"
    return ["```py", call, "```"]


def _split(parameters: str) -> list[str]:
    """Return parameters one by one; a comma inside brackets parts nothing."""
    parts, depth, start = [], 0, 0
    for at, character in enumerate(parameters):
        depth += (character in "([{") - (character in ")]}")
        if character == "," and not depth:
            parts.append(parameters[start:at].strip())
            start = at + 1
    return [*parts, parameters[start:].strip()]


def _item(each: Any) -> str:
    """Return one argument, error or result as an item of a list."""
    name = getattr(each, "name", "") or (str(each.annotation) if each.annotation else "")
    text = " ".join(each.description.split())
    return f"- `{name}`: {text}" if name else f"- {text}"


def _line(text: str) -> str:
    """Return the first sentence of a docstring, for a cell of a table."""
    first = text.strip().split("\n\n")[0].replace("\n", " ")
    return first.replace("|", "\\|")


def main() -> None:
    """Write all pages, and remove those of names that are gone."""
    found = pages()
    (FOLDER / "api").mkdir(exist_ok=True)
    for path in (FOLDER / "api").glob("*.md"):
        if path not in found:
            path.unlink()
    for path, text in found.items():
        path.write_text(text, encoding="utf-8")
    EXAMPLES.write_text(with_examples(EXAMPLES.read_text(encoding="utf-8")), encoding="utf-8")


if __name__ == "__main__":
    main()
