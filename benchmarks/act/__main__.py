"""Run the command."""

from benchmarks.act.command import main

if __name__ == "__main__":
    main()
