"""``python -m benchmarks.fidelity``: see :mod:`benchmarks.fidelity.command`."""

from benchmarks.fidelity.command import main

if __name__ == "__main__":
    main()
