// Prints Apache Kafka's error codes, a line of number and name for each.

import org.apache.kafka.common.protocol.Errors;

final class ErrorCodes {
    public static void main(String[] arguments) {
        for (Errors error : Errors.values()) {
            System.out.println(error.code() + " " + error.name());
        }
    }
}
