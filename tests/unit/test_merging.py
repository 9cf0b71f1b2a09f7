"""What becomes of size and instances when two uploads of a data set are merged."""

from dataclasses import replace

from tests.build import NOW, after, choice, content, policy, request, tier
from trainyard.application.scheduling.merging import supersede
from trainyard.domain.newest import merged, uploads_of
from trainyard.domain.requests import State

MB = 1024 * 1024
LIMITS = policy(tier(instances=(choice(10), choice(900, training="ml.m5.xlarge"))))
SMALL, LARGE = (str(LIMITS.profile_for(LIMITS.tiers[0], "linear", size)) for size in (1, 500 * MB))


def test_an_older_upload_leaves_the_measured_size_and_the_instances_of_the_waiting_one() -> None:
    """Its data set was found to be larger than its newest object: docs/tenants.md, train on the whole prefix."""
    newest = content("incoming/set/b", event_time=after(9))
    waiting = request(1, content=newest, uploads=uploads_of(newest), data_bytes=500 * MB, profile=LARGE)
    older = content("incoming/set/a", event_time=NOW)
    winner, loser = supersede(request(2, content=older, uploads=uploads_of(older)), waiting, LIMITS, after(20))
    assert (winner.request_id, winner.data_bytes, winner.profile) == (waiting.request_id, 500 * MB, LARGE)
    assert loser.state is State.SUPERSEDED


def test_an_upload_that_wins_by_its_time_trains_on_the_greatest_sequencer_of_its_key_and_on_its_instances() -> (
    None
):
    """Events come in any order: of one key the sequencer decides, between keys the time."""
    written_last = content("incoming/set/a", event_time=NOW, sequencer="09", version_id="v9", size_bytes=500 * MB)
    other_key = content("incoming/set/b", event_time=after(5))
    told_last = content("incoming/set/a", event_time=after(10), sequencer="08", version_id="v8", size_bytes=1000)
    waiting = request(
        1, content=other_key, uploads=merged(uploads_of(written_last), uploads_of(other_key)), profile=SMALL
    )
    comer = request(2, content=told_last, uploads=uploads_of(told_last), data_bytes=1000, profile=SMALL)
    winner, _ = supersede(comer, waiting, LIMITS, after(20))
    assert winner.request_id == comer.request_id
    assert (winner.content.version_id, winner.data_bytes, winner.profile) == ("v9", 500 * MB, LARGE)


def test_a_request_without_instances_gets_those_of_its_size() -> None:
    newest = content("incoming/set/b", event_time=after(9), size_bytes=500 * MB)
    comer = request(2, content=newest, uploads=uploads_of(newest), data_bytes=500 * MB, profile="")
    older = content("incoming/set/a", event_time=NOW)
    waiting = request(1, content=older, uploads=uploads_of(older), profile=SMALL)
    winner, _ = supersede(comer, replace(waiting), LIMITS, after(20))
    assert (winner.request_id, winner.profile) == (comer.request_id, LARGE)
