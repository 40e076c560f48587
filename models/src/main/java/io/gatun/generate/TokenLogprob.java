package io.gatun.generate;

import java.util.List;

/// Natural log-probability of a chosen token under the model's own distribution, before penalties and filters, and the
/// best alternatives, most probable first.
public record TokenLogprob(int id, float logprob, List<Alternative> top) {
    public record Alternative(int id, float logprob) {}
}
