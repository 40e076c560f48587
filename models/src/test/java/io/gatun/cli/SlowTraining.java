package io.gatun.cli;

import io.gatun.train.FakeTask;
import java.util.List;

/// A training without an end; run by [TrainCommandTest] in a process of its own. Says a line when it has made some
/// steps.
final class SlowTraining {
    static final String SAID = "under way";
    private static final int SAID_AT = 5;

    private SlowTraining() {}

    /// @param args recipe, data, directory of the run
    public static void main(String[] args) {
        TrainCommand command = new TrainCommand(request -> new FakeTask(request.recipe()) {
            private int steps;

            @Override
            public void step() {
                super.step();
                if (++steps == SAID_AT) {
                    System.out.println(SAID);
                }
            }
        });
        System.exit(Main.execute(List.of(command), "train", "--recipe", args[0], "--data", args[1], "--out", args[2]));
    }
}
