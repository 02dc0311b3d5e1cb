"""Write the pages of the gallery, and a picture of each at 1280 pixels.

Run it with `python -m benchmarks.gallery`; a minute on two cores. The pictures need chromium with
its driver and selenium; without them the pages alone are written.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from sklearn.datasets import load_breast_cancer, load_diabetes
from sklearn.linear_model import LogisticRegression, Ridge
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

import whence
from whence.explorer.server import serving
from whence.explorer.session import Subject

_FOLDER = Path(__file__).parent.parent / "docs" / "gallery"
_COMMAND = "python -m benchmarks.gallery"


def written() -> list[Path]:
    """Write the pages; return where they are."""
    X, y = load_breast_cancer(return_X_y=True, as_frame=True)
    y = y.map({0: "malignant", 1: "benign"})
    model = make_pipeline(StandardScaler(), LogisticRegression(solver="newton-cholesky"))
    trained = whence.from_sklearn(model.fit(X[:400], y[:400]), X[:400], y[:400])
    explanation = whence.explain(trained, (X[413:414], y[413:414]), k=5)
    held_out = X[400:], y[400:]
    about = ("Breast tumors, measured under a microscope.",)
    options: dict[str, Any] = {"command": _COMMAND, "about": about}
    pages = [explanation.report(_FOLDER / "row.html", held_out=held_out, **options)]
    pages.append(whence.report(trained, held_out, _FOLDER / "many.html", **options))
    noisy = y[:400].copy()
    turned = np.random.default_rng(0).choice(400, 20, replace=False)
    noisy.iloc[turned] = np.where(noisy.iloc[turned] == "benign", "malignant", "benign")
    objective = whence.from_sklearn(model.fit(X[:400], noisy), X[:400], noisy)
    pages.append(whence.find_label_errors(objective).report(_FOLDER / "labels.html", **options))
    X, y = load_diabetes(return_X_y=True, as_frame=True, scaled=False)
    ridge = make_pipeline(StandardScaler(), Ridge()).fit(X[:400], y[:400])
    numbers = whence.from_sklearn(ridge, X[:400], y[:400])
    told: dict[str, Any] = {
        "command": _COMMAND,
        "about": ("Diabetes, a year after the first examination.",),
    }
    explained = whence.explain(numbers, (X[410:411], y[410:411]), k=5)
    pages.append(explained.report(_FOLDER / "number.html", **told))
    mismatch = whence.domain_mismatch(numbers, (X[400:], y[400:]), columns="sex")
    pages.append(mismatch.report(_FOLDER / "groups.html", **told))
    return pages


def subject() -> Subject:
    """What the picture of the explorer shows."""
    X, y = load_breast_cancer(return_X_y=True, as_frame=True)
    y = y.map({0: "malignant", 1: "benign"})
    model = make_pipeline(StandardScaler(), LogisticRegression(solver="newton-cholesky"))
    trained = whence.from_sklearn(model.fit(X[:400], y[:400]), X[:400], y[:400])
    return Subject(
        trained=trained,
        queries=trained.examples((X[400:], y[400:])),
        names=tuple(f"row {row}" for row in X.index[400:]),
        labeled=True,
        about=("Breast tumors, measured under a microscope.",),
        origin="",
        command="whence explore tumors.csv --target diagnosis",
    )


def pictured(pages: list[Path]) -> None:
    """Take a picture of the first screen of each page, and of the explorer."""
    from selenium import webdriver
    from selenium.webdriver.support.ui import WebDriverWait

    options = webdriver.ChromeOptions()
    options.binary_location = "/usr/bin/chromium"
    for flag in ("--headless=new", "--no-sandbox", "--disable-gpu", "--window-size=1280,1000"):
        options.add_argument(flag)
    service = webdriver.ChromeService("/usr/bin/chromedriver")
    driver = webdriver.Chrome(options=options, service=service)
    wait = WebDriverWait(driver, 120)
    loaded = "return document.readyState === 'complete'"
    try:
        for page in pages:
            driver.get(page.as_uri())
            # Chromium may say that a page is there before its scripts have run.
            wait.until(lambda shown: shown.execute_script(loaded))
            driver.save_screenshot(str(page.with_suffix(".png")))
        sized = (
            "const shown = document.getElementById('explorer').dataset;"
            "return shown.query !== undefined && shown.sized === shown.query"
        )
        with serving(subject()) as address:
            driver.get(address)
            wait.until(lambda shown: shown.execute_script(sized))
            driver.save_screenshot(str(_FOLDER / "explore.png"))
    finally:
        driver.quit()


def main() -> None:
    """Write the pages and their pictures."""
    pages = written()
    for page in pages:
        print(page.name)
    if Path("/usr/bin/chromedriver").exists():
        pictured(pages)


if __name__ == "__main__":
    main()
