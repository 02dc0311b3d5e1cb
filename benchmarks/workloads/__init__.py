"""What is asked of every library: data, a trained model, queries and the truth.

Each workload module has `SETS` (queries by name), `build` (prepares data and ground truth once),
`problem` (what an adapter is given) and `accuracy` (scores against the truth).
"""
