package io.gatun.diffusion;

import io.gatun.diffusion.DiffusionPipeline.Request;
import io.gatun.ops.Elementwise;
import io.gatun.runtime.DType;
import io.gatun.runtime.Device;
import io.gatun.runtime.DeviceArena;
import io.gatun.runtime.Shapes;
import io.gatun.runtime.Stream;
import io.gatun.runtime.Tensor;
import java.util.ArrayList;
import java.util.List;
import org.jspecify.annotations.Nullable;

/// What the network is told beside sample and time, for N rows: B images, or, with guidance, the B unconditional ones and
/// then the B conditional ones. All of it stays the same over a loop.
///
/// @param states  [N, S, K] of the text; null: the network reads none
/// @param pooled  [N, P] of the text, XL's
/// @param timeIds [N, 6] f32: original size, crop, target size, XL's
/// @param classes [N] i32
record Conditions(@Nullable Tensor states, @Nullable Tensor pooled, @Nullable Tensor timeIds,
        @Nullable Tensor classes) {
    private static final int TIME_IDS = 6;

    static Conditions encode(DiffusionPipeline pipeline, DeviceArena arena, Request request) {
        Stream stream = pipeline.stream();
        Tensor classes = null;
        if (pipeline.network().numClasses() > 0) {
            classes = arena.allocate(DType.I32, request.rows());
            classes.copyFrom(stream, classes(pipeline, request));
        }
        TextEncoders text = pipeline.text();
        if (text == null) {
            return new Conditions(null, null, null, classes);
        }
        TextEncoders.Encoded encoded = text.encode(arena, texts(request), pipeline.dtype());
        if (request.guidance() != null && pipeline.emptyIsZero() && request.config().negativePrompts().isEmpty()) {
            Elementwise.fill(stream, encoded.states().slice(0, 0, request.count()), 0);
            if (encoded.pooled() != null) {
                Elementwise.fill(stream, encoded.pooled().slice(0, 0, request.count()), 0);
            }
        }
        return new Conditions(encoded.states(), encoded.pooled(),
                pipeline.isXl() ? DiffusionPipeline.upload(arena, stream, timeIds(pipeline, request), request.rows(),
                        TIME_IDS) : null, classes);
    }

    /// The same without memory, for `rows` rows.
    static Conditions shapes(DiffusionPipeline pipeline, Shapes shapes, Request request, int rows) {
        TextEncoders text = pipeline.text();
        Tensor classes = pipeline.network().numClasses() > 0 ? shapes.of(DType.I32, rows) : null;
        if (text == null) {
            return new Conditions(null, null, null, classes);
        }
        DType dtype = pipeline.dtype();
        return new Conditions(shapes.of(dtype, rows, text.length(), text.width()),
                text.pooledWidth() == 0 ? null : shapes.of(dtype, rows, text.pooledWidth()),
                pipeline.isXl() ? shapes.of(DType.F32, rows, TIME_IDS) : null, classes);
    }

    private static int[] classes(DiffusionPipeline pipeline, Request request) {
        int[] ids = new int[request.rows()];
        int unconditional = request.rows() - request.count();
        for (int row = 0; row < ids.length; row++) {
            ids[row] = row < unconditional ? pipeline.network().nullClass()
                    : DiffusionPipeline.at(request.config().classes(), row - unconditional);
        }
        return ids;
    }

    private static List<String> texts(Request request) {
        List<String> negative = request.config().negativePrompts();
        List<String> texts = new ArrayList<>();
        for (int image = 0; request.guidance() != null && image < request.count(); image++) {
            texts.add(negative.isEmpty() ? "" : DiffusionPipeline.at(negative, image));
        }
        for (int image = 0; image < request.count(); image++) {
            texts.add(DiffusionPipeline.at(request.config().prompts(), image));
        }
        return texts;
    }

    private static float[] timeIds(DiffusionPipeline pipeline, Request request) {
        float height = request.height() * pipeline.reduction();
        float width = request.width() * pipeline.reduction();
        float[] ids = new float[request.rows() * TIME_IDS];
        for (int at = 0; at < ids.length; at += TIME_IDS) {
            ids[at] = height;
            ids[at + 1] = width;
            ids[at + 4] = height;
            ids[at + 5] = width;
        }
        return ids;
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
