"""Innocent life: whatever clients and failing hosts do to a cloud that is not broken, nothing is proven of it."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from testbed import churn
from testbed.cloud import Cloud
from testbed.story import Story

#: More of them show more; the usual few show that it works.
MINUTES = float(os.environ.get("CLOUDFSCK_CHURN_MINUTES", "3"))
#: In so many minutes some reading comes amid a change, and has to be taken back by another.
LONG = 15


@pytest.mark.long
def test_life_is_innocent(cloud: Cloud, tmp_path: Path, story: Story) -> None:
    summary = churn.run(cloud, tmp_path / "churn", MINUTES, clients=4, seed=1, say=print)
    story.agreed(str(summary))
    assert summary.innocent, str(summary)
    assert sum(done > 0 for done, _ in summary.operations.values()) >= 8, str(summary)
    assert summary.whole >= 3, str(summary)
    assert summary.plans, str(summary)
    assert summary.status == 0, str(summary)
    assert not summary.left, str(summary)
    assert MINUTES < LONG or summary.cleared, str(summary)
