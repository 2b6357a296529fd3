"""A client's process: a production engine on virtual dealers. Its turn is that of patterns/io/links.py."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from patterns.wire.address import Address
from patterns.wire.engine import Close, Open, Send
from tests.simulation.process import Process
from zbroker.testing.network import CONNECTED, DISCONNECTED, Dealer

if TYPE_CHECKING:
    from tests.simulation.world import World

TURN_MESSAGES = 128
STALL_US = 1_000_000
ADDRESS = Address("tcp://broker:7700", True, False)


class Client:
    """An actor with one engine. Subclasses make the engine, act at times and take events.

    Args:
        name: of the actor; its randomness is drawn under it.
    """

    def __init__(self, world: World, name: str) -> None:
        self.world = world
        self.name = name
        self.random = world.chances.of(name)
        self.process = Process(world.scheduler, self.turn, world.chance_of_turns())
        self.dealers: dict[int, Dealer] = {}
        self.life = 0
        self.is_quiet = False  # the end has come: nothing new is begun
        self._last_turn_at = world.scheduler.now
        self.engine: Any = None

    # -- what subclasses say --------------------------------------------------------------------------------------

    def make_engine(self) -> Any:
        """A new engine, of a new life."""
        raise AssertionError("each actor has its own")

    def act(self, now: int) -> int:
        """Do something; returns the microseconds until the next time."""
        raise AssertionError("each actor has its own")

    def take(self, event: Any, now: int) -> None:
        """An event of the engine."""

    def settled(self) -> bool:
        """Whether nothing that it began is open."""
        return True

    # -- life -----------------------------------------------------------------------------------------------------

    def nonce(self) -> bytes:
        """Another one in each life."""
        return f"{self.name}.{self.life}".encode().ljust(16, b".")[:16]

    def jitter(self) -> float:
        return self.random.random()

    def start(self) -> None:
        """A process begins."""
        self.life += 1
        self.process = Process(self.world.scheduler, self.turn, self.world.chance_of_turns())
        self.engine = self.make_engine()
        self.engine.start(self.world.scheduler.now)
        self.push()
        self._schedule()
        self._act_later(self.random.randint(1_000, 500_000))

    def crash(self) -> None:
        """SIGKILL: what the kernel had taken may still leave."""
        self.process.kill()
        for dealer in self.dealers.values():
            dealer.close(self.random)
        self.dealers.clear()
        self.engine = None

    def _act_later(self, delay: int) -> None:
        process = self.process
        self.world.scheduler.after(delay, lambda: self._act(process))

    def _act(self, process: Process) -> None:
        if not process.is_alive or process is not self.process:
            return
        now = self.world.scheduler.now
        if process._busy_until > now:  # stopped: its own timers are, too
            self._act_later(process._busy_until - now)
            return
        delay = self.act(now)
        if process.is_alive:
            self.push()
            self._schedule()
            self._act_later(max(1, delay))

    @property
    def was_stalled(self) -> bool:
        """Whether the process was stopped lately: what it says is late then."""
        return self.world.scheduler.now - self.process.stalled_until < 1_000_000

    # -- a turn ---------------------------------------------------------------------------------------------------

    def turn(self) -> None:
        """As Links.turn: notices, messages, timers unless a stall kept messages waiting, sends."""
        now = self.world.scheduler.now
        engine = self.engine
        received = 0
        for link, dealer in list(self.dealers.items()):
            while dealer.notices:
                self._notice(link, dealer.notices.popleft(), now)
        for link, dealer in list(self.dealers.items()):
            received += self._receive(link, dealer, now)
        due = engine.next_timeout()
        if due is not None and due <= now and not (received and now - self._last_turn_at > STALL_US):
            engine.handle_timeout(now)
        self._last_turn_at = now
        self.push()
        if self.process.is_alive:
            self._schedule()

    def _notice(self, link: int, notice: str, now: int) -> None:
        if notice == CONNECTED:
            self.engine.connected(link, now)
        elif notice == DISCONNECTED:
            self.engine.disconnected(link, now)
        else:
            self.engine.unreachable(link, now)

    def _receive(self, link: int, dealer: Dealer, now: int) -> int:
        taken = 0
        while dealer.inbox and taken < TURN_MESSAGES:
            taken += 1
            self.engine.receive(link, b"", dealer.inbox.popleft(), now)
            if self.engine.news:
                break
        return taken

    def push(self) -> None:
        """Effects to sockets, events to us."""
        engine = self.engine
        for _ in range(4):
            effects, events = engine.effects(), engine.events()
            if not effects and not events:
                return
            for effect in effects:
                self._carry_out(effect)
            for event in events:
                self.take(event, self.world.scheduler.now)
            if not self.process.is_alive:
                return

    def _carry_out(self, effect: Any) -> None:
        if isinstance(effect, Send):
            dealer = self.dealers.get(effect.link)
            if dealer is not None:
                dealer.send(effect.frames)
        elif isinstance(effect, Open):
            self.dealers[effect.link] = Dealer(self.world.network, effect.address, self.process.wake)
        elif isinstance(effect, Close):
            dealer = self.dealers.pop(effect.link, None)
            if dealer is not None:
                dealer.close(None if self.engine.closed else self.random)

    def _schedule(self) -> None:
        if any(dealer.inbox or dealer.notices for dealer in self.dealers.values()):
            self.process.wake()
            return
        due = self.engine.next_timeout()
        if due is not None:
            self.process.due(due)
