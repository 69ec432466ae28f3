from server.streams import StreamWatch


class Call:
    def __init__(self):
        self.is_cancelled = False

    def cancel(self):
        self.is_cancelled = True


def test_call_that_does_not_move_is_ended():
    now = [0.0]
    watch, call = StreamWatch(10, clock=lambda: now[0]), Call()
    with watch.follow(call):
        now[0] = 11.0
        assert watch.look() == 1
    assert call.is_cancelled


def test_call_that_moves_goes_on():
    now = [0.0]
    watch, call = StreamWatch(10, clock=lambda: now[0]), Call()
    with watch.follow(call) as move:
        now[0] = 9.0
        move()
        now[0] = 18.0
        assert watch.look() == 0
    assert not call.is_cancelled


def test_call_that_has_ended_is_not_watched():
    now = [0.0]
    watch, call = StreamWatch(10, clock=lambda: now[0]), Call()
    with watch.follow(call):
        pass
    now[0] = 99.0
    assert watch.look() == 0
