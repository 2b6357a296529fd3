from zbroker.core.schedule import Schedule


def test_the_smallest_order_comes_first_and_ties_go_by_ticket_then_age():
    schedule: Schedule[object] = Schedule()
    things = [object() for _ in range(4)]
    for (order, ticket), thing in zip([(2, 0), (1, 5), (1, 3), (1, 3)], things, strict=True):
        schedule.push(order, ticket, thing)
    assert [schedule.pop()[1] for _ in range(4)] == [things[2], things[3], things[1], things[0]]
    assert not schedule


def test_keep_drops_what_is_stale_and_keeps_the_order():
    schedule: Schedule[int] = Schedule()
    for thing in range(9, -1, -1):
        schedule.push(thing, 0, thing)
    schedule.keep(lambda ticket, thing: thing % 2 == 0)
    assert [schedule.pop()[1] for _ in range(len(schedule))] == [0, 2, 4, 6, 8]
