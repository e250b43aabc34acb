"""aiokafka as one of the drivers of the client matrix.

    version | produce | consume | group | idempotent | admin, as ../README.md says

Left out: `produce` sends no record that has neither key nor value, which the library refuses; `group` has no
cooperative strategy, which the library does not have; `admin` deletes neither groups nor their offsets, for which
there is no call, and alters configurations as a whole, not incrementally.
"""

import asyncio

import aiokafka
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, ConsumerRebalanceListener, TopicPartition
from aiokafka.admin import AIOKafkaAdminClient, NewPartitions, NewTopic, RecordsToDelete
from aiokafka.admin.config_resource import ConfigResource, ConfigResourceType
from aiokafka.coordinator.assignors.range import RangePartitionAssignor
from aiokafka.errors import CommitFailedError, IllegalStateError, TopicAlreadyExistsError, for_code

import driver

SECONDS = 30
# Of a configuration's sources, the one that says that it was set for the topic.
DYNAMIC_TOPIC_CONFIG = 1


async def produce(bootstrap, topic, codec, file):
    records = list(driver.records_of(file))
    if any(record.key is None and record.value is None for record in records):
        raise driver.Unsupported("AIOKafkaProducer.send refuses a record with neither key nor value")
    producer = AIOKafkaProducer(
        bootstrap_servers=bootstrap,
        compression_type=None if codec == "none" else codec,
        max_request_size=driver.LARGE,
    )
    await producer.start()
    acks = [
        await producer.send(
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
        metadata = await ack
        driver.emit(partition=metadata.partition, offset=metadata.offset)
    await producer.stop()


async def consume(bootstrap, topic, partitions, **options):
    # Where an offset is below the first one, the first one is what there is from it on.
    settings = {"max_partition_fetch_bytes": int(options["fetch_bytes"])} if "fetch_bytes" in options else {}
    reader = AIOKafkaConsumer(bootstrap_servers=bootstrap, auto_offset_reset="earliest", **settings)
    await reader.start()
    every = [TopicPartition(topic, p) for p in range(int(partitions))]
    reader.assign(every)
    ends = await reader.end_offsets(every)
    left = await seek(reader, ends, *driver.start(options["from"]))
    # A position moves past control records as well, which are not handed out.
    while [at for at in left if await reader.position(at) < ends[at]]:
        for at, records in (await reader.getmany(timeout_ms=200)).items():
            for record in records:
                if record.offset < ends[at]:
                    driver.emit_record(
                        at.partition, record.offset, record.key, record.value, record.headers, record.timestamp
                    )
    await reader.stop()


async def seek(reader, ends, word, number):
    """The partitions that have something to read."""
    left = [at for at, end in ends.items() if end > 0]
    if word == "beginning":
        if left:
            await reader.seek_to_beginning(*left)
    elif word == "offset":
        left = [at for at in left if number < ends[at]]
        for at in left:
            reader.seek(at, number)
    else:
        found = await reader.offsets_for_times(dict.fromkeys(left, number)) if left else {}
        left = [at for at in left if found.get(at) is not None]
        for at in left:
            reader.seek(at, found[at].offset)
    reader.pause(*(at for at in ends if at not in left))
    return left


class GroupMember(ConsumerRebalanceListener):
    """A member of a group. The library rebalances in the background, so a lock keeps that out of a batch."""

    def __init__(self, bootstrap, topic, group, options):
        self.member = driver.Member(**options)
        self.topic = topic
        self.lock = asyncio.Lock()
        settings = {}
        if self.member.strategy == "cooperative":
            raise driver.Unsupported("aiokafka has no cooperative assignor and does not speak that protocol")
        if self.member.strategy is not None:
            settings["partition_assignment_strategy"] = [RangePartitionAssignor]
        if self.member.instance is not None:
            settings["group_instance_id"] = self.member.instance
        self.reader = AIOKafkaConsumer(
            bootstrap_servers=bootstrap,
            group_id=group,
            auto_offset_reset="earliest",
            enable_auto_commit=False,
            session_timeout_ms=self.member.session_ms,
            heartbeat_interval_ms=self.member.heartbeat_ms,
            **settings,
        )

    async def run(self):
        self.reader.subscribe([self.topic], listener=self)
        await self.reader.start()
        while self.member.goes_on():
            polled = await self.reader.getmany(timeout_ms=200, max_records=self.member.batch())
            async with self.lock:
                await self.batch(polled)
        async with self.lock:
            await self.commit()
        await self.reader.stop()

    async def batch(self, polled):
        for at, records in polled.items():
            # Revoked while the lock was waited for: whoever has it now reads from what is committed.
            if at.partition in self.member.assigned:
                for record in records:
                    self.member.got(at.partition, record.offset, record.value)
        if polled:
            await asyncio.sleep(self.member.pause)
        await self.commit()

    async def commit(self):
        if not self.member.pending:
            return
        offsets = dict(self.member.pending)
        try:
            # It tries again by itself whatever may be taken later.
            await self.reader.commit({TopicPartition(self.topic, p): offset for p, offset in offsets.items()})
        except (CommitFailedError, IllegalStateError):
            # The group goes on without what is not committed: it is read again.
            self.member.pending.clear()
        else:
            self.member.committed(offsets)

    async def on_partitions_assigned(self, assigned):
        self.member.add(at.partition for at in assigned)

    async def on_partitions_revoked(self, revoked):
        async with self.lock:
            self.member.remove([at.partition for at in revoked])


async def group(bootstrap, topic, group, **options):
    await GroupMember(bootstrap, topic, group, options).run()


async def idempotent(bootstrap, topic, count):
    # A batch of an idempotent producer never expires; there is no delivery timeout.
    producer = AIOKafkaProducer(
        bootstrap_servers=bootstrap, enable_idempotence=True, request_timeout_ms=driver.RETRY_MS
    )
    await producer.start()
    acks = []
    for i in range(int(count)):
        ack = await producer.send(topic, value=b"%d" % i, partition=0)
        ack.add_done_callback(lambda ack, i=i: ack.exception() or driver.emit(acked=i))
        acks.append(ack)
    await asyncio.wait_for(asyncio.gather(*acks), driver.RETRY_MS / 1000)
    await producer.stop()


class Admin:
    """Admin calls in plain values."""

    def __init__(self, bootstrap):
        self.bootstrap = bootstrap
        self.loop = asyncio.new_event_loop()
        asyncio.set_event_loop(self.loop)
        self.client = self.wait(self.start())

    def wait(self, work):
        return self.loop.run_until_complete(asyncio.wait_for(work, SECONDS))

    async def start(self):
        client = AIOKafkaAdminClient(bootstrap_servers=self.bootstrap)
        await client.start()
        return client

    def create(self, topic, partitions, configs):
        """Whether it is there already."""
        wanted = NewTopic(topic, partitions, 1, topic_configs=configs)
        try:
            check(code for _, code, *_ in self.wait(self.client.create_topics([wanted])).topic_errors)
        except TopicAlreadyExistsError:
            return True
        return False

    def topics(self):
        return self.wait(self.client.list_topics())

    def describe(self, topic):
        (described,) = self.wait(self.client.describe_topics([topic]))
        return {partition["partition"]: partition["leader"] for partition in described["partitions"]}

    def configs(self, topic):
        answers = self.wait(self.client.describe_configs([ConfigResource(ConfigResourceType.TOPIC, topic)]))
        (resource,) = (resource for answer in answers for resource in answer.resources)
        check([resource[0]])
        return {name: (value, source == DYNAMIC_TOPIC_CONFIG) for name, value, _, source, *_ in resource[4]}

    def alter(self, topic, name, value):
        resource = ConfigResource(ConfigResourceType.TOPIC, topic, {name: value})
        for answer in self.wait(self.client.alter_configs([resource])):
            check(code for code, *_ in answer.resources)

    def grow(self, topic, total):
        self.wait(self.client.create_partitions({topic: NewPartitions(total)}))

    def produce(self, topic, partition, values):
        async def work():
            producer = AIOKafkaProducer(bootstrap_servers=self.bootstrap)
            await producer.start()
            for value in values:
                await producer.send_and_wait(topic, value=value, partition=partition)
            await producer.stop()

        self.wait(work())

    def offsets(self, topic, partition):
        async def work():
            at = TopicPartition(topic, partition)
            reader = AIOKafkaConsumer(bootstrap_servers=self.bootstrap)
            await reader.start()
            reader.assign([at])
            found = (await reader.beginning_offsets([at]))[at], (await reader.end_offsets([at]))[at]
            await reader.stop()
            return found

        return self.wait(work())

    def delete_records(self, topic, partition, before):
        at = TopicPartition(topic, partition)
        return self.wait(self.client.delete_records({at: RecordsToDelete(before)}))[at]

    def commit(self, group, topic, partition, offset):
        async def work():
            at = TopicPartition(topic, partition)
            reader = AIOKafkaConsumer(bootstrap_servers=self.bootstrap, group_id=group, enable_auto_commit=False)
            await reader.start()
            reader.assign([at])
            await reader.commit({at: offset})
            await reader.stop()

        self.wait(work())

    def groups(self):
        return [group for group, *_ in self.wait(self.client.list_consumer_groups())]

    def group_state(self, group):
        (answer,) = self.wait(self.client.describe_consumer_groups([group]))
        ((code, _, state, *_),) = answer.groups
        check([code])
        return state.lower()

    def group_offsets(self, group, topic):
        listed = self.wait(self.client.list_consumer_group_offsets(group))
        return {at.partition: found.offset for at, found in listed.items() if at.topic == topic}

    def delete_group_offsets(self, *_):
        raise driver.Unsupported("AIOKafkaAdminClient has no call for OffsetDelete")

    def delete_group(self, _):
        raise driver.Unsupported("AIOKafkaAdminClient has no call for DeleteGroups")

    def cluster(self):
        described = self.wait(self.client.describe_cluster())
        return described["cluster_id"], [broker["node_id"] for broker in described["brokers"]]

    def delete_topic(self, topic):
        check(code for _, code in self.wait(self.client.delete_topics([topic])).topic_error_codes)


def check(codes):
    for code in codes:
        if code:
            raise for_code(code)()


def admin(bootstrap, topic):
    library = Admin(bootstrap)
    driver.admin(library, topic)
    library.wait(library.client.close())


def run(verb):
    return lambda *arguments, **options: asyncio.run(verb(*arguments, **options))


if __name__ == "__main__":
    verbs = {verb.__name__: run(verb) for verb in (produce, consume, group, idempotent)}
    driver.main("aiokafka", aiokafka.__version__, {**verbs, "admin": admin})
