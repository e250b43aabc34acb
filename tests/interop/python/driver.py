"""What the Python drivers of the client matrix share: the command line, lines of JSON, and the steps of `admin`.

    DRIVER version | produce | consume | group | idempotent | admin BOOTSTRAP key=value...

A driver brings a function for each verb that its library has. It ends with 0 if the verb did all it says, with 3 and
the reason if the library cannot do it with any broker, and with 1 and a sentence if anything is wrong.
"""

import base64
import collections
import json
import sys
import threading
import time
import traceback

Record = collections.namedtuple("Record", "partition key value headers timestamp")

# Bytes of a request that has room for the largest record of the matrix; the libraries' own limits are about 1 MB.
LARGE = 4 << 20
# Milliseconds for which an idempotent producer goes on trying: a broker that was killed is back long before.
RETRY_MS = 170_000
# Most values of an idempotent producer that librdkafka holds, whose default takes in all at once: it shall still have
# some to send when the broker dies.
QUEUED_MAX = 1000
# Seconds in which what a broker said it did is visible to whoever asks.
SETTLED = 30


class Unsupported(Exception):
    """The library cannot do it, whatever the broker."""


class Wrong(Exception):
    """The broker's answer is not what it should be."""


def main(client, version, verbs):
    verb, bootstrap, *arguments = sys.argv[1:]
    options = dict(argument.split("=", 1) for argument in arguments)
    if verb == "version":
        emit(client=client, version=version)
        return
    try:
        if verb not in verbs:
            raise Wrong(f"there is no verb {verb}")
        verbs[verb](bootstrap, **options)
    except Unsupported as reason:
        emit(unsupported=str(reason))
        sys.exit(3)
    except Exception as problem:
        print(f"{client}: {verb} failed: {problem!r}", file=sys.stderr)
        traceback.print_exc()
        sys.exit(1)


def emit(**line):
    # One write for each line: a reader has all that was printed before a kill.
    sys.stdout.write(json.dumps(line) + "\n")
    sys.stdout.flush()


def b64(data):
    return None if data is None else base64.b64encode(data).decode()


def unb64(text):
    return None if text is None else base64.b64decode(text)


def records_of(file):
    with open(file, encoding="utf-8") as lines:
        for line in map(json.loads, lines):
            headers = [(name, unb64(value)) for name, value in line.get("headers", [])]
            key, value = unb64(line.get("key")), unb64(line.get("value"))
            yield Record(line["partition"], key, value, headers, line.get("timestamp"))


def emit_record(partition, offset, key, value, headers, timestamp):
    headers = [[name, b64(header)] for name, header in headers or ()]
    emit(partition=partition, offset=offset, key=b64(key), value=b64(value), headers=headers, timestamp=timestamp)


def start(text):
    """What `from=` says: a word and a number."""
    word, _, number = text.partition(":")
    return word, int(number or 0)


class Member:
    """The books of a member of a group: what it printed, what of that is not committed, and when it ends."""

    def __init__(self, until=None, session_ms=6000, pause_ms=0, strategy=None, instance=None):
        self.left = sys.maxsize if until is None else int(until)
        self.session_ms = int(session_ms)
        self.heartbeat_ms = self.session_ms // 3
        self.pause = int(pause_ms) / 1000
        self.strategy = strategy
        self.instance = instance
        self.assigned = set()
        self.pending = {}
        self.stdin = threading.Thread(target=sys.stdin.read, daemon=True)
        self.stdin.start()

    def goes_on(self):
        return self.left > 0 and self.stdin.is_alive()

    def batch(self, most=500):
        """How many records to ask for."""
        return min(most, self.left)

    def got(self, partition, offset, value):
        emit(partition=partition, offset=offset, value=b64(value))
        self.pending[partition] = offset + 1
        self.left -= 1

    def committed(self, offsets):
        emit(committed={str(partition): offset for partition, offset in sorted(offsets.items())})
        self.pending = {p: offset for p, offset in self.pending.items() if offsets.get(p) != offset}

    def add(self, partitions):
        self.assigned |= set(partitions)
        emit(assigned=sorted(self.assigned))

    def remove(self, partitions):
        self.assigned -= set(partitions)
        for partition in partitions:
            self.pending.pop(partition, None)
        emit(revoked=sorted(partitions))


def eventually(check, sentence):
    """Asks again until the answer is as it should be: a broker may answer from what it knew a moment ago."""
    deadline = time.monotonic() + SETTLED
    while True:
        answer = check()
        if answer is None or answer is True:
            return
        if time.monotonic() > deadline:
            raise Wrong(f"{sentence}; the last answer was {answer!r}")
        time.sleep(0.1)


def same(found, wanted):
    """For `eventually`: whether it is so, and else what was found."""
    return True if found == wanted else ("found", found)


def admin(library, topic):
    """The steps of `admin` in order.

    `library` has a method for each thing to ask for; one that the library lacks raises Unsupported.
    """
    group = f"{topic}-group"
    steps = {**topic_steps(library, topic), **group_steps(library, topic, group), **last_steps(library, topic)}
    for name, step in steps.items():
        try:
            step()
        except Unsupported as reason:
            emit(step=name, unsupported=str(reason))
        except Exception as problem:
            raise Wrong(f"step {name}: {problem!r}") from problem
        else:
            emit(step=name, ok=True)


def topic_steps(library, topic):
    def has_partitions(count):
        def check():
            leaders, brokers = library.describe(topic), library.cluster()[1]
            if set(leaders) == set(range(count)) and set(leaders.values()) <= set(brokers):
                return True
            return leaders, brokers

        eventually(check, f"{topic} should have {count} partitions, each led by a live broker")

    def exists():
        if not library.create(topic, 3, {}):
            raise Wrong(f"creating {topic} again should fail with TopicAlreadyExists")

    def describe_configs():
        def check():
            found = library.configs(topic)
            override, default = found["max.message.bytes"], found["segment.bytes"]
            return True if override == ("2000000", True) and not default[1] else (override, default)

        eventually(check, "max.message.bytes should be 2000000 as an override, segment.bytes a default")

    def alter_configs():
        library.alter(topic, "max.message.bytes", "3000000")
        wanted = ("3000000", True)
        eventually(lambda: same(library.configs(topic)["max.message.bytes"], wanted), "it should read 3000000")

    def create():
        if library.create(topic, 3, {"max.message.bytes": "2000000"}):
            raise Wrong(f"{topic} is there already")

    def create_partitions():
        library.grow(topic, 5)
        has_partitions(5)

    def delete_records():
        low = library.delete_records(topic, 0, 4)
        if low != 4:
            raise Wrong(f"the low watermark should be 4 and is {low}")
        eventually(lambda: same(library.offsets(topic, 0), (4, 10)), "partition 0 should hold 4 to 10")

    return {
        "create": create,
        "exists": exists,
        "list": lambda: eventually(lambda: topic in (found := library.topics()) or found, f"{topic} should be listed"),
        "describe": lambda: has_partitions(3),
        "describe_configs": describe_configs,
        "alter_configs": alter_configs,
        "create_partitions": create_partitions,
        "produce": lambda: library.produce(topic, 0, [b"%d" % i for i in range(10)]),
        "list_offsets": lambda: eventually(
            lambda: same(library.offsets(topic, 0), (0, 10)), "partition 0 should hold 0 to 10"
        ),
        "delete_records": delete_records,
    }


def group_steps(library, topic, group):
    def delete_group_offsets():
        library.delete_group_offsets(group, topic, 0)
        eventually(lambda: same(library.group_offsets(group, topic).get(0), None), "partition 0 should be gone")

    def delete_group():
        library.delete_group(group)
        eventually(lambda: group not in (found := library.groups()) or found, f"{group} should be gone")

    return {
        "commit": lambda: library.commit(group, topic, 0, 7),
        "list_groups": lambda: eventually(
            lambda: group in (found := library.groups()) or found, f"{group} should be listed"
        ),
        "describe_group": lambda: eventually(
            lambda: same(library.group_state(group), "empty"), f"{group} should be empty"
        ),
        "list_group_offsets": lambda: eventually(
            lambda: same(library.group_offsets(group, topic), {0: 7}), "partition 0 should be at 7"
        ),
        "delete_group_offsets": delete_group_offsets,
        "delete_group": delete_group,
    }


def last_steps(library, topic):
    def describe_cluster():
        cluster, brokers = library.cluster()
        if not cluster or len(brokers) != 1:
            raise Wrong(f"there should be a cluster id and one node, and there are {cluster!r} and {brokers}")

    def delete_topic():
        library.delete_topic(topic)
        eventually(lambda: topic not in (found := library.topics()) or found, f"{topic} should be gone")

    return {"describe_cluster": describe_cluster, "delete_topic": delete_topic}
