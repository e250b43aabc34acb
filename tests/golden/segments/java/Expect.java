// Prints what Kafka's own record classes find in the segment files of partitions: the ground that our tools are held to.
//
// `java Expect.java FOLDER` prints one line of JSON for each record of each partition directory below the folder, as
// `kafka-dump-log --deep-iteration` goes through them: it fails if that prints other offsets or timestamps. Keys and
// values are {"utf8":"text"}, {"b64":"base64"} or null. A record of a transaction says how that ended; a control record
// says what it is. A file ends where a batch is cut short, or where the zeros of its preallocation begin.

import java.io.ByteArrayOutputStream;
import java.io.File;
import java.io.IOException;
import java.io.PrintStream;
import java.nio.ByteBuffer;
import java.nio.charset.CharacterCodingException;
import java.nio.charset.StandardCharsets;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.Base64;
import java.util.HashMap;
import java.util.List;
import java.util.Map;
import java.util.regex.Matcher;
import java.util.regex.Pattern;
import kafka.tools.DumpLogSegments;
import org.apache.kafka.common.errors.CorruptRecordException;
import org.apache.kafka.common.header.Header;
import org.apache.kafka.common.record.ControlRecordType;
import org.apache.kafka.common.record.FileRecords;
import org.apache.kafka.common.record.Record;
import org.apache.kafka.common.record.RecordBatch;
import org.apache.kafka.common.record.TimestampType;

public class Expect {
    private static final Pattern DUMPED = Pattern.compile("^\\| offset: (\\d+) \\w+: (-?\\d+) ");

    public static void main(String[] arguments) throws IOException {
        for (File partition : sorted(new File(arguments[0]), "")) {
            if (partition.isDirectory() && new Expect(partition).print() == 0) {
                throw new IllegalStateException(partition + " has no records");
            }
        }
    }

    private final File partition;
    /** By producer: the markers that ended its transactions, as {offset, 1 if it was a commit}, in order. */
    private final Map<Long, List<long[]>> markers = new HashMap<>();

    private Expect(File partition) {
        this.partition = partition;
    }

    /** Returns how many records there are. */
    private int print() throws IOException {
        for (File log : sorted(partition, ".log")) {
            for (RecordBatch batch : batches(log)) {
                if (batch.isControlBatch()) {
                    Record marker = batch.iterator().next();
                    boolean commit = ControlRecordType.parse(marker.key()) == ControlRecordType.COMMIT;
                    markers.computeIfAbsent(batch.producerId(), producer -> new ArrayList<>())
                        .add(new long[] {marker.offset(), commit ? 1 : 0});
                }
            }
        }
        int count = 0;
        for (File log : sorted(partition, ".log")) {
            List<String> found = new ArrayList<>();
            for (RecordBatch batch : batches(log)) {
                batch.ensureValid();
                for (Record record : batch) {
                    System.out.println(line(batch, record));
                    found.add(record.offset() + " " + record.timestamp());
                }
            }
            if (!found.equals(dumped(log))) {
                throw new IllegalStateException(log + ": kafka-dump-log prints " + dumped(log) + " and not " + found);
            }
            count += found.size();
        }
        return count;
    }

    private static List<RecordBatch> batches(File log) throws IOException {
        List<RecordBatch> batches = new ArrayList<>();
        try {
            FileRecords.open(log, false).batches().forEach(batches::add);
        } catch (CorruptRecordException zeros) {
            System.err.println(log + ": " + zeros.getMessage());
        }
        return batches;
    }

    /** The offset and timestamp of each record that kafka-dump-log prints, until it fails, which it does at zeros. */
    private static List<String> dumped(File log) {
        PrintStream console = System.out;
        ByteArrayOutputStream output = new ByteArrayOutputStream();
        System.setOut(new PrintStream(output, true, StandardCharsets.UTF_8));
        try {
            String[] arguments = {"--deep-iteration", "--print-data-log", "--files", log.getPath()};
            // Scala's println does not look at what System.out has become.
            scala.Console.withOut(output, () -> {
                DumpLogSegments.main(arguments);
                return null;
            });
        } catch (CorruptRecordException zeros) {
            System.err.println(log + ": kafka-dump-log ends with: " + zeros.getMessage());
        } finally {
            System.setOut(console);
        }
        return output.toString(StandardCharsets.UTF_8).lines().map(DUMPED::matcher).filter(Matcher::find)
            .map(record -> record.group(1) + " " + record.group(2)).toList();
    }

    private String line(RecordBatch batch, Record record) {
        String line = "{\"partition\":" + string(partition.getName())
            + ",\"offset\":" + record.offset()
            + ",\"format\":" + batch.magic()
            + ",\"timestamp\":" + record.timestamp()
            + ",\"ts_type\":\"" + timestampType(batch) + "\""
            + ",\"key\":" + bytes(record.hasKey() ? record.key() : null)
            + ",\"value\":" + bytes(record.hasValue() ? record.value() : null)
            + ",\"headers\":[" + headers(record) + "]";
        if (batch.isControlBatch()) {
            line += ",\"control\":\"" + ControlRecordType.parse(record.key()).name().toLowerCase() + "\"";
        } else if (batch.isTransactional()) {
            line += ",\"transaction\":\"" + ending(batch.producerId(), record.offset()) + "\"";
        }
        return line + "}";
    }

    private static String timestampType(RecordBatch batch) {
        if (batch.timestampType() == TimestampType.NO_TIMESTAMP_TYPE) {
            return "none";
        }
        return batch.timestampType() == TimestampType.LOG_APPEND_TIME ? "append" : "create";
    }

    private String ending(long producer, long offset) {
        for (long[] marker : markers.getOrDefault(producer, List.of())) {
            if (marker[0] > offset) {
                return marker[1] == 1 ? "committed" : "aborted";
            }
        }
        return "open";
    }

    private static String headers(Record record) {
        List<String> headers = new ArrayList<>();
        for (Header header : record.headers()) {
            ByteBuffer value = header.value() == null ? null : ByteBuffer.wrap(header.value());
            headers.add("[" + string(header.key()) + "," + bytes(value) + "]");
        }
        return String.join(",", headers);
    }

    private static String bytes(ByteBuffer bytes) {
        if (bytes == null) {
            return "null";
        }
        try {
            return "{\"utf8\":" + string(StandardCharsets.UTF_8.newDecoder().decode(bytes.duplicate()).toString()) + "}";
        } catch (CharacterCodingException notText) {
            byte[] copy = new byte[bytes.remaining()];
            bytes.duplicate().get(copy);
            return "{\"b64\":\"" + Base64.getEncoder().encodeToString(copy) + "\"}";
        }
    }

    private static String string(String text) {
        StringBuilder out = new StringBuilder("\"");
        for (char c : text.toCharArray()) {
            if (c == '"' || c == '\\') {
                out.append('\\').append(c);
            } else if (c < ' ' || c == 127) {
                out.append(String.format("\\u%04x", (int) c));
            } else {
                out.append(c);
            }
        }
        return out.append('"').toString();
    }

    private static List<File> sorted(File folder, String ending) {
        File[] files = folder.listFiles((parent, name) -> name.endsWith(ending));
        Arrays.sort(files);
        return Arrays.asList(files);
    }
}
