"""What the operators that are about a run have in common."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, ClassVar

import fiftyone.operators as foo
import fiftyone.operators.types as types

from fiftyone_ecif.plugin.background import Progress, in_background
from fiftyone_ecif.plugin.forms import ECIF_RUNS, Known, choose_run
from fiftyone_ecif.plugin.operator import EcifOperator


class RunOperator(EcifOperator):
    """An operator about one of the dataset's runs: its form begins with the choice of the run.

    Class attributes:
        known: the runs that it can be about
    """

    known: ClassVar[Known] = ECIF_RUNS

    def run_form(self, ctx: foo.ExecutionContext, inputs: types.Object, run_key: str) -> None:
        """Add the rest of the form, once a run is chosen."""
        raise NotImplementedError

    def form(self, ctx: foo.ExecutionContext, inputs: types.Object) -> None:
        run_key = choose_run(ctx, inputs, self.known)
        if run_key is not None:
            self.run_form(ctx, inputs, run_key)


class RunJob(RunOperator):
    """An operator about a run whose work takes a while: it reports progress, can be cancelled, and can be delegated.

    Class attributes:
        title: what the work is, for the list of running jobs
    """

    title: str

    streams = delegable = True

    def work(self, ctx: foo.ExecutionContext) -> Callable[[Progress], Any]:
        """What to do in the background: a function of ``progress(step, done, total)`` that returns a result."""
        raise NotImplementedError

    def show(self, ctx: foo.ExecutionContext, result: Any) -> Iterator[Any]:
        """Yield the messages that make the App show the result."""
        raise NotImplementedError

    def execute(self, ctx: foo.ExecutionContext) -> Iterator[Any]:
        """Work in a thread, telling the App how far it is; then show the result."""
        result = yield from in_background(ctx, self.title, lambda progress: self.work(ctx)(progress))
        if result is not None and not ctx.delegated:
            yield from self.show(ctx, result)
