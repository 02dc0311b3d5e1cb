"""Write `src/whence/__init__.pyi`, the public names as type checkers and editors read them.

python -m tests.stub
"""

from __future__ import annotations

from pathlib import Path

import whence

PATH = Path(__file__).parent.parent / "src" / "whence" / "__init__.pyi"


def stub() -> str:
    """Return the stub that the package's table of public names asks for."""
    packages = [module.rpartition(".") for module in whence._MODULES.values()]
    homes = [(module, name) for name, module in whence._NAMES.items()]
    homes += [(package, name) for package, _, name in packages]
    imports = [
        f"from {home} import {name} as {name}"
        for home, name in sorted(homes, key=lambda pair: (pair[0], _natural(pair[1])))
    ]
    return "\n".join(
        [
            "# Written by `make stub` from the table in __init__.py.",
            *imports,
            "",
            "__version__: str",
            "__all__: list[str]",
            "",
        ]
    )


def _natural(name: str) -> tuple[int, str]:
    """Return what import sorting goes by: constants, then classes, then functions."""
    return (0 if name.isupper() else 1 if name[0].isupper() else 2, name)


if __name__ == "__main__":
    PATH.write_text(stub(), encoding="utf-8")
