"""What can be asked of a run: removals, traces, failing queries."""
