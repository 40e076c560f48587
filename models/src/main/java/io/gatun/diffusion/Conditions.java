package io.gatun.diffusion;

import io.gatun.ops.Elementwise;
import io.gatun.runtime.DType;
import io.gatun.runtime.Device;
import io.gatun.runtime.DeviceArena;
import io.gatun.runtime.Shapes;
import io.gatun.runtime.Stream;
import io.gatun.runtime.Tensor;
import java.util.ArrayList;
import java.util.List;
import java.util.Optional;
import org.jspecify.annotations.Nullable;

/// What the network is told beside sample and time, for N rows: B images, or, with guidance, the B unconditional ones
/// and then the B conditional ones. All of it stays the same over a loop.
///
/// @param states  [N, S, K] of the text; null: the network reads none
/// @param pooled  [N, P] of the text, XL's
/// @param timeIds [N, 6] f32: original size, crop, target size, XL's
/// @param classes [N] i32
record Conditions(@Nullable Tensor states, @Nullable Tensor pooled, @Nullable Tensor timeIds,
        @Nullable Tensor classes) {
    private static final int TIME_IDS = 6;

    static Conditions encode(Device device, Stream stream, DiffusionParts parts, DeviceArena arena,
            DrawRequest request) {
        Tensor classes = null;
        if (parts.network().numClasses() > 0) {
            classes = arena.allocate(DType.I32, request.rows());
            classes.copyFrom(stream, classes(parts, request));
        }
        TextEncoders text = parts.text();
        if (text == null) {
            return new Conditions(null, null, null, classes);
        }
        TextEncoders.Encoded encoded = text.encode(arena, texts(request), parts.dtype());
        if (request.guidance() != null && parts.zeroEmpty() && request.config().negativePrompts().isEmpty()) {
            Elementwise.fill(stream, encoded.states().slice(0, 0, request.count()), 0);
            if (encoded.pooled() != null) {
                Elementwise.fill(stream, encoded.pooled().slice(0, 0, request.count()), 0);
            }
        }
        return new Conditions(encoded.states(), encoded.pooled(),
                parts.xl() ? HostImages.upload(arena, stream, timeIds(parts, request), request.rows(),
                        TIME_IDS) : null, classes);
    }

    /// The same without memory, for `rows` rows.
    static Conditions shapes(DiffusionParts parts, Shapes shapes, int rows) {
        TextEncoders text = parts.text();
        Tensor classes = parts.network().numClasses() > 0 ? shapes.of(DType.I32, rows) : null;
        if (text == null) {
            return new Conditions(null, null, null, classes);
        }
        DType dtype = parts.dtype();
        return new Conditions(shapes.of(dtype, rows, text.length(), text.width()),
                text.pooledWidth() == 0 ? null : shapes.of(dtype, rows, text.pooledWidth()),
                parts.xl() ? shapes.of(DType.F32, rows, TIME_IDS) : null, classes);
    }

    private static int[] classes(DiffusionParts parts, DrawRequest request) {
        int[] ids = new int[request.rows()];
        int unconditional = request.rows() - request.count();
        for (int row = 0; row < ids.length; row++) {
            ids[row] = row < unconditional ? parts.network().nullClass()
                    : ofImage(request.config().classes(), row - unconditional);
        }
        return ids;
    }

    private static List<String> texts(DrawRequest request) {
        List<String> negative = request.config().negativePrompts();
        List<String> texts = new ArrayList<>();
        for (int image = 0; request.guidance() != null && image < request.count(); image++) {
            texts.add(negative.isEmpty() ? "" : ofImage(negative, image));
        }
        for (int image = 0; image < request.count(); image++) {
            texts.add(ofImage(request.config().prompts(), image));
        }
        return texts;
    }

    private static float[] timeIds(DiffusionParts parts, DrawRequest request) {
        float height = request.height() * parts.coder().reduction();
        float width = request.width() * parts.coder().reduction();
        float[] ids = new float[request.rows() * TIME_IDS];
        for (int at = 0; at < ids.length; at += TIME_IDS) {
            ids[at] = height;
            ids[at + 1] = width;
            ids[at + 4] = height;
            ids[at + 5] = width;
        }
        return ids;
    }

    /// `values`, or its only element for every image.
    private static <T> T ofImage(List<T> values, int image) {
        return values.get(values.size() == 1 ? 0 : image);
    }

    private static int ofImage(int[] values, int image) {
        return values[values.length == 1 ? 0 : image];
    }

    /// What all of it takes.
    long bytes() {
        return java.util.stream.Stream.of(Optional.ofNullable(states), Optional.ofNullable(pooled),
                Optional.ofNullable(timeIds), Optional.ofNullable(classes)).flatMap(Optional::stream)
                .mapToLong(t -> t.elements() * t.dtype().bytes()).sum();
    }

    /// The name of the part that gave NaN or infinity here; null where all is well.
    @Nullable String firstNonfinite(Device device, Stream stream) {
        if (states == null) {
            return null;
        }
        try (DeviceArena arena = device.newArena("count")) {
            Tensor count = arena.allocate(DType.I64, 1);
            Elementwise.countNonfinite(stream, count, states);
            return count.toLongs(stream)[0] == 0 ? null : "text_encoder";
        }
    }
}
