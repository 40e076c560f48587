package io.gatun.cli;

import io.gatun.runtime.GatunException;
import io.gatun.train.TrainingTasks;
import java.io.PrintStream;
import java.nio.charset.StandardCharsets;
import java.util.ArrayList;
import java.util.List;
import java.util.Locale;
import java.util.ServiceLoader;
import java.util.regex.Matcher;
import java.util.regex.Pattern;
import picocli.CommandLine;
import picocli.CommandLine.Command;
import picocli.CommandLine.Model.CommandSpec;
import picocli.CommandLine.ParameterException;
import picocli.CommandLine.Spec;
import picocli.CommandLine.UnmatchedArgumentException;

/// The `gatun` command. Results go to standard output, progress and errors to standard error; an error is one line.
@Command(name = "gatun", mixinStandardHelpOptions = true, versionProvider = Version.class,
        description = "Generative models on native kernels, from Hugging Face directories.",
        subcommands = {GenerateCommand.class, SampleCommand.class, EvaluateCommand.class, ForwardCommand.class,
            ScheduleCommand.class, DoctorCommand.class, WarmUpCommand.class},
        footer = {"", "Exit codes: 0 fine, 1 the work failed, 2 bad usage or input, 130 interrupted, 143 ended by SIGTERM."})
public final class Main implements Runnable {
    static final int FAILED = 1;
    static final int BAD_INPUT = 2;
    private static final Pattern CONSTANTS = Pattern.compile(
            "expected one of \\[([A-Z0-9_, ]+)] \\(case-insensitive\\)");

    @Spec
    private CommandSpec spec;

    private Main() {}

    @Override
    public void run() {
        throw new ParameterException(spec.commandLine(),
                "a command is missing: generate, sample, train, evaluate, forward, schedule, doctor or bench");
    }

    /// Runs the command line and ends the JVM with its exit code.
    public static void main(String[] args) {
        System.setOut(new PrintStream(new java.io.FileOutputStream(java.io.FileDescriptor.out), false,
                StandardCharsets.UTF_8));
        System.setErr(new PrintStream(new java.io.FileOutputStream(java.io.FileDescriptor.err), true,
                StandardCharsets.UTF_8));
        int code = execute(args);
        if (System.out.checkError()) { // flushes first
            complain("cannot write to standard output");
            code = FAILED;
        }
        System.exit(code);
    }

    /// Runs the command line; returns its exit code.
    static int execute(String... args) {
        List<CliCommand> commands = new ArrayList<>(List.of(new TrainCommand(TrainingTasks::open)));
        ServiceLoader.load(CliCommand.class).forEach(commands::add);
        return execute(commands, args);
    }

    /// As [#execute(String...)], with these commands beside the built-in ones.
    static int execute(Iterable<CliCommand> commands, String... args) {
        CommandLine commandLine = new CommandLine(new Main());
        for (CliCommand command : commands) {
            commandLine.addSubcommand(command);
        }
        commandLine.setCaseInsensitiveEnumValuesAllowed(true);
        commandLine.setParameterExceptionHandler((e, arguments) -> {
            complain(e instanceof UnmatchedArgumentException unmatched ? describe(unmatched)
                    : inOurWords(e.getMessage()));
            return BAD_INPUT;
        });
        commandLine.setExecutionExceptionHandler((e, command, parsed) -> report(e));
        return commandLine.execute(args);
    }

    private static int report(Exception e) {
        if (!(e instanceof GatunException failure)) {
            complain("internal error: " + e + " (-Dgatun.trace=true shows where)");
            if (Boolean.getBoolean("gatun.trace")) {
                e.printStackTrace(System.err);
            }
            return FAILED;
        }
        complain(failure.getMessage());
        return switch (failure.status()) {
            case INVALID_ARGUMENT, UNSUPPORTED -> BAD_INPUT;
            case OUT_OF_MEMORY, BUSY, DEVICE_ERROR, CANCELLED, INTERNAL -> FAILED;
        };
    }

    /// The first word that means nothing, and those that come near it.
    private static String describe(UnmatchedArgumentException e) {
        String word = e.getUnmatched().getFirst();
        CommandSpec command = e.getCommandLine().getCommandSpec();
        String kind = e.isUnknownOption() ? "option" : command.subcommands().isEmpty() ? "argument" : "command";
        List<String> near = kind.equals("argument") ? List.of() : e.getSuggestions();
        return "%s has no %s '%s'%s: %1$s --help lists what it takes".formatted(command.qualifiedName(), kind, word,
                near.isEmpty() ? "" : ", expected perhaps " + String.join(" or ", near));
    }

    /// picocli names Java's constants and types; names are written as `--help` has them.
    private static String inOurWords(String message) {
        return CONSTANTS.matcher(message).replaceFirst(found -> Matcher.quoteReplacement("expected "
                + found.group(1).toLowerCase(Locale.ROOT).replaceAll(", (?=[^,]*$)", " or ")))
                .replaceFirst("(?<=' is not )an? (int|long)$", "an integer");
    }

    /// One line, whatever the message holds.
    private static void complain(String message) {
        System.err.println("gatun: " + message.replaceAll("\\s*[\\r\\n]+\\s*", " "));
    }
}
