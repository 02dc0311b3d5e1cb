"""The page of evidence: every claim with its command, the date and commit of its last run.

`make evidence` writes docs/explanation/evidence.md; a test holds its claims to committed results.
"""

from __future__ import annotations

import subprocess
import sys

from release.build import ROOT
from release.claims import CLAIMS, GENERATED

PAGE = ROOT / "docs" / "explanation" / "evidence.md"
_HEAD = """# Evidence

What README and site claim, and the command that proves it. Numbers are those of the committed
results: a test fails where a page says another number than its file. "Last run" is the day and the
commit at which the file was written; what a test holds is run with every commit.

"""


def last_run(sources: tuple[str, ...], section: str = "") -> str:
    """Return the day and the commit at which files, or a section of them, were last written."""
    if not sources:
        return "every commit"
    command = ["git", "log", "-1", "--no-patch", "--format=%cs, %h"]
    if section:
        command += [f"-L/<!-- {section} -->/,/<!-- end/:{source}" for source in sources]
    else:
        command += ["--", *sources]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    return done.stdout.strip() or "not committed yet"


def row(cells: tuple[str, ...]) -> str:
    """Return a row of a table."""
    return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"


def written() -> str:
    """Return the page."""
    claims = [
        row(
            (
                claim.page,
                claim.filled().strip("| "),
                f"`{claim.command}`",
                last_run(claim.sources, claim.section),
            )
        )
        for claim in CLAIMS
    ]
    pages = [
        row((page, ", ".join(sources[:3]) + (", …" if len(sources) > 3 else ""), f"`{command}`"))
        for page, command, sources in GENERATED
    ]
    return "\n".join(
        [
            _HEAD + "## Claims\n",
            "| page | claim | command | last run |",
            "|---|---|---|---|",
            *claims,
            "\n## Pages written by a command\n",
            "| page | from | command |",
            "|---|---|---|",
            *pages,
            "",
        ]
    )


def main() -> int:
    PAGE.write_text(written(), encoding="utf-8")
    print(PAGE)
    return 0


if __name__ == "__main__":
    sys.exit(main())
