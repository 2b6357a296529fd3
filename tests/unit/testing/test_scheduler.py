from zbroker.testing.scheduler import Scheduler


def test_calls_come_in_order_of_time_and_equal_ones_in_the_order_they_were_set():
    scheduler, heard = Scheduler(0), []
    for due, name in ((20, "c"), (10, "a"), (10, "b")):
        scheduler.at(due, lambda name=name: heard.append((scheduler.now, name)))
    scheduler.run(15)
    assert (heard, scheduler.now) == ([(10, "a"), (10, "b")], 15)
    assert scheduler.step()
    assert heard[-1] == (20, "c")
    assert not scheduler.step()


def test_what_is_overdue_comes_now_and_time_never_goes_back():
    scheduler, heard = Scheduler(100), []
    scheduler.at(5, lambda: heard.append(scheduler.now))
    scheduler.run(100)
    assert heard == [100]


def test_a_call_may_set_others():
    scheduler, heard = Scheduler(0), []
    scheduler.after(1, lambda: scheduler.after(1, lambda: heard.append(scheduler.now)))
    scheduler.run(10)
    assert heard == [2]
