"""Explore a model in the browser or in a notebook."""

from __future__ import annotations

import sys
import webbrowser

from whence.applications.queries import Inputs, encoded
from whence.checked import checked
from whence.errors import InvalidInput
from whence.evaluation.figure import in_notebook
from whence.explorer.server import serving
from whence.explorer.session import Subject
from whence.explorer.widget import widget
from whence.methods.method import Method
from whence.objective.trained import Data, Trained


@checked
def explore(
    trained: Trained,
    queries: Data | Inputs,
    *,
    method: Method | None = None,
    port: int = 0,
    browser: bool = True,
    notebook: bool | None = None,
) -> object:
    """Show the explorer: below the cell in a notebook, else in the browser until interrupted.

    It shows the predictions, what the model says of each and the training rows behind it. Rows can
    be removed, relabeled and edited; after each step the model is fitted again for real. In a
    browser the page is served to this machine alone, at an address with a secret token; in a
    notebook its kernel answers.

    Args:
        trained: The model.
        queries: (X, y) of the predictions to look at, best on examples that the model was not
            fitted on; or X alone, labeled by what the model predicts.
        method: What scores training examples; chosen by the kind of model if `None`.
        port: Where it is served; a free port if 0.
        browser: Whether a browser is opened; the address is printed in any case.
        notebook: Whether it is shown below the cell; found out if `None`. With `False` a notebook
            serves it to the browser, and its cell runs until it is interrupted.

    Returns:
        In a notebook the explorer as a widget, which a cell shows if it is its last line; else
        `None`.

    Raises:
        InvalidInput: If there are no queries, or too many for the scores to be held (2·10⁸ of
            queries times training examples), or the port is taken.
        UnsupportedModel: If the extra `explore` is not installed.

    Cost:
        Scores of all queries once, and again after each step; a step is a fit of the model. A click
        on a prediction then takes some milliseconds.

    Examples:
        >>> import whence
        >>> from sklearn.datasets import load_iris
        >>> from sklearn.linear_model import LogisticRegression
        >>> X, y = load_iris(return_X_y=True)
        >>> model = LogisticRegression(tol=1e-8, max_iter=1000).fit(X[::2], y[::2])
        >>> objective = whence.from_sklearn(model, X[::2], y[::2])
        >>> whence.explore(objective, (X[1::2], y[1::2]))  # doctest: +SKIP
    """
    examples, labeled = encoded(trained, queries)
    subject = Subject(
        trained=trained,
        queries=examples,
        names=tuple(f"query {name}" for name in examples.ids),
        labeled=labeled,
        about=(f"A model fitted on {len(trained.train):,} examples.",),
        origin="# model = ... and queries = model.examples((X, y)), as they were passed to explore",
        command="whence.explore(trained, queries)",
        method=method,
    )
    if in_notebook() if notebook is None else notebook:
        return widget(subject)
    serve(subject, port=port, browser=browser)
    return None


def serve(subject: Subject, *, port: int, browser: bool) -> None:
    """Serve the explorer until it is interrupted.

    Args:
        subject: What is explored.
        port: Where; a free port if 0.
        browser: Whether a browser is opened.

    Raises:
        InvalidInput: If the port cannot be had.
    """
    import threading

    if not 0 <= port < 65536:
        raise InvalidInput(f"Expected a port from 0 to 65535. Got {port}.")
    with serving(subject, port=port) as address:
        print(f"Explore at {address}", flush=True)
        print("Ctrl-C stops it.", file=sys.stderr)
        if browser:
            webbrowser.open(address)
        try:
            threading.Event().wait()
        except KeyboardInterrupt:
            print("stopped", file=sys.stderr)
