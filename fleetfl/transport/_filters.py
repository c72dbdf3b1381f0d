"""Topics and topic filters by the rules of MQTT 3.1.1, section 4.7."""


def matches(topic_filter: str, topic: str) -> bool:
    """Whether the filter takes the topic: `a/#` also takes `a`; a leading wildcard no `$...`
    [MQTT-4.7.2-1].
    """
    if topic.startswith("$") and topic_filter[0] in "+#":
        return False
    wanted, given = topic_filter.split("/"), topic.split("/")
    for depth, level in enumerate(wanted):
        if level == "#":
            return True
        if depth == len(given) or level not in ("+", given[depth]):
            return False
    return len(wanted) == len(given)


def is_wild(topic_filter: str) -> bool:
    """Whether the filter has wildcards, so that it may match several topics."""
    return "+" in topic_filter or "#" in topic_filter


def checked_topic(topic: str) -> str:
    """The topic itself. Raises ValueError if nothing can be published there."""
    if not 0 < len(topic.encode()) <= 65_535 or set(topic) & set("+#\0"):
        raise ValueError(f"{topic!r} is no topic: expected 1 to 65535 bytes without + # and NUL")
    return topic


def checked_filter(topic_filter: str) -> str:
    """The filter itself. Raises ValueError if MQTT does not allow it."""
    levels = topic_filter.split("/")
    whole = all(len(level) == 1 or not set(level) & set("+#") for level in levels)
    if not whole or "#" in levels[:-1] or "\0" in topic_filter:
        raise ValueError(f"{topic_filter!r}: + and # stand for whole levels, # only for the last")
    if not 0 < len(topic_filter.encode()) <= 65_535:
        raise ValueError(f"{topic_filter[:40]!r} is no filter: expected 1 to 65535 bytes")
    return topic_filter


def checked_payload(payload: bytes, max_payload_bytes: int) -> bytes:
    """The payload itself. Raises ValueError if it is above the limit."""
    if len(payload) > max_payload_bytes:
        raise ValueError(
            f"payload of {len(payload)} bytes; max_payload_bytes is {max_payload_bytes} "
            "(send it in chunks, or raise the limit here and at the broker)"
        )
    return payload
