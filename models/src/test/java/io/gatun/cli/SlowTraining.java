package io.gatun.cli;

import io.gatun.train.FakeTask;
import java.util.List;

/// A training that takes a while; run by [TrainCommandTest] in a process of its own.
final class SlowTraining {
    private SlowTraining() {}

    /// @param args recipe, data, directory of the run
    public static void main(String[] args) {
        TrainCommand command = new TrainCommand(request -> new FakeTask(request.recipe()) {
            @Override
            public void step() {
                super.step();
                try {
                    Thread.sleep(5);
                } catch (InterruptedException e) {
                    Thread.currentThread().interrupt();
                }
            }
        });
        System.exit(Main.execute(List.of(command), "train", "--recipe", args[0], "--data", args[1], "--out", args[2]));
    }
}
