// Fills topics of a Kafka with KRaft through its own Java clients.
//
// `java Modern.java HOST:PORT VERB`. `first` and `second` fill one broker, which restarts in between; `killed`
// fills one that is killed then; `consume` prints `PARTITION OFFSET` of all that a read_committed consumer sees.
// The timestamps lie in November 2023: a jump of two hours begins a segment, since the topics have segment.ms of one.

import java.nio.charset.StandardCharsets;
import java.time.Duration;
import java.util.ArrayList;
import java.util.HashMap;
import java.util.List;
import java.util.Map;
import java.util.Properties;
import java.util.Set;
import org.apache.kafka.clients.admin.Admin;
import org.apache.kafka.clients.admin.NewTopic;
import org.apache.kafka.clients.admin.RecordsToDelete;
import org.apache.kafka.clients.consumer.ConsumerGroupMetadata;
import org.apache.kafka.clients.consumer.ConsumerRecord;
import org.apache.kafka.clients.consumer.KafkaConsumer;
import org.apache.kafka.clients.consumer.OffsetAndMetadata;
import org.apache.kafka.clients.producer.KafkaProducer;
import org.apache.kafka.clients.producer.ProducerRecord;
import org.apache.kafka.common.TopicPartition;
import org.apache.kafka.common.serialization.ByteArrayDeserializer;
import org.apache.kafka.common.serialization.ByteArraySerializer;
import org.apache.kafka.common.utils.AppInfoParser;

public class Modern {
    private static final long FIRST_MS = 1_700_000_000_000L;
    private static final long JUMP_MS = 7_200_000L;
    private static final Map<String, String> COMPACT =
        Map.of("cleanup.policy", "compact", "min.cleanable.dirty.ratio", "0.01");

    private final String broker;
    private final Admin admin;
    private long clock = FIRST_MS;

    private Modern(String broker) {
        this.broker = broker;
        this.admin = Admin.create(config());
    }

    public static void main(String[] arguments) throws Exception {
        Modern modern = new Modern(arguments[0]);
        switch (arguments[1]) {
            case "first" -> modern.first();
            case "second" -> modern.second();
            case "killed" -> modern.killed();
            case "consume" -> modern.consume();
            default -> throw new IllegalArgumentException(arguments[1]);
        }
        modern.admin.close();
    }

    private void first() throws Exception {
        for (String codec : List.of("none", "gzip", "snappy", "lz4", "zstd")) {
            String topic = codec.equals("none") ? "plain" : codec;
            create(topic, Map.of());
            fill(topic, Map.of("compression.type", codec, "enable.idempotence", "false"));
        }
        create("idempotent", Map.of());
        fill("idempotent", Map.of());
        create("append-time", Map.of("message.timestamp.type", "LogAppendTime"));
        fill("append-time", Map.of("compression.type", "gzip"));
        // Markers have the broker's time, by which no segment of the records' time ever ends.
        create("transactions", Map.of(segmentBytes(), "600"));
        transactions("transactions");
        create("compacted", COMPACT);
        compacted("compacted", "none");
        Map<String, String> compactSmall = new HashMap<>(COMPACT);
        compactSmall.put(segmentBytes(), "600");
        create("compacted-transactions", compactSmall);
        transactions("compacted-transactions");
    }

    private void second() throws Exception {
        clock = FIRST_MS + 100 * JUMP_MS;
        create("trimmed", Map.of());
        fill("trimmed", Map.of());
        admin.deleteRecords(Map.of(partition("trimmed"), RecordsToDelete.beforeOffset(18))).all().get();
        create("compacted-zstd", COMPACT);
        compacted("compacted-zstd", "zstd");
        // The leader epoch is another since the restart.
        try (Sender plain = new Sender("plain", Map.of())) {
            plain.send("k0", "after the restart");
        }
        group("shippers", Map.of());
        if (AppInfoParser.getVersion().startsWith("4.")) {
            group("new-protocol", Map.of("group.protocol", "consumer"));
        }
        admin.alterConsumerGroupOffsets("gone", Map.of(partition("plain"), new OffsetAndMetadata(7))).all().get();
        admin.deleteConsumerGroups(List.of("gone")).all().get();
    }

    private void killed() throws Exception {
        create("preallocated", Map.of("preallocate", "true", segmentBytes(), "2048"));
        fill("preallocated", Map.of());
        create("torn", Map.of());
        fill("torn", Map.of());
        create("open-transaction", Map.of());
        try (Sender ended = new Sender("open-transaction", Map.of("transactional.id", "ended"))) {
            ended.producer.initTransactions();
            ended.transaction("ended", 2, true);
        }
        Sender open = new Sender("open-transaction", Map.of("transactional.id", "open"));
        open.producer.initTransactions();
        open.producer.beginTransaction();
        open.send("open-0", "undecided");
        open.send("open-1", "undecided");
        open.producer.flush();
        // Without a goodbye, which would abort it.
    }

    /** The same records in every topic that has no plan of its own. */
    private void fill(String topic, Map<String, String> settings) {
        try (Sender sender = new Sender(topic, settings)) {
            sender.send("k0", "alone");
            sender.producer.flush();
            sender.send(null, "no key");
            sender.send("", "empty key");
            sender.send("k1", "");
            sender.send(record(topic, new byte[] {0, -1, 'b'}, new byte[] {-128, 0, 10}));
            sender.producer.flush();
            for (int round = 0; round < 6; round++) {
                clock += round % 2 == 0 ? 0 : JUMP_MS;
                for (int i = 0; i < 5; i++) {
                    sender.send("k" + i, "round " + round + " of the values, value " + i);
                }
                sender.producer.flush();
            }
            sender.send(headers(record(topic, bytes("k2"), null)));
            sender.send(headers(record(topic, bytes("k3"), bytes("headers"))));
            sender.producer.flush();
            sender.send("k4", "the last");
        }
    }

    /** Two producers' transactions, one in another; and a record of none. */
    private void transactions(String topic) throws Exception {
        try (Sender a = new Sender(topic, Map.of("transactional.id", topic + "-a"));
            Sender b = new Sender(topic, Map.of("transactional.id", topic + "-b", "compression.type", "lz4"));
            Sender none = new Sender(topic, Map.of())) {
            a.producer.initTransactions();
            b.producer.initTransactions();
            a.transaction("x", 3, true);
            a.transaction("y", 2, false);
            b.producer.beginTransaction();
            b.send("b-0", "around an aborted one");
            b.producer.flush();
            a.transaction("z", 2, false);
            none.send("n", "of no transaction");
            none.producer.flush();
            b.send("b-1", "around an aborted one");
            b.producer.commitTransaction();
            a.transaction("x", 2, false);
            a.transaction("x", 2, true);
            Map<TopicPartition, OffsetAndMetadata> offsets = Map.of(partition(topic), new OffsetAndMetadata(3));
            for (boolean commit : new boolean[] {false, true}) {
                a.producer.beginTransaction();
                a.send("with-offsets", commit ? "committed" : "aborted");
                a.producer.flush();
                a.producer.sendOffsetsToTransaction(offsets, new ConsumerGroupMetadata(topic + "-group"));
                if (commit) {
                    a.producer.commitTransaction();
                } else {
                    a.producer.abortTransaction();
                }
            }
        }
    }

    /** All of the first producer's records are replaced: an empty batch keeps its sequence numbers. */
    private void compacted(String topic, String codec) {
        for (String value : List.of("first", "second", "third")) {
            try (Sender sender = new Sender(topic, Map.of("compression.type", codec))) {
                for (int i = 0; i < 5; i++) {
                    sender.send("k" + i, value + " " + i);
                }
                sender.send("only in " + value, value);
            }
            clock += value.equals("second") ? 0 : JUMP_MS;
        }
        try (Sender sender = new Sender(topic, Map.of("compression.type", codec))) {
            sender.send("k1", null);
            sender.send("only in first", null);
            sender.producer.flush();
            clock += JUMP_MS;
            sender.send("k0", "in the active segment");
            sender.send("k2", null);
        }
    }

    private void group(String group, Map<String, String> settings) {
        Properties config = consumerConfig();
        config.put("group.id", group);
        config.putAll(settings);
        try (KafkaConsumer<byte[], byte[]> consumer = new KafkaConsumer<>(config)) {
            consumer.subscribe(Set.of("plain", "gzip"));
            int read = 0;
            while (read < 30) {
                read += consumer.poll(Duration.ofMillis(200)).count();
            }
            consumer.commitSync(Map.of(
                partition("plain"), new OffsetAndMetadata(11, "a note"), partition("gzip"), new OffsetAndMetadata(12)));
        }
    }

    private void consume() throws Exception {
        Properties config = consumerConfig();
        config.put("isolation.level", "read_committed");
        List<TopicPartition> partitions = new ArrayList<>();
        for (String topic : admin.listTopics().names().get()) {
            if (!topic.startsWith("__")) {
                partitions.add(partition(topic));
            }
        }
        try (KafkaConsumer<byte[], byte[]> consumer = new KafkaConsumer<>(config)) {
            consumer.assign(partitions);
            Map<TopicPartition, Long> ends = consumer.endOffsets(partitions);
            while (partitions.stream().anyMatch(one -> consumer.position(one) < ends.get(one))) {
                for (ConsumerRecord<byte[], byte[]> record : consumer.poll(Duration.ofMillis(200))) {
                    System.out.println(record.topic() + "-0 " + record.offset());
                }
            }
        }
    }

    /** The setting for segments of less than 1 MiB, which Kafka 4 keeps for its own tests. */
    private static String segmentBytes() {
        return AppInfoParser.getVersion().startsWith("4.") ? "internal.segment.bytes" : "segment.bytes";
    }

    private void create(String topic, Map<String, String> settings) throws Exception {
        admin.createTopics(List.of(new NewTopic(topic, 1, (short) 1).configs(settings))).all().get();
    }

    private Properties config() {
        Properties config = new Properties();
        config.put("bootstrap.servers", broker);
        return config;
    }

    private Properties consumerConfig() {
        Properties config = config();
        config.put("auto.offset.reset", "earliest");
        config.put("enable.auto.commit", "false");
        config.put("key.deserializer", ByteArrayDeserializer.class);
        config.put("value.deserializer", ByteArrayDeserializer.class);
        return config;
    }

    // Neighbours are out of order: only the largest timestamp of a batch is in its header.
    private ProducerRecord<byte[], byte[]> record(String topic, byte[] key, byte[] value) {
        clock += 10;
        return new ProducerRecord<>(topic, 0, clock - (clock % 30 == 0 ? 15 : 0), key, value);
    }

    private static ProducerRecord<byte[], byte[]> headers(ProducerRecord<byte[], byte[]> record) {
        record.headers().add("trace", bytes("1")).add("trace", bytes("2"));
        record.headers().add("null", null).add("", new byte[0]).add("bytes", new byte[] {0, -1});
        return record;
    }

    private static TopicPartition partition(String topic) {
        return new TopicPartition(topic, 0);
    }

    private static byte[] bytes(String text) {
        return text == null ? null : text.getBytes(StandardCharsets.UTF_8);
    }

    /** A producer to one topic; what is sent between two flushes is one batch. */
    private final class Sender implements AutoCloseable {
        private final String topic;
        private final KafkaProducer<byte[], byte[]> producer;

        private Sender(String topic, Map<String, String> settings) {
            Properties config = config();
            config.put("linger.ms", "60000");
            config.putAll(settings);
            this.topic = topic;
            this.producer = new KafkaProducer<>(config, new ByteArraySerializer(), new ByteArraySerializer());
        }

        private void send(String key, String value) {
            send(record(topic, bytes(key), bytes(value)));
        }

        private void send(ProducerRecord<byte[], byte[]> record) {
            producer.send(record);
        }

        private void transaction(String key, int records, boolean commit) {
            producer.beginTransaction();
            for (int i = 0; i < records; i++) {
                send(key + "-" + i, commit ? "committed" : "aborted");
            }
            if (commit) {
                producer.commitTransaction();
            } else {
                // What was not sent yet would never be.
                producer.flush();
                producer.abortTransaction();
            }
        }

        @Override
        public void close() {
            producer.close();
        }
    }
}
