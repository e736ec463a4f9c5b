"""Rollouts that take several steps: a window of tokens a step (T-PPO, 2506.15050)."""

from collections.abc import Mapping, Sequence
from dataclasses import replace

from optpo.errors import EngineError
from optpo.rollout import Rollout
from optpo.sampling.ballot import Ballot
from optpo.sampling.engine import Completion, Request, stream_seed
from optpo.sampling.voter import Voter
from optpo.training.prompt_state import Partial
from optpo.voting import FixedRule


def sample_window(
    voter: Voter,
    prompts: Mapping[str, tuple[int, ...]],
    partials: Sequence[Partial],
    *,
    longest: int,
    seed: int,
    purpose: str,
) -> tuple[list[Ballot], list[Partial]]:
    """Go on with every rollout for a window; the ballots of all, and the rollouts to go on with.

    The voter's engine samples a window of tokens at most. A rollout that was cut is there with what
    it has, its finish "length", and is gone on with at the next step unless it has `longest` tokens.
    Ballots are in the order in which `partials` first name their questions, and their rollouts in
    that of `partials`.

    Raises EngineError where the engine refuses one or goes idle.
    """
    engine = voter.engine
    in_flight = {}
    for partial in partials:
        stream = stream_seed(seed, voter.version, partial.prompt_id, partial.index, purpose)
        tokens = (*prompts[partial.prompt_id], *partial.tokens)
        handle = engine.submit(Request(partial.prompt_id, tokens, partial.index, stream))
        in_flight[handle] = partial
    grown: dict[Partial, Rollout] = {}
    while in_flight:
        completions = engine.poll()
        if not completions:
            raise EngineError(f"the engine went idle with {len(in_flight)} rollouts missing")
        for completion in completions:
            partial = in_flight.pop(completion.handle)
            grown[partial] = _grown(voter, prompts, partial, completion)
    names = dict.fromkeys(partial.prompt_id for partial in partials)
    ballots = {ballot.prompt_id: ballot for ballot in voter.ballots({n: prompts[n] for n in names})}
    for partial in partials:
        ballot = ballots[partial.prompt_id]
        rollout = replace(grown[partial], vote=ballot.classes.classify(grown[partial].answer))
        ballot.rollouts.append(rollout)
        ballot.tally = ballot.tally.add(rollout.vote)
    for ballot in ballots.values():
        ballot.decision = FixedRule(votes=ballot.tally.total).decide(ballot.tally)
    left = [
        Partial(partial.prompt_id, partial.index, grown[partial].tokens, grown[partial].logps)
        for partial in partials
        if grown[partial].finish == "length" and len(grown[partial].tokens) < longest
    ]
    return list(ballots.values()), left


def _grown(
    voter: Voter, prompts: Mapping[str, tuple[int, ...]], partial: Partial, completion: Completion
) -> Rollout:
    if completion.finish == "error":
        raise EngineError(f"question {partial.prompt_id!r}: {completion.reason}")
    tokens = (*partial.tokens, *completion.tokens)
    text = voter.decode(tokens)
    return Rollout(
        prompt_id=partial.prompt_id,
        index=partial.index,
        version=completion.version,
        prompt_tokens=prompts[partial.prompt_id],
        tokens=tokens,
        logps=(*partial.logps, *completion.logps),
        finish=completion.finish,
        text=text,
        answer=voter.answers.extract_answer(text) if completion.finish == "stop" else None,
    )
