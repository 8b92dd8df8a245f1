"""Breaking things for real: servers that are killed, starved and crowded at chosen points, and what must be true then.

`python -m tests.proof` runs the long form; the tests `test_proof_*.py` run a short one.
"""
