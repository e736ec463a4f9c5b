"""Data: questions, answers, answer classes and the embedded model; no torch."""

from optpo.data.answers import AnswerSettings
from optpo.data.classes import AnswerClasses, same_answer
from optpo.data.embedded_model import embedded_model_path
from optpo.data.mathematics import MathVerifier
from optpo.data.questions import ChatMessage, Question, load_questions
from optpo.data.scorers import Scorer, ScoreSettings, open_scorer, require_judged
from optpo.data.settings import DataSettings

__all__ = [
    "AnswerClasses",
    "AnswerSettings",
    "ChatMessage",
    "DataSettings",
    "MathVerifier",
    "Question",
    "ScoreSettings",
    "Scorer",
    "embedded_model_path",
    "load_questions",
    "open_scorer",
    "require_judged",
    "same_answer",
]
