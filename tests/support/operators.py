"""Operators without a browser: how tests execute them, and what they read of the answers."""

import json

COMPUTE = "@ecif/ecif/compute_influence"
SHOW = "@ecif/ecif/show_misaligned"
RUNS = "@ecif/ecif/manage_runs"

STORED_FIELDS = {"image_embeddings": "image_embedding", "text_embeddings": "text_embedding"}
"""The fields in which :func:`tests.support.planted.plant_errors` stores embeddings."""

STORED = {"features": "embeddings", **STORED_FIELDS}
"""What the form says to use them."""


def requests_of(result):
    """The App's operators that an execution triggered, with their parameters; progress is left out."""
    return {
        request["operator_uri"]: request["params"]
        for request in result.executor.to_json()["requests"]
        if request["operator_uri"] != "set_progress"
    }


def shown_ids(dataset, requests):
    """The samples of the view that the App was told to show, in its order."""
    import fiftyone as fo

    return fo.DatasetView._build(dataset, requests["set_view"]["view"]).values("id")


def refusals(inputs):
    """Why a form cannot be executed, by the names of the fields that say so."""
    return {name: field.error_message for name, field in inputs.items() if field.invalid}


def app_context(operator, dataset, **params):
    """The context in which the App executes an operator."""
    from fiftyone.operators.executor import ExecutionContext, Executor

    request = {"dataset_name": dataset.name, "view": [], "params": params, "spaces": {"_cls": "Space"}}
    return ExecutionContext(request, executor=Executor(), operator_uri=operator)


def stream_to_app(operator, ctx):
    """The messages that the App's stream carries one after the other while an operator works."""
    from fiftyone.operators import OperatorRegistry

    for message in OperatorRegistry().get_operator(operator).execute(ctx):
        yield json.loads(message.to_json_line())["body"]


JUNK = [True, -1, 1.5, float("nan"), 10**5000, "junk", "$filepath", "~junk/x", "x" * 100_000, ["a"], {"$gt": ""}]
"""What no parameter can be, or hardly any."""


def attempt(operator, dataset, **params):
    """Resolve an operator's form and execute it as a script would, without asking the form whether it may.

    Returns:
        the ValueError that said in words why it cannot be executed, else None; anything else is raised
    """
    from fiftyone.operators.executor import ExecutionContext, Executor

    request = {"dataset_name": dataset.name, "view": [], "params": params}
    ctx = ExecutionContext(request, executor=Executor(), operator_uri=operator.uri)
    operator.resolve_input(ctx)
    try:
        outcome = operator.execute(ctx)
        if operator.config.execute_as_generator:
            list(outcome)
    except ValueError as error:
        assert len(str(error)) < 2_000 and " " in str(error)
        return error
    return None
