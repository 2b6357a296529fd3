"""The data set of the demo: the airports of the world, 28,000 of them, from the PyPI package airportsdata (MIT licence)."""

from __future__ import annotations

from functools import lru_cache
from typing import TypedDict

from zbroker.extras import how_to_install


class Airport(TypedDict):
    """One airport as the package has it; elevation in feet, position in degrees."""

    icao: str
    iata: str
    name: str
    city: str
    subd: str
    country: str
    elevation: float
    lat: float
    lon: float
    tz: str
    lid: str


class DataSetMissing(Exception):
    """The extra that holds the data set is not installed."""


@lru_cache(maxsize=1)
def airports() -> dict[str, Airport]:
    """All airports by ICAO code, in the package's order. Raises DataSetMissing."""
    try:
        import airportsdata
    except ImportError as error:
        raise DataSetMissing(f"the demo needs its data set: {how_to_install('demo')}") from error
    found: dict[str, Airport] = airportsdata.load("ICAO")
    return found


def topic_of(airport: Airport) -> str:
    """`airports.KR.RKSI`"""
    return f"airports.{airport['country']}.{airport['icao']}"
