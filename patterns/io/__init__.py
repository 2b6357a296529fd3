"""The only client code that sends or receives. Needs what POSIX has: descriptors that can be polled, and fork handlers."""

import sys

if sys.platform == "win32":
    raise ImportError("zbroker does not run on Windows in this version; use WSL, a container, or another system")
