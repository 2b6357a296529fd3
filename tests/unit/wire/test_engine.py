from __future__ import annotations

import dataclasses
import inspect

import pytest

from patterns.core.consume import ConsumerEngine
from patterns.core.produce import ProducerEngine
from patterns.core.publish import PeerPublisherEngine, PublisherEngine
from patterns.core.reply import PeerReplierEngine, ReplierEngine
from patterns.core.request import RequesterEngine
from patterns.core.subscribe import PeerSubscriberEngine, SubscriberEngine
from patterns.wire.engine import Close, Engine, Listen, Open

ENGINES = [
    ConsumerEngine, PeerPublisherEngine, PeerReplierEngine, PeerSubscriberEngine, ProducerEngine, PublisherEngine,
    ReplierEngine, RequesterEngine, SubscriberEngine,
]  # fmt: skip
VERBS = [name for name, value in vars(Engine).items() if inspect.isfunction(value) and not name.startswith("_")]


@pytest.mark.parametrize("verb", VERBS)
@pytest.mark.parametrize("engine", ENGINES, ids=lambda engine: engine.__name__)
def test_an_engine_has_the_verbs_of_the_protocol_with_their_parameters(engine, verb):
    expected = list(inspect.signature(getattr(Engine, verb)).parameters)
    assert list(inspect.signature(getattr(engine, verb)).parameters) == expected


@pytest.mark.parametrize("effect", [Open(1, "tcp://a:1"), Close(1), Listen(1, b"ZB1P")])
def test_effects_are_values_that_nobody_changes(effect):
    assert effect == type(effect)(*[getattr(effect, name) for name in effect.__struct_fields__])
    with pytest.raises((AttributeError, dataclasses.FrozenInstanceError)):
        effect.link = 2
