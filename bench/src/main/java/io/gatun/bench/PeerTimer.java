package io.gatun.bench;

import io.gatun.ops.cases.OpCase;
import io.gatun.runtime.GatunException;
import java.util.ArrayList;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;

/// Measures what the peer does in place of one of our cases.
final class PeerTimer implements AutoCloseable {
    private final TorchPeer peer;
    private final Map<String, String> skipped = new LinkedHashMap<>();
    private final Map<String, List<Double>> nanos = new LinkedHashMap<>();

    /// @param ours whose calls and operands the peer repeats
    PeerTimer(TorchPeer peer, OpCase opCase, CaseTimer ours) {
        this.peer = peer;
        try {
            TorchPeer.Kernel kernel = peer.prepare(opCase, ours.copies(), ours.calls());
            kernel.variants().forEach(name -> nanos.put(name, new ArrayList<>()));
            skipped.putAll(kernel.skipped());
        } catch (GatunException e) {
            giveUp(e);
        }
    }

    void repeat() {
        if (!nanos.isEmpty()) {
            try {
                peer.repeat().forEach((name, value) -> nanos.get(name).add(value));
            } catch (GatunException e) {
                giveUp(e);
            }
        }
    }

    /// What the peer cannot do is no reason to measure nothing else.
    private void giveUp(GatunException e) {
        nanos.clear();
        skipped.put("all", String.valueOf(e.getMessage()));
        peer.restart();
    }

    /// Variants that it tried in vain, and why.
    Map<String, String> skipped() {
        return skipped;
    }

    /// One row per variant.
    List<Map<String, Object>> rows(OpCase opCase, double[] ours) {
        List<Map<String, Object>> rows = new ArrayList<>();
        nanos.forEach((name, theirs) -> {
            double[] ofPeer = theirs.stream().mapToDouble(Double::doubleValue).toArray();
            Spread ratio = Spread.ofRatios(ofPeer, ours);
            Map<String, Object> row = new LinkedHashMap<>();
            row.put("op", opCase.op());
            row.put("dtype", opCase.dtype().toString());
            row.put("sizes", opCase.sizes());
            row.put("peer", name);
            row.put("peer_us", Spread.of(ofPeer).median() * 1e-3);
            row.put("us", Spread.of(ours).median() * 1e-3);
            row.put("faster_by", ratio.median());
            row.put("faster_low", ratio.low());
            row.put("faster_high", ratio.high());
            rows.add(row);
        });
        return rows;
    }

    @Override
    public void close() {
        if (!skipped.containsKey("all")) {
            try {
                peer.forget();
            } catch (GatunException e) { // what was measured stays
                System.err.println("gatun bench: " + e.getMessage());
                peer.restart();
            }
        }
    }
}
