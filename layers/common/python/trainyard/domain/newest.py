"""Newest wins: which of the uploads of a data set is trained on.

Events arrive in any order, so the comparison uses what the events say, never when they came; and it is made
over all uploads of the waiting data set at once, since comparing two at a time is cyclic:

    per key    the greatest event time, and the content of the greatest sequencer
    winner     the key with the greatest (event time, key); its content
"""

from collections.abc import Iterable
from dataclasses import replace
from datetime import datetime

from trainyard.domain.requests import Content, KeyUploads

KEYS_MAX = 16
"""Most keys of a waiting data set that are distinguished; the least recently uploaded ones are dropped,
which matters only where a key's sequencers contradict its event times."""


def uploads_of(content: Content) -> tuple[KeyUploads, ...]:
    """Return the state after one upload."""
    sequenced = content if content.sequencer else None
    bare = None if content.sequencer else content
    return (KeyUploads(key=content.key, event_time=content.event_time, sequenced=sequenced, bare=bare),)


def merged(first: Iterable[KeyUploads], second: Iterable[KeyUploads]) -> tuple[KeyUploads, ...]:
    """Return the combined state of both; the order of arrival makes no difference."""
    by_key = {uploads.key: uploads for uploads in first}
    for uploads in second:
        other = by_key.get(uploads.key)
        by_key[uploads.key] = _joined(other, uploads) if other else uploads
    latest = sorted(by_key.values(), key=_rank)[-KEYS_MAX:]
    return tuple(latest)


def newest(uploads: Iterable[KeyUploads]) -> Content:
    """Return the content to train on."""
    winner = max(uploads, key=_rank)
    if winner.sequenced is None or winner.bare is None:
        content = winner.sequenced or winner.bare
        assert content is not None, "a key is known by an upload"
        return content
    later = winner.bare.event_time > winner.sequenced.event_time
    return winner.bare if later else winner.sequenced


def _rank(uploads: KeyUploads) -> tuple[datetime, str]:
    return (uploads.event_time, uploads.key)


def _joined(first: KeyUploads, second: KeyUploads) -> KeyUploads:
    return replace(
        first,
        event_time=max(first.event_time, second.event_time),
        sequenced=max(filter(None, (first.sequenced, second.sequenced)), key=_sequence, default=None),
        bare=max(filter(None, (first.bare, second.bare)), key=_moment, default=None),
    )


def _sequence(content: Content) -> tuple[str, datetime, str, str]:
    """Order the contents of one key: pad the shorter sequencer with zeros on the right and compare as text.

    Source: S3 user guide, "Event message structure". Without the zeros at their ends, texts compare just so.
    """
    return (content.sequencer.lower().rstrip("0"), *_moment(content))


def _moment(content: Content) -> tuple[datetime, str, str]:
    return (content.event_time, content.version_id or "", content.etag)
