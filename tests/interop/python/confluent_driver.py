"""confluent-kafka, on the current librdkafka, as one of the drivers of the client matrix.

    version | produce | consume | group | idempotent | admin, as ../README.md says

Left out: `admin` cannot delete the offsets of a group, for which this library has no call.
"""

import time

from confluent_kafka import (
    OFFSET_BEGINNING,
    Consumer,
    ConsumerGroupTopicPartitions,
    KafkaError,
    KafkaException,
    Producer,
    TopicCollection,
    TopicPartition,
    libversion,
    version,
)
from confluent_kafka.admin import (
    AdminClient,
    AlterConfigOpType,
    ConfigEntry,
    ConfigResource,
    ConfigSource,
    NewPartitions,
    NewTopic,
    OffsetSpec,
)

import driver

SECONDS = 30
# The member is no longer what it was when it got the records: others read again what is not committed.
GONE = {KafkaError.ILLEGAL_GENERATION, KafkaError.UNKNOWN_MEMBER_ID, KafkaError._ASSIGNMENT_LOST}
# The coordinator may take it later.
LATER = {
    KafkaError.REBALANCE_IN_PROGRESS,
    KafkaError.COORDINATOR_LOAD_IN_PROGRESS,
    KafkaError.COORDINATOR_NOT_AVAILABLE,
    KafkaError.NOT_COORDINATOR,
    KafkaError.REQUEST_TIMED_OUT,
    KafkaError._TIMED_OUT,
    KafkaError._TRANSPORT,
    KafkaError._WAIT_COORD,
}


class Sender:
    """A producer that remembers the first failure."""

    def __init__(self, settings):
        self.producer = Producer(settings)
        self.failure = None

    def send(self, topic, acknowledged, **record):
        def delivered(error, message):
            if error is None:
                acknowledged(message)
            elif self.failure is None:
                self.failure = error

        while True:
            try:
                self.producer.produce(topic, on_delivery=delivered, **record)
                break
            except BufferError:
                self.producer.poll(0.05)
        self.producer.poll(0)

    def finish(self, seconds=120):
        left = self.producer.flush(seconds)
        if self.failure is not None:
            raise KafkaException(self.failure)
        if left:
            raise TimeoutError(f"{left} records are not acknowledged")


def produce(bootstrap, topic, codec, file):
    # librdkafka keeps order by default as long as nothing is retried.
    settings = {"bootstrap.servers": bootstrap, "compression.type": codec, "message.max.bytes": driver.LARGE}
    sender, acks = Sender(settings), []
    for record in driver.records_of(file):
        ack = {}
        acks.append(ack)
        timestamp = {} if record.timestamp is None else {"timestamp": record.timestamp}
        sender.send(
            topic,
            lambda message, ack=ack: ack.update(partition=message.partition(), offset=message.offset()),
            partition=record.partition,
            key=record.key,
            value=record.value,
            headers=record.headers,
            **timestamp,
        )
    sender.finish()
    for ack in acks:
        driver.emit(**ack)


def consume(bootstrap, topic, partitions, **options):
    reader = Consumer({
        "bootstrap.servers": bootstrap,
        # It asks for a group even where partitions are assigned by hand.
        "group.id": "not-used",
        "enable.auto.commit": False,
        # Where an offset is below the first one, the first one is what there is from it on.
        "auto.offset.reset": "earliest",
        "enable.partition.eof": True,
        **({"max.partition.fetch.bytes": options["fetch_bytes"]} if "fetch_bytes" in options else {}),
    })
    numbers = range(int(partitions))
    ends = {p: reader.get_watermark_offsets(TopicPartition(topic, p), SECONDS)[1] for p in numbers}
    starts = positions(reader, topic, ends, *driver.start(options["from"]))
    left = {p for p in numbers if starts[p] < ends[p]}
    reader.assign([TopicPartition(topic, p, starts[p]) for p in left])
    while left:
        for message in reader.consume(500, 0.2):
            partition, offset, error = message.partition(), message.offset(), message.error()
            if error is not None and error.code() != KafkaError._PARTITION_EOF:
                raise KafkaException(error)
            if error is None and offset < ends[partition]:
                _, timestamp = message.timestamp()
                driver.emit_record(partition, offset, message.key(), message.value(), message.headers(), timestamp)
            # The last offsets may be of control records, which are not handed out.
            if offset + (error is None) >= ends[partition]:
                left.discard(partition)
    reader.close()


def positions(reader, topic, ends, word, number):
    if word == "beginning":
        return {p: OFFSET_BEGINNING if end > 0 else 0 for p, end in ends.items()}
    if word == "offset":
        return dict.fromkeys(ends, number)
    found = reader.offsets_for_times([TopicPartition(topic, p, number) for p in ends], SECONDS)
    return {at.partition: at.offset if at.offset >= 0 else ends[at.partition] for at in found}


def group(bootstrap, topic, group, **options):
    member = driver.Member(**options)
    settings = {
        "bootstrap.servers": bootstrap,
        "group.id": group,
        "auto.offset.reset": "earliest",
        "enable.auto.commit": False,
        "session.timeout.ms": member.session_ms,
        "heartbeat.interval.ms": member.heartbeat_ms,
    }
    if member.strategy is not None:
        strategy = "cooperative-sticky" if member.strategy == "cooperative" else member.strategy
        settings["partition.assignment.strategy"] = strategy
    if member.instance is not None:
        settings["group.instance.id"] = member.instance
    reader = Consumer(settings)

    def numbers(partitions):
        return [partition.partition for partition in partitions]

    def revoked(_, partitions):
        commit(reader, topic, member)
        member.remove(numbers(partitions))

    reader.subscribe(
        [topic],
        on_assign=lambda _, partitions: member.add(numbers(partitions)),
        on_revoke=revoked,
        on_lost=lambda _, partitions: member.remove(numbers(partitions)),
    )
    while member.goes_on():
        messages = reader.consume(member.batch(), 0.2)
        for message in messages:
            if message.error() is not None:
                raise KafkaException(message.error())
            member.got(message.partition(), message.offset(), message.value())
        if messages:
            time.sleep(member.pause)
        commit(reader, topic, member)
    finish(reader, topic, member)


def commit(reader, topic, member):
    if not member.pending:
        return
    offsets = dict(member.pending)
    try:
        wanted = [TopicPartition(topic, p, offset) for p, offset in offsets.items()]
        for answer in reader.commit(offsets=wanted, asynchronous=False):
            if answer.error is not None:
                raise KafkaException(answer.error)
    except KafkaException as problem:
        code = problem.args[0].code()
        if code in GONE:
            member.pending.clear()
        elif code not in LATER:
            raise
    else:
        member.committed(offsets)


def finish(reader, topic, member):
    deadline = time.monotonic() + SECONDS
    while member.pending:
        commit(reader, topic, member)
        if member.pending:
            if time.monotonic() > deadline:
                raise TimeoutError(f"{member.pending} cannot be committed")
            time.sleep(0.1)
    reader.close()


def idempotent(bootstrap, topic, count):
    sender = Sender({
        "bootstrap.servers": bootstrap,
        "enable.idempotence": True,
        "delivery.timeout.ms": driver.RETRY_MS,
        "queue.buffering.max.messages": driver.QUEUED_MAX,
    })
    for i in range(int(count)):
        sender.send(topic, lambda _, i=i: driver.emit(acked=i), partition=0, value=b"%d" % i)
    sender.finish(driver.RETRY_MS / 1000)


class Admin:
    """Admin calls in plain values."""

    def __init__(self, bootstrap):
        self.bootstrap = bootstrap
        self.client = AdminClient({"bootstrap.servers": bootstrap})

    def create(self, topic, partitions, configs):
        """Whether it is there already."""
        try:
            one(self.client.create_topics([NewTopic(topic, partitions, 1, config=configs)]))
        except KafkaException as problem:
            if problem.args[0].code() != KafkaError.TOPIC_ALREADY_EXISTS:
                raise
            return True
        return False

    def topics(self):
        return list(self.client.list_topics(timeout=SECONDS).topics)

    def describe(self, topic):
        described = one(self.client.describe_topics(TopicCollection([topic])))
        return {partition.id: partition.leader.id for partition in described.partitions}

    def configs(self, topic):
        entries = one(self.client.describe_configs([ConfigResource("topic", topic)])).values()
        overridden = ConfigSource.DYNAMIC_TOPIC_CONFIG.value
        return {entry.name: (entry.value, entry.source == overridden) for entry in entries}

    def alter(self, topic, name, value):
        entry = ConfigEntry(name, value, incremental_operation=AlterConfigOpType.SET)
        one(self.client.incremental_alter_configs([ConfigResource("topic", topic, incremental_configs=[entry])]))

    def grow(self, topic, total):
        one(self.client.create_partitions([NewPartitions(topic, total)]))

    def produce(self, topic, partition, values):
        sender = Sender({"bootstrap.servers": self.bootstrap})
        for value in values:
            sender.send(topic, lambda _: None, partition=partition, value=value)
        sender.finish()

    def offsets(self, topic, partition):
        at = TopicPartition(topic, partition)
        specs = OffsetSpec.earliest(), OffsetSpec.latest()
        return tuple(one(self.client.list_offsets({at: spec})).offset for spec in specs)

    def delete_records(self, topic, partition, before):
        return one(self.client.delete_records([TopicPartition(topic, partition, before)])).low_watermark

    def commit(self, group, topic, partition, offset):
        wanted = ConsumerGroupTopicPartitions(group, [TopicPartition(topic, partition, offset)])
        for answer in one(self.client.alter_consumer_group_offsets([wanted])).topic_partitions:
            if answer.error is not None:
                raise KafkaException(answer.error)

    def groups(self):
        listed = self.client.list_consumer_groups().result(SECONDS)
        if listed.errors:
            raise listed.errors[0]
        return [group.group_id for group in listed.valid]

    def group_state(self, group):
        return one(self.client.describe_consumer_groups([group])).state.name.lower()

    def group_offsets(self, group, topic):
        listed = one(self.client.list_consumer_group_offsets([ConsumerGroupTopicPartitions(group)]))
        return {at.partition: at.offset for at in listed.topic_partitions if at.topic == topic}

    def delete_group_offsets(self, *_):
        raise driver.Unsupported("confluent-kafka has no call for OffsetDelete (librdkafka has, its Python API has not)")

    def delete_group(self, group):
        one(self.client.delete_consumer_groups([group]))

    def cluster(self):
        described = self.client.describe_cluster().result(SECONDS)
        return described.cluster_id, [node.id for node in described.nodes]

    def delete_topic(self, topic):
        one(self.client.delete_topics([topic]))


def one(futures):
    """The answer of a call that was asked about one thing."""
    (future,) = futures.values()
    return future.result(SECONDS)


if __name__ == "__main__":
    driver.main("confluent-kafka", f"{version()} (librdkafka {libversion()[0]})", {
        "produce": produce,
        "consume": consume,
        "group": group,
        "idempotent": idempotent,
        "admin": lambda bootstrap, topic: driver.admin(Admin(bootstrap), topic),
    })
