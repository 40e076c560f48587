package io.gatun.bench.gpu;

import io.gatun.bench.gpu.Outcome.Status;
import java.io.IOException;
import java.io.UncheckedIOException;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.List;
import java.util.regex.Pattern;
import java.util.stream.Stream;
import javax.xml.parsers.DocumentBuilderFactory;
import javax.xml.parsers.ParserConfigurationException;
import org.w3c.dom.Element;
import org.w3c.dom.NodeList;
import org.xml.sax.SAXException;

/// Runs JUnit tests in a JVM of their own and tells what came of each: a crash of the device or of the JVM ends that
/// run alone. Its tests before that are told from what JUnit printed as it went.
///
/// @param java the start of the command line: java, its options and class path
/// @param log  what the tests print
record TestRun(Part part, List<String> java, Path log) {
    private static final int DETAIL_CHARACTERS = 2000;
    /// Of JUnit's console launcher, where no test was found.
    private static final int NO_TESTS = 2;
    /// `JUnit Jupiter > NormTest > rmsNorm_oddWidth(DType) > [1] F32 :: SUCCESSFUL`
    private static final Pattern FEED = Pattern.compile("JUnit Jupiter > (\\w+) > (.+) :: (STARTED|SUCCESSFUL)");

    /// @param selectors of JUnit's console launcher
    List<Outcome> run(String name, Deadline.Limit limit, List<String> selectors) {
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
        String unreadable = null;
        try (Stream<Path> files = Files.list(reports)) {
            for (Path file : files.toList()) {
                if (file.toString().endsWith(".xml") && child.ended()) {
                    try {
                        outcomes.addAll(read(file));
                    } catch (SAXException e) { // it may have died as it wrote
                        unreadable = e.getMessage();
                    }
                }
                Files.delete(file);
            }
            Files.delete(reports);
        } catch (IOException e) {
            throw new UncheckedIOException(e);
        }
        if (outcomes.isEmpty()) {
            if (child.ended() && child.exit() == NO_TESTS) {
                return List.of(Outcome.skipped(part, name, "no tests for a device"));
            }
            outcomes.addAll(passedBefore(child.output()));
        }
        if (unreadable != null) {
            outcomes.add(new Outcome(part, name, Status.FAILED, child.seconds(),
                    "the report of its tests cannot be read: " + unreadable));
        }
        if (!child.isFine() && outcomes.stream().noneMatch(o -> o.status() == Status.FAILED)) {
            outcomes.add(child.outcome(part, name + lastStarted(child.output())));
        }
        return outcomes;
    }

    private List<Outcome> passedBefore(String feed) {
        return FEED.matcher(feed).results().filter(line -> line.group(3).equals("SUCCESSFUL"))
                .map(line -> new Outcome(part, line.group(1) + "." + line.group(2), Status.PASSED, 0, "")).toList();
    }

    private static String lastStarted(String feed) {
        return FEED.matcher(feed).results().reduce((a, b) -> b).filter(line -> line.group(3).equals("STARTED"))
                .map(line -> " at " + line.group(2)).orElse("");
    }

    private List<Outcome> read(Path report) throws IOException, SAXException {
        try {
            Element suite = DocumentBuilderFactory.newDefaultInstance().newDocumentBuilder().parse(report.toFile())
                    .getDocumentElement();
            NodeList cases = suite.getElementsByTagName("testcase");
            List<Outcome> outcomes = new ArrayList<>();
            for (int i = 0; i < cases.getLength(); i++) {
                outcomes.add(outcome((Element) cases.item(i)));
            }
            return outcomes;
        } catch (ParserConfigurationException e) {
            throw new IllegalStateException("no XML parser: " + e, e);
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
