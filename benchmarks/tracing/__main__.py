"""``python -m benchmarks.tracing``: see :mod:`benchmarks.tracing.command`."""

from benchmarks.tracing.command import main

if __name__ == "__main__":
    main()
