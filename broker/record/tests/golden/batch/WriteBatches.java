// Writes the golden batches beside this file with Kafka's own client, into the directory that is named.
//
// Made with org.apache.kafka:kafka-clients:4.1.0 and what it depends on:
//   java -cp 'lib/*' WriteBatches.java tests/golden/batch

import java.nio.ByteBuffer;
import java.nio.charset.StandardCharsets;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.List;
import org.apache.kafka.common.compress.Compression;
import org.apache.kafka.common.header.Header;
import org.apache.kafka.common.header.internals.RecordHeader;
import org.apache.kafka.common.record.CompressionType;
import org.apache.kafka.common.record.MemoryRecords;
import org.apache.kafka.common.record.MemoryRecordsBuilder;
import org.apache.kafka.common.record.RecordBatch;
import org.apache.kafka.common.record.SimpleRecord;
import org.apache.kafka.common.record.TimestampType;

public class WriteBatches {
    static final long TIME = 1_700_000_000_000L;

    static byte[] utf8(String text) {
        return text.getBytes(StandardCharsets.UTF_8);
    }

    static List<SimpleRecord> smallRecords() {
        Header[] headers = {
            new RecordHeader("h", utf8("1")),
            new RecordHeader("h", utf8("2")),
            new RecordHeader("h", (byte[]) null),
            new RecordHeader("schlüssel", new byte[] {(byte) 0xff, 0}),
        };
        Header[] empty = {new RecordHeader("", new byte[0])};
        List<SimpleRecord> records = new ArrayList<>();
        records.add(new SimpleRecord(TIME, utf8("key"), utf8("value"), headers));
        // Before the base timestamp, and a tombstone without a key.
        records.add(new SimpleRecord(TIME - 1000, (byte[]) null, (byte[]) null));
        records.add(new SimpleRecord(TIME + 5000, new byte[0], new byte[0], empty));
        return records;
    }

    // More than one block of any codec.
    static SimpleRecord largeRecord() {
        StringBuilder text = new StringBuilder();
        for (int line = 0; line < 2_000; line++) {
            text.append(String.format("line %04d of a log that says the same in every line%n", line));
        }
        return new SimpleRecord(TIME + 1000, null, utf8(text.toString()));
    }

    static void write(Path directory, String name, CompressionType type, TimestampType clock, boolean transactional)
            throws Exception {
        MemoryRecordsBuilder builder = new MemoryRecordsBuilder(
            ByteBuffer.allocate(1024), RecordBatch.MAGIC_VALUE_V2, Compression.of(type).build(), clock,
            1000L, TIME + 60_000, 4000L, (short) 2, 17, transactional, false, 7, Integer.MAX_VALUE);
        for (SimpleRecord record : smallRecords()) {
            builder.append(record);
        }
        if (type != CompressionType.NONE) {
            builder.append(largeRecord());
        }
        MemoryRecords records = builder.build();
        StringBuilder hex = new StringBuilder();
        ByteBuffer bytes = records.buffer();
        for (int at = 0; bytes.hasRemaining(); at++) {
            hex.append(String.format("%02x", bytes.get())).append(at % 50 == 49 ? "\n" : "");
        }
        Files.writeString(directory.resolve(name + ".hex"), hex.toString().stripTrailing() + "\n");
    }

    public static void main(String[] arguments) throws Exception {
        Path directory = Path.of(arguments[0]);
        for (CompressionType type : CompressionType.values()) {
            write(directory, type.name, type, TimestampType.CREATE_TIME, false);
        }
        write(directory, "none_log_append_time", CompressionType.NONE, TimestampType.LOG_APPEND_TIME, false);
        write(directory, "none_transactional", CompressionType.NONE, TimestampType.CREATE_TIME, true);
    }
}
