"""What a visit leaves behind: labels are compared by meaning, not by how they are written."""

from optpo.data import AnswerClasses, AnswerSettings
from optpo.sampling.ballot import Ballot
from optpo.training.prompt_state import Probe, PromptStore
from optpo.training.visits import Visit, carried_votes, remember_visit
from optpo.voting import OptpoRule, Tally, VoteTracker

NUMERIC = AnswerSettings(extract="last-number", compare="numeric")


def visit(store: PromptStore, *answers: str) -> bool | None:
    """A visit of one question with these answers; whether its label flipped."""
    classes = AnswerClasses(NUMERIC)
    tally = Tally(tuple(classes.classify(answer) for answer in answers))
    ballot = Ballot("q", (1,), classes, tally, decision=OptpoRule(floor=1).decide(tally))
    return remember_visit(store, VoteTracker(longest_rest=4), Visit(ballot))


def test_an_answer_written_another_way_is_no_new_label() -> None:
    """72.0 after 72 is the same label: no flip, and a question that agrees on it may rest."""
    store = PromptStore()
    assert visit(store, "72", "72", "72") is None
    assert visit(store, "72.0", "72.0", "72.00") is False
    assert (store["q"].label, store["q"].flips, store["q"].rest) == ("72", 0, 1)
    assert visit(store, "71", "71", "71.0") is True
    assert (store["q"].label, store["q"].flips, store["q"].rest) == ("71", 1, 0)


def test_votes_that_do_not_all_agree_keep_a_question_awake() -> None:
    """One vote for another answer is something to teach; so is a vote that decides nothing."""
    store = PromptStore()
    visit(store, "72", "72", "72")
    assert visit(store, "72", "72", "72", "72", "5") is False
    assert store["q"].rest == 0
    assert visit(store, "72", "5") is None
    assert (store["q"].label, store["q"].rest) == ("72", 0)


def test_votes_are_carried_with_their_probes_and_fade_with_the_drift() -> None:
    """Half a half-life of .06 nats keeps 2^-1/2; without probes nothing is kept."""
    store, tracker = PromptStore(), VoteTracker(most_kept=0.9)
    classes = AnswerClasses(NUMERIC)
    tally = Tally((classes.classify("7"), classes.classify("7"), classes.classify("8")))
    ballot = Ballot("q", (1,), classes, tally, decision=OptpoRule(floor=1).decide(tally))
    probe = Probe((5,), (-0.5,))
    remember_visit(store, tracker, Visit(ballot, carried={"7": 1.5}, probes=(probe,)))
    assert (store["q"].votes, store["q"].probes) == ({"7": 3.5, "8": 1}, (probe,))
    assert carried_votes(store, tracker, {"q": 0.03})["q"]["7"] == 3.5 * 2**-0.5
    remember_visit(store, tracker, Visit(ballot, carried={"7": 1.5}))
    assert store["q"].votes == {}
