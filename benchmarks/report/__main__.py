"""Generate the tables of README.md and docs/ anew from benchmarks/results/: ``python -m benchmarks.report``."""

from benchmarks.report.documents import DOCUMENTS, ROOT, update

if __name__ == "__main__":
    for document in DOCUMENTS:
        print(f"{document.relative_to(ROOT)}: {'changed' if update(document) else 'up to date'}")
