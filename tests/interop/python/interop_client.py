"""The current librdkafka as the interop tests drive it, by way of confluent-kafka.

    produce BOOTSTRAP CODEC TOPIC FILE...    line by line, the nth file into the nth partition
    consume BOOTSTRAP TOPIC DIRECTORY        every partition from its beginning into DIRECTORY/<partition>,
                                             as lines of "<offset> <value>"
    load BOOTSTRAP TOPIC [KEY=VALUE...]      numbered records until stdin ends, then the record "end"
    tail BOOTSTRAP TOPIC FILE                partition 0 into FILE up to the record "end"
    tour BOOTSTRAP TOPIC                     each API once: create, produce, list, fetch, find, validate, delete
"""

import itertools
import os
import sys
import threading
import time

from confluent_kafka import OFFSET_BEGINNING, Consumer, KafkaException, Producer, TopicPartition, version, libversion
from confluent_kafka.admin import AdminClient, NewTopic


class Sender:
    """A producer that counts acknowledgements and remembers the first failure."""

    def __init__(self, settings):
        self.producer = Producer(settings)
        self.acknowledged = 0
        self.failure = None

    def delivered(self, error, _message):
        self.acknowledged += 1
        if error is not None and self.failure is None:
            self.failure = error

    def send(self, topic, partition, value):
        while True:
            try:
                self.producer.produce(topic, value, partition=partition, on_delivery=self.delivered)
                break
            except BufferError:
                self.producer.poll(0.05)
        self.producer.poll(0)

    def finish(self):
        left = self.producer.flush(120)
        if self.failure is not None:
            raise KafkaException(self.failure)
        if left:
            raise TimeoutError(f"{left} records are still not acknowledged")


def consumer(bootstrap, **settings):
    # confluent-kafka asks for a group even where partitions are assigned by hand.
    return Consumer({
        "bootstrap.servers": bootstrap,
        "group.id": "interop",
        "enable.auto.commit": False,
        "auto.offset.reset": "error",
        **settings,
    })


def messages(reader):
    while True:
        for message in reader.consume(1000, 0.2):
            if message.error() is not None:
                raise KafkaException(message.error())
            yield message


def produce(bootstrap, codec, topic, *files):
    sender = Sender({"bootstrap.servers": bootstrap, "compression.type": codec})
    inputs = [open(file, "rb") for file in files]
    # The partitions take turns, as keyed records would.
    for turn in itertools.zip_longest(*inputs):
        for partition, line in enumerate(turn):
            if line is not None:
                sender.send(topic, partition, line[:-1])
    sender.finish()


def consume(bootstrap, topic, directory):
    reader = consumer(bootstrap)
    partitions = sorted(reader.list_topics(topic, 30).topics[topic].partitions)
    ends = {p: reader.get_watermark_offsets(TopicPartition(topic, p), 30)[1] for p in partitions}
    outputs = {p: open(os.path.join(directory, str(p)), "wb") for p in partitions}
    reader.assign([TopicPartition(topic, p, OFFSET_BEGINNING) for p in partitions])
    left = {p for p in partitions if ends[p] > 0}
    for message in messages(reader) if left else ():
        outputs[message.partition()].write(b"%d %s\n" % (message.offset(), message.value()))
        if message.offset() + 1 >= ends[message.partition()]:
            left.discard(message.partition())
            if not left:
                break
    for output in outputs.values():
        output.close()
    reader.close()


def load(bootstrap, topic, *settings):
    sender = Sender({"bootstrap.servers": bootstrap, **dict(pair.split("=", 1) for pair in settings)})
    # The test closes stdin; until then nothing is written to it.
    stdin = threading.Thread(target=sys.stdin.read, daemon=True)
    stdin.start()
    sent = 0
    while stdin.is_alive() and sender.failure is None:
        for _ in range(20):
            sender.send(topic, 0, str(sent).encode())
            sent += 1
        time.sleep(0.002)
        print(sender.acknowledged, flush=True)
    sender.send(topic, 0, b"end")
    sender.finish()
    print("sent", sent, flush=True)


def tail(bootstrap, topic, file):
    reader = consumer(bootstrap)
    reader.assign([TopicPartition(topic, 0, 0)])
    with open(file, "wb") as output:
        for message in messages(reader):
            output.write(message.value() + b"\n")
            if message.value() == b"end":
                break
    reader.close()


def tour(bootstrap, topic):
    print(version(), libversion())
    admin = AdminClient({"bootstrap.servers": bootstrap})
    for future in admin.create_topics([NewTopic(topic, 1, 1)]).values():
        future.result(30)
    sender = Sender({"bootstrap.servers": bootstrap, "enable.idempotence": True})
    for i in range(3):
        sender.send(topic, 0, b"tour %d" % i)
        sender.finish()
    reader = consumer(bootstrap)
    print(reader.offsets_for_times([TopicPartition(topic, 0, 1)], 30))
    reader.assign([TopicPartition(topic, 0, 0)])
    for message in itertools.islice(messages(reader), 3):
        epoch = message.leader_epoch()
    # A position with an epoch is validated against the leader before it is read from.
    reader.seek(TopicPartition(topic, 0, 1, leader_epoch=epoch))
    next(messages(reader))
    try:
        print(reader.committed([TopicPartition(topic, 0)], 3))
    except KafkaException as expected:
        # Finding the coordinator is what is wanted; groups themselves may not be there.
        print(expected)
    reader.close()
    for future in admin.delete_topics([topic]).values():
        future.result(30)


if __name__ == "__main__":
    {f.__name__: f for f in (produce, consume, load, tail, tour)}[sys.argv[1]](*sys.argv[2:])
