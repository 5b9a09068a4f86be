"""``python -m benchmarks.shift``."""

from benchmarks.shift.command import main

if __name__ == "__main__":
    main()
