"""Progress without a terminal: when a line is due, and the time left that it tells."""

from gcrs.programs.progress_lines import ProgressLines


class Told:
    """Lines told at seconds that the test chooses."""

    def __init__(self) -> None:
        self.now, self.lines = 0.0, list[str]()
        self.progress = ProgressLines(self.lines.append, lambda: self.now)

    def at(self, second: float, done: int, total: int, what: str = "work") -> None:
        self.now = second
        self.progress(done, total, what)


def test_quick_work_says_nothing() -> None:
    told = Told()
    for second in range(0, 30, 5):
        told.at(second, second, 30)
    assert told.lines == []


def test_a_line_every_thirty_seconds() -> None:
    told = Told()
    for second in range(0, 100, 10):
        told.at(second, second, 120)
    assert told.lines == ["work: 25 %, 1.5 min left", "work: 50 %, 1.0 min left", "work: 75 %, 0.5 min left"]


def test_the_time_left_is_of_the_stage_alone() -> None:
    told = Told()
    told.at(0, 0, 10, "reading")
    told.at(600, 9, 10, "reading")
    told.at(610, 10, 1000, "training")  # its first part: nothing to judge by
    told.at(640, 20, 1000, "training")
    assert told.lines[1:] == ["training: 2 %, 49.0 min left"]


def test_a_validation_does_not_count_as_work() -> None:
    told = Told()
    told.at(0, 0, 100)
    told.at(20, 20, 100)
    told.at(21, 0, 0, "validating")
    told.at(621, 0, 0, "validating")
    told.at(622, 21, 100)
    told.at(660, 60, 100)
    assert told.lines == ["validating", "work: 60 %, 0.7 min left"]


def test_a_stage_of_the_same_size_begins_anew() -> None:
    told = Told()
    told.at(0, 0, 10, "one")
    told.at(25, 10, 10, "one")
    told.at(26, 0, 10, "two")
    told.at(31, 5, 10, "two")
    assert told.lines == ["two: 50 %, 0.1 min left"]
