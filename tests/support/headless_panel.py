"""The App's side of the panel without a browser."""

import json

PANEL = "@ecif/ecif/ecif_panel"


def as_in_javascript(value):
    """What comes back from the App, which writes 1.0 as 1."""
    return json.loads(
        json.dumps(value), parse_float=lambda text: int(text[:-2]) if text.endswith(".0") else float(text)
    )


class Panel:
    """A panel's state, and what it last told the App to show.

    Args:
        samples: the dataset or view that the App shows
    """

    def __init__(self, samples):
        self.samples, self.state, self.data, self.requests = samples, {}, {}, {}
        self.selected, self.active_fields = [], []
        self.event("on_load")

    def event(self, method, **params):
        """Send an event as the App would, and take its answer to heart."""
        import fiftyone as fo
        import fiftyone.operators as foo

        params |= {"panel_id": "panel", "__method__": method, "panel_state": self.state}
        fields = {"active_fields": self.active_fields}
        kind = "view" if isinstance(self.samples, fo.DatasetView) else "dataset"
        result = foo.execute_operator(
            PANEL, {kind: self.samples, "params": params, "selected": self.selected, **fields}
        )
        result.raise_exceptions()
        self.requests = {}
        for request in as_in_javascript(result.executor.to_json()["requests"]):
            name, given = request["operator_uri"], request["params"]
            self.requests[name] = given
            if name == "patch_panel_state":
                self.state |= given["state"]
            elif name == "patch_panel_data":
                self.data |= given["data"]
            elif name == "set_view":
                self.samples = fo.DatasetView._build(self.samples._dataset, given["view"])
        return self

    @property
    def shown(self):
        """The layout's properties by name."""
        return self.requests["show_panel_output"]["output"]["type"]["properties"]

    def words(self, name):
        """The text of one of the layout's properties."""
        return str(self.shown[name]).replace(r"\\", "\\")

    def handlers(self):
        """The names of the handlers that the answer's layout and prompts call on the panel."""
        found, waiting = set(), [self.requests]
        while waiting:
            value = waiting.pop()
            if isinstance(value, dict):
                waiting += value.values()
            elif isinstance(value, list):
                waiting += value
            elif isinstance(value, str) and value.startswith(f"{PANEL}#"):
                found.add(value.partition("#")[2])
        return found
