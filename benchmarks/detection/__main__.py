"""``python -m benchmarks.detection``: see :mod:`benchmarks.detection.command`."""

from benchmarks.detection.command import main

if __name__ == "__main__":
    main()
