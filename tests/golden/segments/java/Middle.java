// Fills topics of Kafka 0.10 and 0.11 through the Java producer: the message format is the topic's.
//
// `java Middle.java HOST:PORT TOPIC=CODEC...` with codecs as Kafka names them. Each flush sends one request, and one
// wrapper message or batch if it is compressed. The timestamps lie in November 2023, with a gap of a day in the middle.

import java.nio.charset.StandardCharsets;
import java.util.Arrays;
import java.util.Properties;
import org.apache.kafka.clients.producer.KafkaProducer;
import org.apache.kafka.clients.producer.ProducerRecord;
import org.apache.kafka.common.serialization.ByteArraySerializer;

public class Middle {
    private static final long FIRST_MS = 1_700_000_000_000L;
    private static final long DAY_MS = 86_400_000L;

    private final KafkaProducer<byte[], byte[]> producer;
    private final String topic;
    private long sent;

    private Middle(String broker, String topic, String codec) {
        Properties config = new Properties();
        config.setProperty("bootstrap.servers", broker);
        config.setProperty("acks", "all");
        config.setProperty("compression.type", codec);
        config.setProperty("linger.ms", "60000");
        this.producer = new KafkaProducer<>(config, new ByteArraySerializer(), new ByteArraySerializer());
        this.topic = topic;
    }

    public static void main(String[] arguments) {
        for (String argument : Arrays.asList(arguments).subList(1, arguments.length)) {
            String[] topicAndCodec = argument.split("=");
            Middle middle = new Middle(arguments[0], topicAndCodec[0], topicAndCodec[1]);
            middle.fill();
            middle.producer.close();
        }
    }

    private void fill() {
        send("k0", "alone");
        producer.flush();
        // A compacted topic takes no record without a key.
        send(topic.equals("compacted") ? "a key" : null, "no key");
        send("", "empty key");
        send("k1", "");
        send(new byte[] {0, -1, 'b'}, new byte[] {-128, 0, 10});
        producer.flush();
        for (int round = 0; round < 6; round++) {
            for (int i = 0; i < 5; i++) {
                send("k" + i, "round " + round + " of the values, value " + i);
            }
            producer.flush();
        }
        send("k2", null);
        send("k3", "the last");
        producer.flush();
    }

    private void send(String key, String value) {
        send(bytes(key), bytes(value));
    }

    // Within a request every third timestamp is before its neighbours: only the largest counts for the wrapper.
    private void send(byte[] key, byte[] value) {
        long gap = sent < 20 ? 0 : DAY_MS;
        long timestamp = FIRST_MS + sent * 10 + gap - (sent % 3 == 1 ? 15 : 0);
        producer.send(new ProducerRecord<>(topic, 0, timestamp, key, value));
        sent++;
    }

    private static byte[] bytes(String text) {
        return text == null ? null : text.getBytes(StandardCharsets.UTF_8);
    }
}
