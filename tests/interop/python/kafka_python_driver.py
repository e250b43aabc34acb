"""kafka-python as one of the drivers of the client matrix.

    version | produce | consume | group | idempotent | admin, as ../README.md says

Left out: `produce` sends no record that has neither key nor value and no null header; the library refuses both.
"""

import threading
import time

import kafka
from kafka import ConsumerRebalanceListener, KafkaAdminClient, KafkaConsumer, KafkaProducer, TopicPartition
from kafka.admin import ConfigResource, ConfigResourceType, OffsetSpec
from kafka.coordinator.assignors.cooperative_sticky import CooperativeStickyAssignor
from kafka.coordinator.assignors.range import RangePartitionAssignor
from kafka.errors import CommitFailedError, KafkaError, NoError, RebalanceInProgressError, TopicAlreadyExistsError
from kafka.structs import OffsetAndMetadata

import driver

SECONDS = 30
STRATEGIES = {"range": RangePartitionAssignor, "cooperative": CooperativeStickyAssignor}


def produce(bootstrap, topic, codec, file):
    records = list(driver.records_of(file))
    for record in records:
        if record.key is None and record.value is None:
            raise driver.Unsupported("KafkaProducer.send refuses a record with neither key nor value")
        if any(value is None for _, value in record.headers):
            raise driver.Unsupported("KafkaProducer.send refuses a null header")
    producer = KafkaProducer(
        bootstrap_servers=bootstrap,
        compression_type=None if codec == "none" else codec,
        max_request_size=driver.LARGE,
    )
    acks = [
        producer.send(
            topic,
            value=record.value,
            key=record.key,
            headers=record.headers,
            partition=record.partition,
            timestamp_ms=record.timestamp,
        )
        for record in records
    ]
    for ack in acks:
        metadata = ack.get(SECONDS)
        driver.emit(partition=metadata.partition, offset=metadata.offset)
    producer.close()


def consume(bootstrap, topic, partitions, **options):
    # Where an offset is below the first one, the first one is what there is from it on.
    settings = {"max_partition_fetch_bytes": int(options["fetch_bytes"])} if "fetch_bytes" in options else {}
    reader = KafkaConsumer(bootstrap_servers=bootstrap, auto_offset_reset="earliest", **settings)
    every = [TopicPartition(topic, p) for p in range(int(partitions))]
    reader.assign(every)
    ends = reader.end_offsets(every)
    left = seek(reader, ends, *driver.start(options["from"]))
    # A position moves past control records as well, which are not handed out.
    while any(reader.position(at) < ends[at] for at in left):
        for at, records in reader.poll(200).items():
            for record in records:
                if record.offset < ends[at]:
                    driver.emit_record(
                        at.partition, record.offset, record.key, record.value, record.headers, record.timestamp
                    )
    reader.close()


def seek(reader, ends, word, number):
    """The partitions that have something to read."""
    left = [at for at, end in ends.items() if end > 0]
    if word == "beginning":
        if left:
            reader.seek_to_beginning(*left)
    elif word == "offset":
        left = [at for at in left if number < ends[at]]
        for at in left:
            reader.seek(at, number)
    else:
        found = reader.offsets_for_times(dict.fromkeys(left, number)) if left else {}
        left = [at for at in left if found.get(at) is not None]
        for at in left:
            reader.seek(at, found[at].offset)
    others = [at for at in ends if at not in left]
    if others:
        reader.pause(*others)
    return left


class Listener(ConsumerRebalanceListener):
    """Called while the member polls, by when what it printed is committed."""

    def __init__(self, member):
        self.member = member

    def on_partitions_assigned(self, assigned):
        self.member.add(at.partition for at in assigned)

    def on_partitions_revoked(self, revoked):
        self.member.remove([at.partition for at in revoked])


def group(bootstrap, topic, group, **options):
    member = driver.Member(**options)
    settings = {}
    if member.strategy is not None:
        settings["partition_assignment_strategy"] = [STRATEGIES[member.strategy]]
    if member.instance is not None:
        settings["group_instance_id"] = member.instance
    reader = KafkaConsumer(
        bootstrap_servers=bootstrap,
        group_id=group,
        auto_offset_reset="earliest",
        enable_auto_commit=False,
        session_timeout_ms=member.session_ms,
        heartbeat_interval_ms=member.heartbeat_ms,
        **settings,
    )
    reader.subscribe([topic], listener=Listener(member))
    while member.goes_on():
        polled = patiently(lambda: reader.poll(200, max_records=member.batch())) or {}
        for at, records in polled.items():
            for record in records:
                member.got(at.partition, record.offset, record.value)
        if polled:
            time.sleep(member.pause)
        commit(reader, topic, member)
    deadline = time.monotonic() + SECONDS
    while member.pending:
        if time.monotonic() > deadline:
            raise TimeoutError(f"{member.pending} cannot be committed")
        commit(reader, topic, member)
    reader.close()


def commit(reader, topic, member):
    if not member.pending:
        return
    offsets = dict(member.pending)
    wanted = {TopicPartition(topic, p): OffsetAndMetadata(offset, "", -1) for p, offset in offsets.items()}
    try:
        # What is not taken now, as in a rebalance, and stays with this member is committed after the next poll.
        if patiently(lambda: reader.commit(wanted) or True):
            member.committed(offsets)
    except CommitFailedError:
        # The group went on without this member: others read again what is not committed.
        member.pending.clear()


def patiently(call):
    """What the call returns, or None if it may be tried again: the library raises what it says is retriable."""
    try:
        return call()
    except KafkaError as problem:
        if not problem.retriable and not isinstance(problem, RebalanceInProgressError):
            raise
        time.sleep(0.1)
        return None


def idempotent(bootstrap, topic, count):
    count = int(count)
    # Idempotence and endless retries are the defaults; their time is what is short.
    producer = KafkaProducer(
        bootstrap_servers=bootstrap,
        delivery_timeout_ms=driver.RETRY_MS,
        max_block_ms=driver.RETRY_MS,
    )
    failures, lock = [], threading.Lock()

    def acknowledged(number, _):
        with lock:
            driver.emit(acked=number)

    for i in range(count):
        future = producer.send(topic, value=b"%d" % i, partition=0)
        future.add_callback(acknowledged, i)
        future.add_errback(failures.append)
    producer.flush(driver.RETRY_MS / 1000)
    producer.close()
    if failures:
        raise failures[0]


class Admin:
    """Admin calls in plain values."""

    def __init__(self, bootstrap):
        self.bootstrap = bootstrap
        self.client = KafkaAdminClient(bootstrap_servers=bootstrap)

    def create(self, topic, partitions, configs):
        """Whether it is there already."""
        wanted = {"num_partitions": partitions, "replication_factor": 1, "configs": configs}
        try:
            self.client.create_topics({topic: wanted})
        except TopicAlreadyExistsError:
            return True
        return False

    def topics(self):
        return self.client.list_topics()

    def describe(self, topic):
        (described,) = self.client.describe_topics([topic])
        return {partition["partition_index"]: partition["leader_id"] for partition in described["partitions"]}

    def configs(self, topic):
        wanted = ConfigResource(ConfigResourceType.TOPIC, topic)
        found = self.client.describe_configs([wanted], config_filter="all")["topic"][topic]
        overridden = "DYNAMIC_TOPIC_CONFIG"
        return {name: (entry["value"], entry["config_source"] == overridden) for name, entry in found.items()}

    def alter(self, topic, name, value):
        # Incremental where the broker has it, which is the library's default.
        self.client.alter_configs([ConfigResource(ConfigResourceType.TOPIC, topic, {name: value})])

    def grow(self, topic, total):
        self.client.create_partitions({topic: total})

    def produce(self, topic, partition, values):
        producer = KafkaProducer(bootstrap_servers=self.bootstrap)
        for ack in [producer.send(topic, value=value, partition=partition) for value in values]:
            ack.get(SECONDS)
        producer.close()

    def offsets(self, topic, partition):
        at = TopicPartition(topic, partition)
        specs = OffsetSpec.EARLIEST, OffsetSpec.LATEST
        return tuple(self.client.list_partition_offsets({at: spec})[at].offset for spec in specs)

    def delete_records(self, topic, partition, before):
        at = TopicPartition(topic, partition)
        return self.client.delete_records({at: before})[at]["low_watermark"]

    def commit(self, group, topic, partition, offset):
        at = TopicPartition(topic, partition)
        check(self.client.alter_group_offsets(group, {at: OffsetAndMetadata(offset, "", -1)})[at])

    def groups(self):
        return [group["group_id"] for group in self.client.list_groups()]

    def group_state(self, group):
        return self.client.describe_groups([group])[group]["group_state"].lower()

    def group_offsets(self, group, topic):
        listed = self.client.list_group_offsets(group)[group]
        return {at.partition: found.offset for at, found in listed.items() if at.topic == topic}

    def delete_group_offsets(self, group, topic, partition):
        at = TopicPartition(topic, partition)
        check(self.client.delete_group_offsets(group, [at])[at])

    def delete_group(self, group):
        answer = self.client.delete_groups([group])[group]
        if answer != "OK":
            raise driver.Wrong(f"deleting {group} says {answer}")

    def cluster(self):
        described = self.client.describe_cluster()
        return described["cluster_id"], [broker["broker_id"] for broker in described["brokers"]]

    def delete_topic(self, topic):
        self.client.delete_topics([topic])


def check(error):
    if error is not NoError:
        raise error()


if __name__ == "__main__":
    driver.main("kafka-python", kafka.__version__, {
        "produce": produce,
        "consume": consume,
        "group": group,
        "idempotent": idempotent,
        "admin": lambda bootstrap, topic: driver.admin(Admin(bootstrap), topic),
    })
