"""Execute the notebooks, and write their outputs and a Markdown copy of each for the site.

python -m tests.notebooks (`make notebooks`)

The cells are the source; the tests execute them again and compare what they print.
"""

from __future__ import annotations

import base64
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import nbformat
from nbclient import NotebookClient

FOLDER = Path(__file__).parent.parent / "docs" / "notebooks"
WIDGET = "application/vnd.jupyter.widget-view+json"
_SECONDS = 300  # that a notebook may take on a busy machine


def executed(paths: Sequence[Path], folder: Path) -> list[Any]:
    """Return notebooks after all their cells have run, in one kernel that forgets all between them.

    Args:
        paths: The notebooks.
        folder: Where they run, so that files they write stay out of the repository.
    """
    notebooks = [nbformat.read(path, as_version=4) for path in paths]
    whole = nbformat.v4.new_notebook()
    for notebook in notebooks:
        whole.cells += [nbformat.v4.new_code_cell("%reset -f"), *notebook.cells]
    where = {"metadata": {"path": str(folder)}}
    NotebookClient(whole, timeout=_SECONDS, kernel_name="python3", resources=where).execute()
    return notebooks


def printed(notebook: Any) -> list[str]:
    """Return what each code cell prints and shows as text."""
    return [
        "\n".join(
            output.get("text") or output.get("data", {}).get("text/plain", "")
            for output in cell.outputs
            if output.output_type != "display_data" and output.get("name") != "stderr"
            if WIDGET not in output.get("data", {})
        )
        for cell in notebook.cells
        if cell.cell_type == "code"
    ]


def markdown(notebook: Any, name: str) -> tuple[str, dict[str, bytes]]:
    """Return a notebook as Markdown, with its pictures by their file names."""
    lines, pictures = [], {}
    for cell in notebook.cells:
        if cell.cell_type == "markdown":
            lines += [cell.source, ""]
            continue
        lines += ["```py", cell.source, "```", ""]
        for output in cell.outputs:
            data = output.get("data", {})
            if "image/png" in data:
                file = f"{name}-{len(pictures) + 1}.png"
                pictures[file] = base64.b64decode(data["image/png"])
                lines += [f"![{_about(cell.source)}]({file})", ""]
            elif "text/html" in data:
                lines += [data["text/html"].replace("\n", " "), ""]
            else:
                lines += ["```text", (output.get("text") or data["text/plain"]).rstrip(), "```", ""]
    return "\n".join(lines).rstrip() + "\n", pictures


def _about(source: str) -> str:
    """Return what a picture shows, by the call that drew it."""
    return "drawn by " + (re.findall(r"whence\.plot\.(\w+)", source) or ["the code above"])[0]


def main() -> None:
    """Execute all notebooks in a temporary folder, and write what they show."""
    import tempfile

    for path in sorted(FOLDER.glob("*.ipynb")):
        with tempfile.TemporaryDirectory() as folder:
            (notebook,) = executed([path], Path(folder))
        count = 0
        for cell in notebook.cells:
            cell.metadata.clear()  # times of execution, which differ each time
            if cell.cell_type == "code":
                # Warnings name folders of this machine; bars and widgets need their kernel.
                cell.outputs = [
                    output
                    for output in cell.outputs
                    if output.get("name") != "stderr" and WIDGET not in output.get("data", {})
                ]
                count += 1
                cell.execution_count = count
                for output in cell.outputs:
                    if "execution_count" in output:
                        output.execution_count = count
        notebook.metadata.pop("widgets", None)
        nbformat.write(notebook, path)
        text, pictures = markdown(notebook, path.stem)
        path.with_suffix(".md").write_text(text, encoding="utf-8")
        for file, content in pictures.items():
            (FOLDER / file).write_bytes(content)


if __name__ == "__main__":
    main()
