"""The parts of `tools/fuzz.py`: seeds, mutations, the worker that runs a case, and the search for a smaller one."""
