// Kafka's command line tools, one after another in one process: each starts in milliseconds instead of a second.
//
// Reads lines of {"tool":"<class>","arguments":[...],"input":"..."} and answers each with a line of
// {"exit":N,"out":"...","err":"..."}. A tool that ends the process is caught where it asks for it.

import com.fasterxml.jackson.databind.JsonNode;
import com.fasterxml.jackson.databind.ObjectMapper;
import java.io.BufferedReader;
import java.io.ByteArrayInputStream;
import java.io.ByteArrayOutputStream;
import java.io.InputStreamReader;
import java.io.PrintStream;
import java.lang.reflect.InvocationTargetException;
import java.nio.charset.StandardCharsets;
import java.util.ArrayList;
import java.util.List;
import java.util.stream.StreamSupport;
import org.apache.kafka.common.utils.Exit;

public final class Tools {
    private static final ObjectMapper JSON = new ObjectMapper();

    /** Ends a tool where it asks for the end of the process. Some print what they catch: it says nothing. */
    private static final class Ended extends Error {
        Ended() {
            super("", null, false, false);
        }

        @Override
        public String toString() {
            return "";
        }
    }

    /** What the tool wanted to end the process with. The first one counts: some catch what ends them, and go on. */
    private static Integer exit;

    /** What the tool wants to do at the end of the process: some send there what they were given. */
    private static final List<Runnable> AT_END = new ArrayList<>();

    public static void main(String[] args) throws Exception {
        BufferedReader lines = new BufferedReader(new InputStreamReader(System.in, StandardCharsets.UTF_8));
        PrintStream answers = System.out;
        Exit.Procedure end = (code, message) -> {
            exit = exit == null ? code : exit;
            if (message != null) {
                System.err.println(message);
            }
            throw new Ended();
        };
        Exit.setExitProcedure(end);
        Exit.setHaltProcedure(end);
        Exit.setShutdownHookAdder((name, hook) -> AT_END.add(hook));
        for (String line = lines.readLine(); line != null; line = lines.readLine()) {
            answers.println(run(JSON.readTree(line)));
            answers.flush();
        }
    }

    private static JsonNode run(JsonNode line) throws Exception {
        ByteArrayOutputStream out = new ByteArrayOutputStream();
        ByteArrayOutputStream err = new ByteArrayOutputStream();
        System.setOut(new PrintStream(out, true, StandardCharsets.UTF_8));
        System.setErr(new PrintStream(err, true, StandardCharsets.UTF_8));
        System.setIn(new ByteArrayInputStream(line.get("input").asText().getBytes(StandardCharsets.UTF_8)));
        exit = null;
        String[] arguments = StreamSupport.stream(line.get("arguments").spliterator(), false)
                .map(JsonNode::asText)
                .toArray(String[]::new);
        try {
            Class.forName(line.get("tool").asText())
                    .getMethod("main", String[].class)
                    .invoke(null, (Object) arguments);
        } catch (InvocationTargetException thrown) {
            if (!(thrown.getCause() instanceof Ended)) {
                thrown.getCause().printStackTrace();
                exit = exit == null ? 1 : exit;
            }
        }
        List.copyOf(AT_END).forEach(Runnable::run);
        AT_END.clear();
        return JSON.createObjectNode()
                .put("exit", exit == null ? 0 : exit)
                .put("out", out.toString(StandardCharsets.UTF_8))
                .put("err", err.toString(StandardCharsets.UTF_8));
    }
}
