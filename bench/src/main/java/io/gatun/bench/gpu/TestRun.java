package io.gatun.bench.gpu;

import io.gatun.bench.gpu.Outcome.Status;
import java.io.IOException;
import java.io.UncheckedIOException;
import java.nio.file.Files;
import java.nio.file.Path;
import java.time.Duration;
import java.util.ArrayList;
import java.util.List;
import java.util.stream.Stream;
import javax.xml.parsers.DocumentBuilderFactory;
import javax.xml.parsers.ParserConfigurationException;
import org.w3c.dom.Element;
import org.w3c.dom.NodeList;
import org.xml.sax.SAXException;

/// Runs JUnit tests in a JVM of their own and tells what came of each: a crash of the device or of the JVM ends that
/// run alone, and the log's last line names the test.
///
/// @param java  the start of the command line: java, its options and class path
/// @param log   what the tests print
/// @param limit after which the JVM is ended
record TestRun(Part part, List<String> java, Path log, Duration limit) {
    private static final int DETAIL_CHARACTERS = 2000;

    /// @param selectors of JUnit's console launcher
    List<Outcome> run(String name, List<String> selectors) {
        Path reports;
        try {
            reports = Files.createTempDirectory("gatun-reports");
        } catch (IOException e) {
            throw new UncheckedIOException(e);
        }
        List<String> command = new ArrayList<>(java);
        command.addAll(List.of("org.junit.platform.console.ConsoleLauncher", "execute", "--disable-banner",
                "--disable-ansi-colors", "--details=testfeed", "--fail-if-no-tests", "--reports-dir",
                reports.toString()));
        command.addAll(selectors);
        Child child = Child.run(log, limit, command);
        List<Outcome> outcomes = new ArrayList<>();
        try (Stream<Path> files = Files.list(reports)) {
            for (Path file : files.filter(f -> f.toString().endsWith(".xml")).toList()) {
                outcomes.addAll(read(file));
                Files.delete(file);
            }
            Files.delete(reports);
        } catch (IOException e) {
            throw new UncheckedIOException(e);
        }
        boolean failed = outcomes.stream().anyMatch(o -> o.status() == Status.FAILED);
        if (!child.isFine() && !failed || outcomes.isEmpty()) {
            outcomes.add(new Outcome(part, name, Status.FAILED, child.seconds(), child.trouble(log)));
        }
        return outcomes;
    }

    private List<Outcome> read(Path report) throws IOException {
        try {
            Element suite = DocumentBuilderFactory.newDefaultInstance().newDocumentBuilder().parse(report.toFile())
                    .getDocumentElement();
            NodeList cases = suite.getElementsByTagName("testcase");
            List<Outcome> outcomes = new ArrayList<>();
            for (int i = 0; i < cases.getLength(); i++) {
                outcomes.add(outcome((Element) cases.item(i)));
            }
            return outcomes;
        } catch (ParserConfigurationException | SAXException e) {
            throw new IOException("the report of the tests cannot be read: " + e, e);
        }
    }

    private Outcome outcome(Element test) {
        String className = test.getAttribute("classname");
        String name = className.substring(className.lastIndexOf('.') + 1) + "." + test.getAttribute("name");
        double seconds = Double.parseDouble(test.getAttribute("time"));
        for (String element : List.of("failure", "error", "skipped")) {
            if (test.getElementsByTagName(element).item(0) instanceof Element trouble) {
                String message = trouble.getAttribute("message");
                String text = message.isBlank() ? trouble.getTextContent().strip() : message;
                return new Outcome(part, name, element.equals("skipped") ? Status.SKIPPED : Status.FAILED, seconds,
                        text.substring(0, Math.min(text.length(), DETAIL_CHARACTERS)));
            }
        }
        return new Outcome(part, name, Status.PASSED, seconds, "");
    }
}
