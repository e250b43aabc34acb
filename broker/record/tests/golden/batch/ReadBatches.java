// Prints the batches in the named hex files as Kafka's own client reads them, one line per batch and record.
//
//   java -cp 'lib/*' ReadBatches.java FILE.hex...

import java.nio.ByteBuffer;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.HexFormat;
import java.util.zip.CRC32;
import org.apache.kafka.common.header.Header;
import org.apache.kafka.common.record.MemoryRecords;
import org.apache.kafka.common.record.Record;
import org.apache.kafka.common.record.RecordBatch;

public class ReadBatches {
    // Short fields in full, long ones as size and checksum.
    static String field(ByteBuffer field) {
        if (field == null) {
            return "null";
        }
        byte[] bytes = new byte[field.remaining()];
        field.duplicate().get(bytes);
        if (bytes.length <= 32) {
            return "'" + HexFormat.of().formatHex(bytes) + "'";
        }
        CRC32 crc = new CRC32();
        crc.update(bytes);
        return String.format("%d bytes, crc32 %08x", bytes.length, crc.getValue());
    }

    public static void main(String[] arguments) throws Exception {
        for (String file : arguments) {
            String hex = Files.readString(Path.of(file)).replace("\n", "");
            MemoryRecords records = MemoryRecords.readableRecords(ByteBuffer.wrap(HexFormat.of().parseHex(hex)));
            for (RecordBatch batch : records.batches()) {
                batch.ensureValid();
                System.out.printf(
                    "%s: offsets %d-%d count %d epoch %d %s %s max %d producer %d/%d/%d%s%s%n",
                    Path.of(file).getFileName(), batch.baseOffset(), batch.lastOffset(), batch.countOrNull(),
                    batch.partitionLeaderEpoch(), batch.compressionType().name, batch.timestampType(),
                    batch.maxTimestamp(), batch.producerId(), batch.producerEpoch(), batch.baseSequence(),
                    batch.isTransactional() ? " transactional" : "", batch.isControlBatch() ? " control" : "");
                for (Record record : batch) {
                    record.ensureValid();
                    StringBuilder headers = new StringBuilder();
                    for (Header header : record.headers()) {
                        ByteBuffer value = header.value() == null ? null : ByteBuffer.wrap(header.value());
                        headers.append(" ").append(header.key()).append("=").append(field(value));
                    }
                    System.out.printf(
                        "  %d at %d key %s value %s%s%n", record.offset(), record.timestamp(), field(record.key()),
                        field(record.value()), headers);
                }
            }
        }
    }
}
