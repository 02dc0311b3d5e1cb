"""A software bill of materials: what an installation of whence consists of, as CycloneDX.

Made from the metadata of the packages that are installed, so that it says what was tested. No time
and no random number stands in it: the same environment gives the same bytes.
"""

from __future__ import annotations

import json
import re
import sys
from importlib import metadata
from pathlib import Path
from typing import Any

from release.build import DIST

_NAME = "whence-attribution"


def normal(name: str) -> str:
    """Return the name of a distribution as the package index compares it."""
    return re.sub(r"[-_.]+", "-", name).lower()


def needed(name: str) -> list[str]:
    """Return the installed distributions that one needs without extras."""
    found = []
    for requirement in metadata.requires(name) or []:
        if "extra ==" in requirement:
            continue
        other = normal(re.split(r"[^\w.-]", requirement)[0])
        try:
            metadata.distribution(other)
        except metadata.PackageNotFoundError:
            continue  # a marker of another system or Python
        found.append(other)
    return sorted(set(found))


def closure(name: str) -> dict[str, list[str]]:
    """Return what a distribution needs, and what that needs, by name."""
    found: dict[str, list[str]] = {}
    left = [name]
    while left:
        each = left.pop()
        if each not in found:
            found[each] = needed(each)
            left += found[each]
    return dict(sorted(found.items()))


def component(name: str) -> dict[str, Any]:
    """Return what the bill says of one distribution."""
    about = metadata.metadata(name)
    version = metadata.version(name)
    license_ = about.get("License-Expression") or about.get("License") or ""
    short = license_ if 0 < len(license_) < 60 and "\n" not in license_ else ""
    purl = f"pkg:pypi/{normal(name)}@{version}"
    found: dict[str, Any] = {
        "type": "library",
        "bom-ref": purl,
        "name": normal(name),
        "version": version,
        "purl": purl,
    }
    return found | ({"licenses": [{"license": {"name": short}}]} if short else {})


def bill() -> dict[str, Any]:
    """Return the bill of materials."""
    tree = closure(_NAME)
    components = {name: component(name) for name in tree}
    own = components.pop(_NAME) | {"type": "library"}
    return {
        "bomFormat": "CycloneDX",
        "specVersion": "1.5",
        "version": 1,
        "metadata": {"component": own},
        "components": list(components.values()),
        "dependencies": [
            {
                "ref": (components.get(name) or own)["bom-ref"],
                "dependsOn": [components[other]["bom-ref"] for other in others],
            }
            for name, others in tree.items()
        ],
    }


def write(folder: Path = DIST) -> Path:
    """Write the bill beside the wheel; return where it lies.

    Args:
        folder: Where it goes.
    """
    folder.mkdir(exist_ok=True)
    path = folder / f"{_NAME}.cdx.json"
    path.write_text(json.dumps(bill(), indent=1) + "\n", encoding="utf-8")
    return path


if __name__ == "__main__":
    print(write())
    sys.exit(0)
