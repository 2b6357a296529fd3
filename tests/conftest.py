"""What every test may rely on."""

import signal

pytest_plugins = [
    "pytester",
    "zbroker.testing.plugin",
]  # the latter is known by itself only where zbroker is installed anew

# A shell starts background jobs with SIGINT ignored, and children inherit that: then no Ctrl-C would ever reach
# the programs that tests interrupt. A handler of ours becomes the default one in each child.
signal.signal(signal.SIGINT, signal.default_int_handler)
