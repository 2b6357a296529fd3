"""asyncio: a service whose handler asks two others at once; `python gateway_aio.py zb://localhost` through a broker."""

import asyncio
import sys
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager

from patterns.aio import Replier, Requester
from patterns.wire.errors import ApplicationError, TimedOut

PEERS = {"stock": "tcp://127.0.0.1:7403", "price": "tcp://127.0.0.1:7404", "offer": "tcp://127.0.0.1:7405"}


async def stock(sku: int) -> int:
    if sku == 9:
        await asyncio.sleep(60)  # cancelled as soon as nobody waits for it any more
    return 12


async def price(sku: int) -> float:
    if sku == 8:
        raise ApplicationError("sku 8 has no price yet", code="no_price")
    return 9.5


@asynccontextmanager
async def served(address: str, service: str, handler: object) -> AsyncIterator[None]:
    """A service for as long as the block lasts; up to ten requests at once."""
    async with Replier(address, service, handler, concurrency=10) as replier:
        serving = asyncio.create_task(replier.serve_forever())
        await replier.ready()
        try:
            yield
        finally:
            await replier.close()
            await serving


async def main(broker: str | None) -> None:
    places = dict.fromkeys(PEERS, broker) if broker else PEERS
    async with AsyncExitStack() as stack:
        asks = {name: await stack.enter_async_context(Requester(place)) for name, place in places.items()}

        async def offer(sku: int) -> dict[str, object]:
            in_stock, each = await asyncio.gather(
                asks["stock"].request("stock", sku, timeout_s=2.0), asks["price"].request("price", sku, timeout_s=2.0)
            )
            return {"sku": sku, "in_stock": in_stock, "price": each}

        for name, handler in (("stock", stock), ("price", price), ("offer", offer)):
            await stack.enter_async_context(served(places[name], name, handler))
        print(await asks["offer"].request("offer", 7, timeout_s=5.0))
        try:
            await asks["offer"].request("offer", 8, timeout_s=5.0)
        except ApplicationError as error:
            print("refused:", error.code)
        try:
            await asks["offer"].request("offer", 9, timeout_s=1.0)
        except TimedOut:
            print("too late: what was begun for it is cancelled")


if __name__ == "__main__":
    try:
        asyncio.run(main(sys.argv[1] if len(sys.argv) > 1 else None))
    except KeyboardInterrupt:
        raise SystemExit(130) from None
