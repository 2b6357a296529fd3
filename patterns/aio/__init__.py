"""The roles for asyncio: what waits is awaited. The same names as patterns.sync."""
