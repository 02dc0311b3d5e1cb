"""An explorer in the browser: what the model says, who is behind it, and what changes it."""
