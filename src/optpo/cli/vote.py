"""`optpo vote`: adaptive majority voting without training."""

import json
import sys
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Union

from tyro.conf import arg

from optpo.cli.flags import SettingsFlags
from optpo.cli.lines import open_lines
from optpo.cli.output import show, show_aside
from optpo.cli.vote_about import about_vote, model_name
from optpo.cli.vote_summary import in_words, recorded_votes, rollout_line, summarise
from optpo.errors import EngineError, RunStoppedError, SettingsError, StorageError

if TYPE_CHECKING:
    from optpo.data import Question
    from optpo.sampling.ballot import Ballot
    from optpo.sampling.budgeted import Budget
    from optpo.sampling.engine import Completion, Prompt, Request
    from optpo.sampling.vote_settings import VoteSettings
    from optpo.sampling.voter import Voter
    from optpo.training.settings import RunSettings

    Settings = Union[RunSettings, VoteSettings]  # noqa: UP007
    Opened = tuple[Voter, list[Ballot]]


@dataclass(frozen=True)
class Vote(SettingsFlags):
    """Answer questions by adaptive majority vote, without training.

    One verdict a line as JSON, written as soon as it is reached. With --out FILE a vote that was
    interrupted goes on where it was when it is called again: until it ends, FILE.journal holds its
    rollouts.
    """

    endpoint: Annotated[
        str | None, arg(metavar="URL", help_behavior_hint="(default: in this process)")
    ] = None
    """Sample from a server of the OpenAI protocol; --model is then its name there.

    Its key comes from the environment variable OPENAI_API_KEY.
    """
    out: Annotated[str, arg(metavar="FILE|-")] = "-"
    """Where the verdicts go; - is standard output."""
    rollouts: Annotated[
        str | None, arg(metavar="FILE", help_behavior_hint="(default: not written)")
    ] = None
    """Also write every rollout counted, one a line as JSON."""
    record: Annotated[
        str | None, arg(metavar="FILE", help_behavior_hint="(default: not written)")
    ] = None
    """Also write each question's votes for `optpo replay`, one question a line as JSON.

    Without their weights, and without questions that a budget left no vote for.
    """
    budget_tokens: Annotated[
        int | None, arg(metavar="N", help_behavior_hint="(default: as the rule needs)")
    ] = None
    """Sample this many tokens at most for all questions together, where they help most."""
    budget_votes: Annotated[
        int | None, arg(metavar="N", help_behavior_hint="(default: as the rule needs)")
    ] = None
    """The same with rollouts."""
    json: bool = False
    """Print the summary as JSON (with --out FILE; verdicts are JSON anyway)."""

    def run(self) -> None:
        """Vote, and say how it went."""
        self._check_files()
        settings = self.settings() if self.endpoint is None else self._server_settings()
        budget = self._budget(settings)
        from optpo.data import load_questions

        questions = load_questions(settings.data.questions, settings.data.limit)
        if self.out == "-":
            self._vote(settings, questions, budget)
            return
        from optpo.sampling.journal import holds_rollouts

        journal = Path(f"{self.out}.journal").expanduser()
        goes_on = f"{self.out}.journal holds what was sampled: the same call goes on"
        try:
            self._vote(settings, questions, budget, journal)
        except KeyboardInterrupt:
            if not holds_rollouts(journal):
                raise
            raise RunStoppedError(f"interrupted; {goes_on}") from None
        except (EngineError, StorageError) as error:
            if not holds_rollouts(journal):
                raise
            raise type(error)(f"{error}\n{goes_on}") from error

    def _vote(
        self,
        settings: "Settings",
        questions: "Sequence[Question]",
        budget: "Budget | None",
        journal_path: Path | None = None,
    ) -> None:
        from optpo.reporting.terminal import open_view
        from optpo.sampling.journal import open_journal
        from optpo.sampling.recorded_engine import RecordedEngine
        from optpo.sampling.voter import verdict_of

        gold = {question.id: question.gold for question in questions}
        with ExitStack() as stack:
            journal = None
            about = about_vote(settings, questions, budget)
            # Another vote's files are not touched: an old journal is read before they are opened, a
            # new one is begun after; what it names is written anew, and nothing else.
            about |= {"--rollouts": _place(self.rollouts), "--record": _place(self.record)}
            if journal_path is not None and journal_path.exists():
                journal = stack.enter_context(open_journal(journal_path, about))
            again = journal is not None and bool(journal.stored)
            write_verdict, write_rollout, write_record = (
                stack.enter_context(open_lines(name, flag, again=again))
                for flag, name in self._files().items()
            )
            if journal is None and journal_path is not None:
                journal = stack.enter_context(open_journal(journal_path, about))
            if journal is not None:
                journal.begin()
            view = stack.enter_context(open_view(sys.stderr))
            voter, ballots = _open(settings, questions, view.guard)
            if journal is not None:

                def keep(request: "Request", completion: "Completion") -> None:
                    # What cannot be weighed ends the call; the next one asks for it again.
                    if completion.logps or settings.vote_weight != "likelihood":
                        journal.append(request, completion)

                voter.engine = RecordedEngine(journal.stored, voter.engine, keep)
            stack.enter_context(voter)

            def finished(ballot: "Ballot") -> None:
                write_verdict(verdict_of(ballot).to_json())
                for rollout in ballot.rollouts:
                    write_rollout(rollout_line(rollout))
                if ballot.rollouts:
                    known = gold[ballot.prompt_id]
                    write_record(recorded_votes(voter, ballot, known, model_name(settings)))

            occupancy = voter.vote(
                ballots,
                settings.allocate,
                seed=settings.seed,
                purpose="vote",
                on_verdict=lambda done, total: view.progress("vote", done, total, "questions"),
                on_ballot=finished,
                weight=settings.vote_weight,
                schedule=settings.schedule,
                budget=budget,
            )
            summary = summarise(voter, ballots, questions, settings.allocate, budget, occupancy)
            if settings.schedule == "biased_arrival_order":
                view.guard(
                    "votes were counted in the order of arrival: short answers count more often, and "
                    "what the rule promises does not hold"
                )
            refused = [ballot for ballot in ballots if ballot.error is not None]
            if journal is not None and not refused:
                journal.finish()
        # Where standard output holds the verdicts, nothing else goes there.
        tell = show_aside if self.out == "-" else show
        tell(json.dumps(summary) if self.json else in_words(summary))
        if refused:
            raise EngineError(_refusals(refused))

    def _files(self) -> dict[str, str | None]:
        """What is written, by flag."""
        return {"--out": self.out, "--rollouts": self.rollouts, "--record": self.record}

    def _check_files(self) -> None:
        """Raise SettingsError where two files are one: each would overwrite the other."""
        flags: dict[str, str] = {}
        problems = []
        for flag, name in {**self._files(), "the journal of --out": f"{self.out}.journal"}.items():
            place = _place(name)
            if place in flags:
                problems.append(f"{flags[place]} and {flag} are both {place}; name two files")
            elif place is not None:
                flags[place] = flag
        if problems:
            raise SettingsError(problems)

    def _server_settings(self) -> "VoteSettings":
        """The settings of a vote against a server.

        Raises:
            SettingsError: everything that is wrong in them.
        """
        if self.data is None:
            raise SettingsError(["--endpoint needs --data: questions for the server's model"])
        from optpo.recipes import build_vote_settings

        own = {
            "endpoint.url": self.endpoint,
            "endpoint.model": self.model,
            "data.questions": self.data,
            "seed": self.seed,
        }
        given = {key: value for key, value in own.items() if value is not None}
        return build_vote_settings(self.recipe, *self.layers(), given)

    def _budget(self, settings: "Settings") -> "Budget | None":
        from optpo.sampling.budgeted import Budget

        if self.budget_tokens is None and self.budget_votes is None:
            return None
        problems = []
        if self.budget_tokens is not None and self.budget_votes is not None:
            problems.append("--budget-tokens and --budget-votes: give one of them")
        if settings.schedule != "waves":
            problems.append(
                f"schedule is {settings.schedule!r}, but a budget has a schedule of its own; it must "
                "be 'waves', as it is by default"
            )
        if problems:
            raise SettingsError(problems)
        if self.budget_tokens is not None:
            return Budget(self.budget_tokens, "tokens", settings.sample.max_new_tokens)
        assert self.budget_votes is not None
        return Budget(self.budget_votes, "votes")


def _open(
    settings: "Settings", questions: "Sequence[Question]", notice: Callable[[str], None]
) -> "Opened":
    """The voter, and a ballot a question: of a model in this process, or of a server."""
    from optpo.sampling.vote_settings import VoteSettings

    sample, answers = settings.sample, settings.data.answers
    if isinstance(settings, VoteSettings):
        from optpo.sampling.openai_engine import open_endpoint
        from optpo.sampling.voter import Voter

        # Its completions have a text of their own.
        engine = open_endpoint(settings.endpoint, sample, notice)
        voter = Voter(engine, lambda tokens: "", sample, answers)
        return voter, voter.text_ballots(_prompts(questions, settings.data.template))
    from optpo.training.engines import open_voter
    from optpo.training.loading import load_policy
    from optpo.training.questions import prompt_tokens

    policy = load_policy(settings.model, sample.temperature)
    prompts = prompt_tokens(policy, questions, settings.model, settings.data, sample.max_new_tokens)
    voter = open_voter(policy, settings, prompts.values())
    return voter, voter.ballots(prompts)


def _prompts(questions: "Sequence[Question]", template: str) -> "dict[str, Prompt]":
    """What a server is asked, by question."""
    return {
        question.id: template.replace("{prompt}", question.prompt)
        if isinstance(question.prompt, str)
        else question.prompt
        for question in questions
    }


def _place(name: str | None) -> str | None:
    """The full path of what is written, the same for all its names."""
    return name if name is None or name == "-" else str(Path(name).expanduser().resolve())


def _refusals(refused: "Sequence[Ballot]") -> str:
    shown = [f"{ballot.prompt_id!r}: {ballot.error}" for ballot in refused[:5]]
    more = [f"... and {len(refused) - 5} more"] if len(refused) > 5 else []
    told = "\n".join([*shown, *more])
    return f"{len(refused)} questions were refused and have no verdict:\n{told}"
