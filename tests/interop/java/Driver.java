// Kafka's Java client as one of the drivers of the client matrix (../README.md has the verbs and their lines):
//
//   Driver version | produce | consume | group | idempotent | admin BOOTSTRAP key=value...
//
// What a verb does not name stays at the client's default. Nothing of the contract is left out. The steps of `admin`
// are in DriverAdmin.java.

import com.fasterxml.jackson.databind.JsonNode;
import com.fasterxml.jackson.databind.ObjectMapper;
import com.fasterxml.jackson.databind.node.ArrayNode;
import com.fasterxml.jackson.databind.node.ObjectNode;
import java.io.IOException;
import java.io.PrintStream;
import java.nio.charset.StandardCharsets;
import java.nio.file.Files;
import java.nio.file.Path;
import java.time.Duration;
import java.util.ArrayList;
import java.util.Collection;
import java.util.Comparator;
import java.util.HashMap;
import java.util.List;
import java.util.Map;
import java.util.Set;
import java.util.concurrent.Future;
import java.util.concurrent.atomic.AtomicReference;
import java.util.stream.IntStream;
import org.apache.kafka.clients.consumer.CommitFailedException;
import org.apache.kafka.clients.consumer.ConsumerRebalanceListener;
import org.apache.kafka.clients.consumer.ConsumerRecord;
import org.apache.kafka.clients.consumer.ConsumerRecords;
import org.apache.kafka.clients.consumer.CooperativeStickyAssignor;
import org.apache.kafka.clients.consumer.KafkaConsumer;
import org.apache.kafka.clients.consumer.OffsetAndMetadata;
import org.apache.kafka.clients.consumer.OffsetAndTimestamp;
import org.apache.kafka.clients.consumer.RangeAssignor;
import org.apache.kafka.clients.producer.KafkaProducer;
import org.apache.kafka.clients.producer.ProducerRecord;
import org.apache.kafka.clients.producer.RecordMetadata;
import org.apache.kafka.common.TopicPartition;
import org.apache.kafka.common.errors.RebalanceInProgressException;
import org.apache.kafka.common.header.Header;
import org.apache.kafka.common.serialization.ByteArrayDeserializer;
import org.apache.kafka.common.serialization.ByteArraySerializer;
import org.apache.kafka.common.utils.AppInfoParser;

public final class Driver {
    static final ObjectMapper JSON = new ObjectMapper();
    static final Duration POLL = Duration.ofMillis(200);
    /** One write for each line, so that whoever reads has all that was printed before a kill. */
    static final PrintStream OUT = System.out;

    public static void main(String[] args) {
        Map<String, String> options = new HashMap<>();
        for (String argument : List.of(args).subList(2, args.length)) {
            int at = argument.indexOf('=');
            options.put(argument.substring(0, at), argument.substring(at + 1));
        }
        try {
            run(args[0], args[1], options);
        } catch (Exception problem) {
            System.err.println(args[0] + " failed: " + problem);
            problem.printStackTrace();
            System.exit(1);
        }
        System.exit(0);
    }

    static void run(String verb, String bootstrap, Map<String, String> options) throws Exception {
        switch (verb) {
            case "version" -> print(JSON.createObjectNode()
                    .put("client", "kafka-clients (Java)")
                    .put("version", AppInfoParser.getVersion()));
            case "produce" -> produce(bootstrap, options);
            case "consume" -> consume(bootstrap, options);
            case "group" -> new Member(options).run(bootstrap);
            case "idempotent" -> idempotent(bootstrap, options);
            case "admin" -> new DriverAdmin(bootstrap, options.get("topic")).run();
            default -> throw new IllegalArgumentException("there is no verb " + verb);
        }
    }

    static void print(JsonNode line) {
        byte[] bytes = (line.toString() + "\n").getBytes(StandardCharsets.UTF_8);
        OUT.write(bytes, 0, bytes.length);
        OUT.flush();
    }

    static KafkaProducer<byte[], byte[]> producer(String bootstrap, Map<String, Object> settings) {
        Map<String, Object> all = new HashMap<>(settings);
        all.put("bootstrap.servers", bootstrap);
        return new KafkaProducer<>(all, new ByteArraySerializer(), new ByteArraySerializer());
    }

    static KafkaConsumer<byte[], byte[]> consumer(String bootstrap, Map<String, Object> settings) {
        Map<String, Object> all = new HashMap<>(settings);
        all.put("bootstrap.servers", bootstrap);
        return new KafkaConsumer<>(all, new ByteArrayDeserializer(), new ByteArrayDeserializer());
    }

    static void produce(String bootstrap, Map<String, String> options) throws Exception {
        // The default limits a request to the bytes of the largest value that is sent here, without its key.
        Map<String, Object> settings =
                Map.of("compression.type", options.get("codec"), "max.request.size", 4 << 20);
        List<Future<RecordMetadata>> acks = new ArrayList<>();
        try (KafkaProducer<byte[], byte[]> producer = producer(bootstrap, settings);
                var lines = Files.lines(Path.of(options.get("file")))) {
            for (String line : (Iterable<String>) lines::iterator) {
                acks.add(producer.send(record(options.get("topic"), JSON.readTree(line))));
            }
            for (Future<RecordMetadata> ack : acks) {
                RecordMetadata metadata = ack.get();
                print(JSON.createObjectNode()
                        .put("partition", metadata.partition())
                        .put("offset", metadata.offset()));
            }
        }
    }

    static ProducerRecord<byte[], byte[]> record(String topic, JsonNode line) throws IOException {
        JsonNode time = line.get("timestamp");
        Long timestamp = time == null ? null : Long.valueOf(time.asLong());
        int partition = line.get("partition").asInt();
        ProducerRecord<byte[], byte[]> record =
                new ProducerRecord<>(topic, partition, timestamp, bytes(line, "key"), bytes(line, "value"));
        if (line.has("headers")) {
            for (JsonNode header : line.get("headers")) {
                record.headers().add(header.get(0).asText(), header.get(1).binaryValue());
            }
        }
        return record;
    }

    static byte[] bytes(JsonNode line, String name) throws IOException {
        JsonNode value = line.get(name);
        return value == null || value.isNull() ? null : value.binaryValue();
    }

    static ObjectNode line(ConsumerRecord<byte[], byte[]> record) {
        ObjectNode line = JSON.createObjectNode()
                .put("partition", record.partition())
                .put("offset", record.offset())
                .put("timestamp", record.timestamp());
        line.put("key", record.key()).put("value", record.value());
        ArrayNode headers = line.putArray("headers");
        for (Header header : record.headers()) {
            headers.addArray().add(header.key()).add(header.value());
        }
        return line;
    }

    static void consume(String bootstrap, Map<String, String> options) {
        List<TopicPartition> partitions = IntStream.range(0, Integer.parseInt(options.get("partitions")))
                .mapToObj(partition -> new TopicPartition(options.get("topic"), partition))
                .toList();
        Map<String, Object> settings = new HashMap<>();
        if (options.containsKey("fetch_bytes")) {
            settings.put("max.partition.fetch.bytes", options.get("fetch_bytes"));
        }
        try (KafkaConsumer<byte[], byte[]> consumer = consumer(bootstrap, settings)) {
            consumer.assign(partitions);
            Map<TopicPartition, Long> ends = consumer.endOffsets(partitions);
            seek(consumer, partitions, ends, options.get("from"));
            // A position moves past control records as well, which are not printed.
            while (ends.entrySet().stream().anyMatch(end -> consumer.position(end.getKey()) < end.getValue())) {
                for (ConsumerRecord<byte[], byte[]> record : consumer.poll(POLL)) {
                    if (record.offset() < ends.get(new TopicPartition(record.topic(), record.partition()))) {
                        print(line(record));
                    }
                }
            }
        }
    }

    static void seek(
            KafkaConsumer<byte[], byte[]> consumer,
            List<TopicPartition> partitions,
            Map<TopicPartition, Long> ends,
            String from) {
        if (from.equals("beginning")) {
            consumer.seekToBeginning(partitions);
            return;
        }
        long number = Long.parseLong(from.substring(from.indexOf(':') + 1));
        if (from.startsWith("offset:")) {
            partitions.forEach(partition -> consumer.seek(partition, number));
            return;
        }
        Map<TopicPartition, Long> times = new HashMap<>();
        partitions.forEach(partition -> times.put(partition, number));
        for (Map.Entry<TopicPartition, OffsetAndTimestamp> found : consumer.offsetsForTimes(times).entrySet()) {
            TopicPartition partition = found.getKey();
            consumer.seek(partition, found.getValue() == null ? ends.get(partition) : found.getValue().offset());
        }
    }

    static void idempotent(String bootstrap, Map<String, String> options) throws Exception {
        int count = Integer.parseInt(options.get("count"));
        AtomicReference<Exception> failure = new AtomicReference<>();
        // Idempotence and endless retries are the defaults; their time is what is short.
        Map<String, Object> settings = Map.of("delivery.timeout.ms", 170_000);
        try (KafkaProducer<byte[], byte[]> producer = producer(bootstrap, settings)) {
            for (int i = 0; i < count; i++) {
                byte[] value = Integer.toString(i).getBytes(StandardCharsets.US_ASCII);
                int number = i;
                producer.send(new ProducerRecord<>(options.get("topic"), 0, null, value), (metadata, error) -> {
                    if (error == null) {
                        print(JSON.createObjectNode().put("acked", number));
                    } else {
                        failure.compareAndSet(null, error);
                    }
                });
            }
            producer.flush();
        }
        if (failure.get() != null) {
            throw failure.get();
        }
    }

    /** A member of a group, until it has its records or the standard input ends. */
    private static final class Member implements ConsumerRebalanceListener {
        private final Map<String, String> options;
        /** What was printed and is not committed. */
        private final Map<TopicPartition, OffsetAndMetadata> pending = new HashMap<>();
        private KafkaConsumer<byte[], byte[]> consumer;

        Member(Map<String, String> options) {
            this.options = options;
        }

        void run(String bootstrap) throws Exception {
            long until = Long.parseLong(options.getOrDefault("until", Long.toString(Long.MAX_VALUE)));
            long pause = Long.parseLong(options.getOrDefault("pause_ms", "0"));
            Thread input = watchInput();
            consumer = consumer(bootstrap, settings());
            try (KafkaConsumer<byte[], byte[]> closing = consumer) {
                consumer.subscribe(List.of(options.get("topic")), this);
                for (long seen = 0; seen < until && input.isAlive(); ) {
                    ConsumerRecords<byte[], byte[]> records = consumer.poll(POLL);
                    for (ConsumerRecord<byte[], byte[]> record : records) {
                        print(JSON.createObjectNode()
                                .put("partition", record.partition())
                                .put("offset", record.offset())
                                .put("value", record.value()));
                    }
                    seen += records.count();
                    Thread.sleep(records.isEmpty() ? 0 : pause);
                    pending.putAll(records.nextOffsets());
                    commit();
                }
            }
        }

        private Map<String, Object> settings() {
            int session = Integer.parseInt(options.getOrDefault("session_ms", "6000"));
            Map<String, Object> settings = new HashMap<>();
            settings.put("group.id", options.get("group"));
            settings.put("auto.offset.reset", "earliest");
            settings.put("enable.auto.commit", false);
            settings.put("session.timeout.ms", session);
            settings.put("heartbeat.interval.ms", session / 3);
            if (options.containsKey("instance")) {
                settings.put("group.instance.id", options.get("instance"));
            }
            if (options.containsKey("strategy")) {
                boolean cooperative = options.get("strategy").equals("cooperative");
                Class<?> assignor = cooperative ? CooperativeStickyAssignor.class : RangeAssignor.class;
                settings.put("partition.assignment.strategy", List.of(assignor));
            }
            return settings;
        }

        private void commit() {
            if (pending.isEmpty()) {
                return;
            }
            try {
                consumer.commitSync(Map.copyOf(pending));
            } catch (RebalanceInProgressException later) {
                // The rebalance ends in a poll: what stays with this member is committed after it.
                return;
            } catch (CommitFailedException gone) {
                // The group went on without this member; others read again what was not committed.
                pending.clear();
                return;
            }
            ObjectNode line = JSON.createObjectNode();
            ObjectNode committed = line.putObject("committed");
            pending.forEach((partition, offset) ->
                    committed.put(Integer.toString(partition.partition()), offset.offset()));
            print(line);
            pending.clear();
        }

        @Override
        public void onPartitionsAssigned(Collection<TopicPartition> added) {
            print(partitions("assigned", consumer.assignment()));
        }

        @Override
        public void onPartitionsRevoked(Collection<TopicPartition> revoked) {
            commit();
            pending.keySet().removeAll(revoked);
            print(partitions("revoked", revoked));
        }

        @Override
        public void onPartitionsLost(Collection<TopicPartition> lost) {
            pending.keySet().removeAll(lost);
            print(partitions("revoked", lost));
        }

        private static ObjectNode partitions(String name, Collection<TopicPartition> partitions) {
            ObjectNode line = JSON.createObjectNode();
            ArrayNode numbers = line.putArray(name);
            Set.copyOf(partitions).stream()
                    .map(TopicPartition::partition)
                    .sorted(Comparator.naturalOrder())
                    .forEach(numbers::add);
            return line;
        }

        /** A thread that lives until the standard input ends. */
        private static Thread watchInput() {
            Thread thread = new Thread(() -> {
                try {
                    while (System.in.read() >= 0) {}
                } catch (IOException gone) {
                    // As good as an end.
                }
            });
            thread.setDaemon(true);
            thread.start();
            return thread;
        }
    }
}
