"""`python -m zbroker` is `zbroker`."""

from zbroker.cli.main import main

main(prog_name="zbroker")
