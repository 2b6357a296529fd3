from __future__ import annotations

import pytest

from patterns.wire.errors import LocalProtocolError, RemoteProtocolError
from patterns.wire.limits import UNREAD_BYTES_MAX
from patterns.wire.session import (
    CLIENT,
    SERVER,
    ClientEvent,
    ClientState,
    Credit,
    ProvenCredit,
    ServerEvent,
    ServerState,
    client_next,
    server_next,
)
from tests.unit.wire import spec


def named(table):
    return {
        state.name: {event.name: following.name for event, following in row.items()} for state, row in table.items()
    }


def test_the_servers_table_is_the_one_in_the_spec():
    drawn = spec.state_table("| B: state")
    # the spec writes what B answers to HELLO in the place of the state that this makes
    assert named(SERVER) == drawn


def test_the_clients_table_is_the_one_in_the_spec():
    assert named(CLIENT) == spec.state_table("| C: state")


@pytest.mark.parametrize("event", ClientEvent)
@pytest.mark.parametrize("state", ClientState)
def test_every_client_state_takes_or_refuses_every_event(state, event):
    following = CLIENT[state].get(event)
    if following is not None:
        assert client_next(state, event, ours=True) is client_next(state, event, ours=False) is following
        return
    with pytest.raises(LocalProtocolError):
        client_next(state, event, ours=True)
    with pytest.raises(RemoteProtocolError, match=f"{event.name} in session state {state.name}"):
        client_next(state, event, ours=False)


@pytest.mark.parametrize("event", ServerEvent)
@pytest.mark.parametrize("state", ServerState)
def test_every_server_state_takes_or_refuses_every_event(state, event):
    following = SERVER[state].get(event)
    if following is not None:
        assert server_next(state, event) is following
        return
    with pytest.raises(RemoteProtocolError, match=f"{event.name} in session state {state.name}"):
        server_next(state, event)


def test_a_closed_session_stays_closed():
    assert set(CLIENT[ClientState.CLOSED].values()) == {ClientState.CLOSED}
    assert set(SERVER[ServerState.CLOSED].values()) == {ServerState.CLOSED}


def test_every_client_state_but_closed_can_be_closed_and_lost():
    for state in set(ClientState) - {ClientState.CLOSED}:
        assert client_next(state, ClientEvent.CLOSE, ours=True) is ClientState.CLOSED
        assert client_next(state, ClientEvent.DISCONNECTED, ours=False) is ClientState.DOWN


def test_credit_is_open_while_both_totals_are_above_what_was_sent():
    credit = Credit(2, 10)
    credit.spend(1, 9)
    assert credit.is_open
    credit.spend(1, 0)
    assert not credit.is_open
    assert not Credit(5, 0).is_open


def test_a_batch_may_overrun_credit_by_less_than_itself():
    credit = Credit(1, 1)
    credit.spend(100, 1_000)
    assert (credit.is_open, credit.messages_left) == (False, -99)


def test_credit_never_falls():
    credit = Credit(10, 100)
    credit.raise_to(5, 200)
    assert (credit.messages_max, credit.bytes_max) == (10, 200)


def test_renewed_credit_is_what_was_used():
    credit = Credit(1, 10)
    credit.spend(1, 10)
    credit.renew(1, 10)
    assert credit.is_open
    assert credit.messages_left == 1


@pytest.mark.parametrize("way", ["take", "spend"])
def test_batches_without_a_byte_are_bounded_by_what_they_cost_in_queues(way):
    credit = ProvenCredit(1 << 40, 1 << 40)
    taken = 0
    while credit.is_open:
        assert getattr(credit, way)(1, 0) is not False
        taken += 1
    assert taken == UNREAD_BYTES_MAX // 512
    assert not credit.take(1, 0)
    credit.prove(credit.sent)
    assert credit.take(1, 0)
