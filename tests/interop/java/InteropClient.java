// The Java client as the interop tests drive it: Kafka's own defaults but for what a command names.
//
//   produce BOOTSTRAP CODEC TOPIC FILE...      line by line, the nth file into the nth partition
//   consume BOOTSTRAP TOPIC DIRECTORY          every partition from its beginning into DIRECTORY/<partition>,
//                                              as lines of "<offset> <value>"
//   load BOOTSTRAP TOPIC                       numbered records until stdin ends, then the record "end"
//   tail BOOTSTRAP TOPIC FILE                  partition 0 into FILE up to the record "end"
//   tour BOOTSTRAP TOPIC                       each API once: create, produce, list, fetch, find, validate, delete

import java.io.BufferedInputStream;
import java.io.BufferedOutputStream;
import java.io.ByteArrayOutputStream;
import java.io.InputStream;
import java.io.OutputStream;
import java.nio.charset.StandardCharsets;
import java.nio.file.Files;
import java.nio.file.Path;
import java.time.Duration;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.HashMap;
import java.util.List;
import java.util.Map;
import java.util.Optional;
import java.util.Set;
import java.util.concurrent.atomic.AtomicLong;
import java.util.concurrent.atomic.AtomicReference;
import org.apache.kafka.clients.admin.Admin;
import org.apache.kafka.clients.admin.NewTopic;
import org.apache.kafka.clients.consumer.ConsumerRecord;
import org.apache.kafka.clients.consumer.KafkaConsumer;
import org.apache.kafka.clients.consumer.OffsetAndMetadata;
import org.apache.kafka.clients.producer.KafkaProducer;
import org.apache.kafka.clients.producer.ProducerRecord;
import org.apache.kafka.common.KafkaException;
import org.apache.kafka.common.PartitionInfo;
import org.apache.kafka.common.TopicPartition;
import org.apache.kafka.common.serialization.ByteArrayDeserializer;
import org.apache.kafka.common.serialization.ByteArraySerializer;

public class InteropClient {
    static final Duration POLL = Duration.ofMillis(200);

    public static void main(String[] args) throws Exception {
        String bootstrap = args[1];
        switch (args[0]) {
            case "produce" -> produce(bootstrap, args[2], args[3], Arrays.asList(args).subList(4, args.length));
            case "consume" -> consume(bootstrap, args[2], Path.of(args[3]));
            case "load" -> load(bootstrap, args[2]);
            case "tail" -> tail(bootstrap, args[2], Path.of(args[3]));
            case "tour" -> tour(bootstrap, args[2]);
            default -> throw new IllegalArgumentException(args[0]);
        }
    }

    static KafkaProducer<byte[], byte[]> producer(String bootstrap, Map<String, Object> settings) {
        Map<String, Object> all = new HashMap<>(settings);
        all.put("bootstrap.servers", bootstrap);
        return new KafkaProducer<>(all, new ByteArraySerializer(), new ByteArraySerializer());
    }

    static KafkaConsumer<byte[], byte[]> consumer(String bootstrap, Map<String, Object> settings) {
        Map<String, Object> all = new HashMap<>(settings);
        all.put("bootstrap.servers", bootstrap);
        all.put("enable.auto.commit", false);
        return new KafkaConsumer<>(all, new ByteArrayDeserializer(), new ByteArrayDeserializer());
    }

    static void produce(String bootstrap, String codec, String topic, List<String> files) throws Exception {
        AtomicReference<Exception> failure = new AtomicReference<>();
        List<InputStream> inputs = new ArrayList<>();
        for (String file : files) {
            inputs.add(new BufferedInputStream(Files.newInputStream(Path.of(file)), 1 << 16));
        }
        try (KafkaProducer<byte[], byte[]> producer = producer(bootstrap, Map.of("compression.type", codec))) {
            // The partitions take turns, as keyed records would.
            for (int open = inputs.size(); open > 0; ) {
                open = 0;
                for (int partition = 0; partition < inputs.size(); partition++) {
                    byte[] line = readLine(inputs.get(partition));
                    if (line != null) {
                        open++;
                        producer.send(new ProducerRecord<>(topic, partition, null, line), (metadata, error) -> {
                            if (error != null) {
                                failure.compareAndSet(null, error);
                            }
                        });
                    }
                }
            }
        }
        if (failure.get() != null) {
            throw failure.get();
        }
    }

    static byte[] readLine(InputStream input) throws Exception {
        ByteArrayOutputStream line = new ByteArrayOutputStream(256);
        for (int octet = input.read(); octet != '\n'; octet = input.read()) {
            if (octet < 0) {
                return null;
            }
            line.write(octet);
        }
        return line.toByteArray();
    }

    static void consume(String bootstrap, String topic, Path directory) throws Exception {
        try (KafkaConsumer<byte[], byte[]> consumer = consumer(bootstrap, Map.of())) {
            List<TopicPartition> partitions = new ArrayList<>();
            Map<Integer, OutputStream> outputs = new HashMap<>();
            for (PartitionInfo info : consumer.partitionsFor(topic)) {
                partitions.add(new TopicPartition(topic, info.partition()));
                Path path = directory.resolve(Integer.toString(info.partition()));
                outputs.put(info.partition(), new BufferedOutputStream(Files.newOutputStream(path), 1 << 16));
            }
            consumer.assign(partitions);
            consumer.seekToBeginning(partitions);
            Map<TopicPartition, Long> ends = consumer.endOffsets(partitions);
            while (partitions.stream().anyMatch(partition -> consumer.position(partition) < ends.get(partition))) {
                for (ConsumerRecord<byte[], byte[]> record : consumer.poll(POLL)) {
                    OutputStream output = outputs.get(record.partition());
                    output.write((record.offset() + " ").getBytes(StandardCharsets.US_ASCII));
                    output.write(record.value());
                    output.write('\n');
                }
            }
            for (OutputStream output : outputs.values()) {
                output.close();
            }
        }
    }

    static void load(String bootstrap, String topic) throws Exception {
        AtomicLong acknowledged = new AtomicLong();
        AtomicReference<Exception> failure = new AtomicReference<>();
        try (KafkaProducer<byte[], byte[]> producer = producer(bootstrap, Map.of())) {
            long sent = 0;
            // The test closes stdin; until then nothing is written to it.
            while (failure.get() == null && !stdinEnded()) {
                for (int i = 0; i < 20; i++, sent++) {
                    send(producer, topic, Long.toString(sent), acknowledged, failure);
                }
                Thread.sleep(2);
                System.out.println(acknowledged.get());
            }
            send(producer, topic, "end", acknowledged, failure);
            producer.flush();
            if (failure.get() != null) {
                throw failure.get();
            }
            System.out.println("sent " + sent);
        }
    }

    static void send(
            KafkaProducer<byte[], byte[]> producer,
            String topic,
            String value,
            AtomicLong acknowledged,
            AtomicReference<Exception> failure) {
        byte[] bytes = value.getBytes(StandardCharsets.US_ASCII);
        producer.send(new ProducerRecord<>(topic, 0, null, bytes), (metadata, error) -> {
            acknowledged.incrementAndGet();
            if (error != null) {
                failure.compareAndSet(null, error);
            }
        });
    }

    static final AtomicReference<Thread> STDIN = new AtomicReference<>();

    static boolean stdinEnded() {
        if (STDIN.get() == null) {
            Thread thread = new Thread(() -> {
                try {
                    while (System.in.read() >= 0) {}
                } catch (java.io.IOException gone) {
                    // As good as an end.
                }
            });
            thread.setDaemon(true);
            thread.start();
            STDIN.set(thread);
        }
        return !STDIN.get().isAlive();
    }

    static void tail(String bootstrap, String topic, Path file) throws Exception {
        try (KafkaConsumer<byte[], byte[]> consumer = consumer(bootstrap, Map.of("auto.offset.reset", "none"));
                OutputStream output = new BufferedOutputStream(Files.newOutputStream(file))) {
            TopicPartition partition = new TopicPartition(topic, 0);
            consumer.assign(List.of(partition));
            consumer.seek(partition, 0);
            while (true) {
                for (ConsumerRecord<byte[], byte[]> record : consumer.poll(POLL)) {
                    output.write(record.value());
                    output.write('\n');
                    if (new String(record.value(), StandardCharsets.US_ASCII).equals("end")) {
                        return;
                    }
                }
            }
        }
    }

    static void tour(String bootstrap, String topic) throws Exception {
        TopicPartition partition = new TopicPartition(topic, 0);
        try (Admin admin = Admin.create(Map.of("bootstrap.servers", bootstrap))) {
            admin.createTopics(List.of(new NewTopic(topic, 1, (short) 1))).all().get();
            try (KafkaProducer<byte[], byte[]> producer = producer(bootstrap, Map.of())) {
                for (int i = 0; i < 3; i++) {
                    producer.send(new ProducerRecord<>(topic, 0, null, ("tour " + i).getBytes())).get();
                }
            }
            Map<String, Object> settings = Map.of("group.id", "tour", "default.api.timeout.ms", 3000);
            try (KafkaConsumer<byte[], byte[]> consumer = consumer(bootstrap, settings)) {
                consumer.assign(List.of(partition));
                System.out.println(consumer.offsetsForTimes(Map.of(partition, 1L)));
                consumer.seek(partition, 0);
                Optional<Integer> epoch = Optional.empty();
                for (int seen = 0; seen < 3; ) {
                    for (ConsumerRecord<byte[], byte[]> record : consumer.poll(POLL)) {
                        seen++;
                        epoch = record.leaderEpoch();
                    }
                }
                // A position with an epoch is validated against the leader before it is read from.
                consumer.seek(partition, new OffsetAndMetadata(1, epoch, ""));
                while (consumer.poll(POLL).isEmpty()) {}
                try {
                    System.out.println(consumer.committed(Set.of(partition)));
                } catch (KafkaException expected) {
                    // Finding the coordinator is what is wanted; groups themselves may not be there.
                    System.out.println(expected);
                }
            }
            admin.deleteTopics(List.of(topic)).all().get();
        }
    }
}
