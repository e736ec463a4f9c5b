"""The claims of the voting room, a module each; `benchmarks/voting.py` runs them."""
