"""Guards hold back an update exactly beyond their lines."""

import pytest

from optpo.errors import SettingsError
from optpo.training.guards import GuardSettings

GUARDS = GuardSettings(entropy_floor=0.1, max_flip_rate=0.5, max_undecided=0.8)


@pytest.mark.parametrize(
    ("entropy", "flip_rate", "undecided", "named"),
    [
        (1.0, 0.2, 0.5, []),
        # On the line is not beyond it.
        (0.1, 0.5, 0.8, []),
        (0.0999, 0.2, 0.5, ["entropy_floor"]),
        (1.0, 0.51, 0.5, ["max_flip_rate"]),
        (1.0, 0.2, 0.81, ["max_undecided"]),
        (1.0, None, 0.5, []),
        (0.0, 1.0, 1.0, ["entropy_floor", "max_flip_rate", "max_undecided"]),
    ],
)
def test_alarms_name_the_line_that_was_crossed(entropy, flip_rate, undecided, named):
    """Each alarm names the setting that raised it; without a flip rate there is none to cross."""
    alarms = GUARDS.alarms(96, entropy, flip_rate, undecided)
    assert len(alarms) == len(named)
    assert all(name in alarm for name, alarm in zip(named, alarms, strict=True))


def test_guards_can_be_turned_off():
    """0 and 1 are the settings at which no step is held back."""
    assert GuardSettings(0, 1, 1).alarms(96, 0.0, 1.0, 1.0) == []


def test_settings_out_of_range_are_refused_together():
    """All that is wrong is said at once."""
    with pytest.raises(SettingsError) as caught:
        GuardSettings(-0.1, 1.5, -1)
    assert len(caught.value.problems) == 3
