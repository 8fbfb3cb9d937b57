"""The kill matrix: measured, and complete."""

from dataclasses import replace

from llmref.practice.exercise import Mistake
from llmref.practice.exercises import exercise, exercises
from llmref.practice.matrix import Matrix, kills


def test_each_mistake_is_given_away_by_an_input() -> None:
    for it in exercises().values():
        found = kills(it)
        assert [kill.mistake for kill in found] == [mistake.name for mistake in it.mistakes]
        assert all(len(kill.given_away) == len(it.inputs()) for kill in found)
        assert all(any(kill.given_away) for kill in found), it.name


def test_a_mistake_that_no_input_gives_away_shows_in_the_count() -> None:
    asked = exercise("softmax")
    harmless = Mistake("no mistake", "It changes nothing.", ())
    asked = replace(asked, mistakes=(harmless,))
    (kill,) = kills(asked)
    assert not any(kill.given_away)
    assert kill.law == ""
    assert str(Matrix([asked])).startswith("Exercises: 1; mistakes: 1, of which 1 not given away")


def test_the_matrix_says_which_law_breaks_and_on_which_inputs() -> None:
    matrix = Matrix([exercise("softmax")])
    (first, *_) = matrix.rows["softmax"]
    assert first.mistake == "no maximum subtracted"
    assert first.law == "Large scores overflow nothing."
    # Of the inputs only three have a row that overflows or underflows whole.
    assert first.given_away == (False, False, True, True, False, True, False, False)
    shown = matrix._repr_html_()
    assert "<code>softmax</code>, 7 mistakes" in shown
    assert shown.count("<td>x</td>") == sum(sum(kill.given_away) for kill in matrix.rows["softmax"])
