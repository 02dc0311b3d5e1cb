"""All of a release but the upload: `make release`, after the checks of the Makefile."""

from __future__ import annotations

import subprocess
import sys

from release import build, sbom

_CHANGELOG = build.ROOT / "CHANGELOG.md"


def git(*arguments: str) -> str:
    done = subprocess.run(
        ["git", *arguments], cwd=build.ROOT, capture_output=True, text=True, check=True
    )
    return done.stdout.strip()


def missing(version: str) -> list[str]:
    """Return what is missing for a release of this version, a sentence each."""
    changelog = _CHANGELOG.read_text(encoding="utf-8")
    citation = (build.ROOT / "CITATION.cff").read_text(encoding="utf-8")
    found = []
    if git("status", "--porcelain", "--untracked-files=no"):
        found.append("Expected a clean work tree. Got changes: commit them.")
    if f"## {version}" not in changelog:
        found.append(f"Expected a section '## {version}' in CHANGELOG.md. Rename 'Unreleased'.")
    if f"version: {version}\n" not in citation:
        found.append(f"Expected version {version} in CITATION.cff.")
    if git("tag", "--list", f"v{version}"):
        found.append(f"Expected no tag v{version} yet. Got one: raise src/whence/version.py.")
    return found


def main() -> int:
    import whence

    digests = build.build()
    bill = sbom.write()
    for name, digest in digests.items():
        print(f"{digest}  dist/{name}")
    print(f"bill of materials: {bill.relative_to(build.ROOT)}")
    left = missing(whence.__version__)
    for sentence in left:
        print(sentence, file=sys.stderr)
    if left:
        return 1
    print(
        f"Ready. To publish: git tag -s v{whence.__version__} && twine upload dist/*.whl dist/*.gz"
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
