"""The log of an exploration: as a page to send, and as a script that does it again."""

from __future__ import annotations

from datetime import date

from whence.explorer.session import State
from whence.pages import LogPage, LogRow


def log_page(state: State) -> LogPage:
    """Return the page of the steps that were taken.

    Args:
        state: The state after them.
    """
    subject = state.subject
    return LogPage(
        title="What was changed, and what became of the answers",
        lead=subject.about[0] if subject.about else "",
        statuses=(),
        method="After every step the model was fitted again on the changed data.",
        command=script(state),
        about=subject.about[1:],
        rows=tuple(
            LogRow(
                words=done.words,
                query=subject.names[done.query],
                before=done.before,
                after=done.after,
                accuracy=done.accuracy,
            )
            for done in state.done
        ),
    )


def script(state: State) -> str:
    """Return a Python script that takes the steps again and prints what came of them.

    Args:
        state: The state after them.
    """
    steps = "\n".join(f"    ({done.step!r}, {done.query})," for done in state.done)
    return f'''"""Steps taken in whence explore, {date.today().isoformat()}, taken again."""

import numpy as np

from whence.explorer.steps import Edit, Relabel, Remove
from whence.methods.model_quality import model_quality
from whence.views.answer import said_of

{state.subject.origin}

steps = [
{steps}
]
for step, query in steps:
    print(step.words(model))
    print("  before:", said_of(model, queries.subset(np.array([query]))))
    model = step.apply(model)
    print("  after: ", said_of(model, queries.subset(np.array([query]))))
print(model_quality(model, queries))
'''
