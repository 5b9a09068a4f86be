"""``python -m benchmarks.retraining``: see :mod:`benchmarks.retraining.command`."""

from benchmarks.retraining.command import main

if __name__ == "__main__":
    main()
