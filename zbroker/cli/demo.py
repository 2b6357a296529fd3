"""`zbroker demo`: the tour."""

from __future__ import annotations

import json
import sys

import click

from zbroker.cli.exits import FAILED, UNAVAILABLE, end


@click.command()
@click.option("--json", "as_json", is_flag=True, help="One JSON object a step on standard output.")
@click.option("--no-table", is_flag=True, help="Leave out the last step, which measures for about ten seconds.")
def demo(as_json: bool, no_table: bool) -> None:
    """The first ten minutes in half a minute: every pattern on real data, and a broker killed in the middle.

    The data are the airports of the world from the PyPI package airportsdata (MIT licence).

    \b
    zbroker demo
    zbroker demo --no-table --json | jq -c .step
    """
    from zbroker.demo.airports import DataSetMissing, airports
    from zbroker.demo.children import ChildFailed
    from zbroker.demo.table import step_table
    from zbroker.demo.tour import STEPS, StepFailed

    def say(text: str) -> None:
        print(text, file=sys.stderr if as_json else sys.stdout, flush=True)

    steps = STEPS if no_table else (*STEPS, step_table)
    try:
        say(f"{len(airports()):,} airports of the world, from the package airportsdata (MIT licence)")
        for step in steps:
            seen = step(say)
            if as_json:
                print(json.dumps({"step": step.__name__.removeprefix("step_"), **seen}), flush=True)
    except DataSetMissing as error:
        end(UNAVAILABLE, str(error))
    except (StepFailed, ChildFailed) as error:
        end(FAILED, f"the demo saw what must not be: {error}")
    except KeyboardInterrupt:
        sys.exit(130)
