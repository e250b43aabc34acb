// Fills topics of Kafka 0.8 through the producer of that time: message format v0, which has no timestamps.
//
// `java Old.java HOST:PORT NULLS TOPIC=CODEC...` with codecs as that Kafka names them: none, gzip, snappy, lz4. NULLS is
// nulls or no-nulls: the producer of 0.8.0 fails on a null value. Each list of messages is one request, and one wrapper
// message if it is compressed. The topics come to be as they are written to, unless they are there.

import java.nio.charset.StandardCharsets;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.List;
import java.util.Properties;
import kafka.javaapi.producer.Producer;
import kafka.producer.KeyedMessage;
import kafka.producer.ProducerConfig;

public class Old {
    public static void main(String[] arguments) {
        boolean nulls = arguments[1].equals("nulls");
        for (String argument : Arrays.asList(arguments).subList(2, arguments.length)) {
            String[] topicAndCodec = argument.split("=");
            Producer<byte[], byte[]> producer = new Producer<>(config(arguments[0], topicAndCodec[1]));
            for (List<KeyedMessage<byte[], byte[]>> batch : batches(topicAndCodec[0], nulls)) {
                producer.send(batch);
            }
            producer.close();
        }
    }

    private static ProducerConfig config(String broker, String codec) {
        Properties config = new Properties();
        config.setProperty("metadata.broker.list", broker);
        config.setProperty("request.required.acks", "1");
        config.setProperty("serializer.class", "kafka.serializer.DefaultEncoder");
        config.setProperty("compression.codec", codec);
        config.setProperty("message.send.max.retries", "20");
        config.setProperty("retry.backoff.ms", "500");
        return new ProducerConfig(config);
    }

    private static List<List<KeyedMessage<byte[], byte[]>>> batches(String topic, boolean nulls) {
        List<List<KeyedMessage<byte[], byte[]>>> batches = new ArrayList<>();
        batches.add(Arrays.asList(message(topic, "k0", "alone")));
        // The log cleaner dies of a message that has no key.
        String none = topic.equals("compacted") ? "a key" : null;
        batches.add(Arrays.asList(
            message(topic, none, "no key"), message(topic, "", "empty key"), message(topic, "k1", ""),
            new KeyedMessage<>(topic, new byte[] {0, -1, 'b'}, new byte[] {-128, 0, 10})));
        for (int round = 0; round < 6; round++) {
            List<KeyedMessage<byte[], byte[]>> batch = new ArrayList<>();
            for (int i = 0; i < 5; i++) {
                batch.add(message(topic, "k" + i, "round " + round + " of the values, value " + i));
            }
            batches.add(batch);
        }
        batches.add(Arrays.asList(message(topic, "k2", nulls ? null : "no null"), message(topic, "k3", "the last")));
        return batches;
    }

    private static KeyedMessage<byte[], byte[]> message(String topic, String key, String value) {
        return new KeyedMessage<>(topic, bytes(key), bytes(value));
    }

    private static byte[] bytes(String text) {
        return text == null ? null : text.getBytes(StandardCharsets.UTF_8);
    }
}
