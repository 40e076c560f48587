package io.gatun.models.unet;

import io.gatun.models.ImageNetwork.Inputs;
import io.gatun.models.Layers;
import io.gatun.models.WeightLoader;
import io.gatun.models.unet.UNetLayout.ClassKind;
import io.gatun.models.unet.UNetLayout.TimeLayout;
import io.gatun.ops.Image.Sinusoids;
import io.gatun.runtime.DType;
import io.gatun.runtime.GatunException;
import io.gatun.runtime.Tensor;
import java.util.Arrays;
import org.jspecify.annotations.Nullable;

/// The vector that tells all residual blocks what to do: the embedding of the time step, plus those of a class label
/// and of what SDXL is told about text and sizes.
///
/// @param layout     widths, and which of the parts there are
/// @param time       time_embedding.*
/// @param condition  time_embedding.cond_proj.weight [sinusoids, conditionDim]; null: none
/// @param classTable class_embedding.weight          [classes, E], or [E, classes] where it projects; null: none
/// @param classBias  class_embedding.bias            [E] where it projects
/// @param classes    class_embedding.linear_*        where labels are projected twice; null: none
/// @param added      add_embedding.*                 of pooled text and sizes; null: none
record TimeEmbedding(TimeLayout layout, Mlp time, @Nullable Tensor condition, @Nullable Tensor classTable,
        @Nullable Tensor classBias, @Nullable Mlp classes, @Nullable Mlp added) {

    /// Two linear layers with silu between them.
    ///
    /// @param first      linear_1.weight [E, in]
    /// @param firstBias  linear_1.bias   [E]
    /// @param second     linear_2.weight [E, E]
    /// @param secondBias linear_2.bias   [E]
    record Mlp(Tensor first, Tensor firstBias, Tensor second, Tensor secondBias) {
        static Mlp load(WeightLoader w, String at, long in, long e) {
            return new Mlp(w.require(at + "linear_1.weight", e, in), w.require(at + "linear_1.bias", e),
                    w.require(at + "linear_2.weight", e, e), w.require(at + "linear_2.bias", e));
        }

        /// x [B, in]; [B, E]
        Tensor forward(Layers l, Tensor x) {
            return l.linearRowwise(l.silu(l.linearRowwise(x, first, firstBias)), second, secondBias);
        }
    }

    static TimeEmbedding load(WeightLoader w, TimeLayout layout) {
        int e = layout.dim();
        Mlp time = Mlp.load(w, "time_embedding.", layout.sinusoids(), e);
        Tensor condition = w.when(layout.conditionDim() > 0, "time_embedding.cond_proj.weight", layout.sinusoids(),
                layout.conditionDim());
        String weight = "class_embedding.weight";
        return new TimeEmbedding(layout, time, condition,
                switch (layout.classKind()) {
                    case TABLE -> w.require(weight, layout.classes(), e);
                    case SIMPLE_PROJECTION -> w.require(weight, e, layout.classes());
                    case NONE, IDENTITY, TIMESTEP, PROJECTION -> null;
                },
                w.when(layout.classKind() == ClassKind.SIMPLE_PROJECTION, "class_embedding.bias", e),
                switch (layout.classKind()) {
                    case TIMESTEP -> Mlp.load(w, "class_embedding.", layout.sinusoids(), e);
                    case PROJECTION -> Mlp.load(w, "class_embedding.", layout.classes(), e);
                    case NONE, IDENTITY, TABLE, SIMPLE_PROJECTION -> null;
                },
                layout.textTimeDim() > 0 ? Mlp.load(w, "add_embedding.", layout.textTimeInput(), e) : null);
    }

    /// [B, E], after the silu that every residual block begins with.
    Tensor forward(Layers l, Inputs in) {
        long b = in.sample().size(0);
        Tensor t = sinusoids(l, in.sample().dtype(), b, layout.sinusoids(), in.timesteps(), in.counter());
        if (condition != null && in.timestepCondition() != null) {
            t = l.add(t, l.linearRowwise(in.timestepCondition(), condition, null));                  // [B, sinusoids]
        }
        Tensor e = time.forward(l, t);                                                               // [B, E]
        Tensor label = classEmbedding(l, in, b);                                                     // [B, E]
        e = label == null ? e : l.add(e, label);                                                     // [B, E]
        e = added == null ? e : l.add(e, added.forward(l, textAndSizes(l, in, b)));                  // [B, E]
        return l.silu(e);                                                                            // [B, E]
    }

    private @Nullable Tensor classEmbedding(Layers l, Inputs in, long b) {
        Tensor labels = in.classLabels();
        if (layout.classKind() == ClassKind.NONE) {
            return null;
        }
        if (labels == null) {
            throw GatunException.invalid("class_labels are missing: this network is conditioned on them");
        }
        return switch (layout.classKind()) {
            case TABLE -> l.embedding(labels, classTable);
            case IDENTITY -> requireWidth("class_labels", labels, layout.dim());
            case TIMESTEP -> classes.forward(l, sinusoids(l, in.sample().dtype(), b, layout.sinusoids(), labels, null));
            case PROJECTION -> classes.forward(l, requireWidth("class_labels", labels, layout.classes()));
            case SIMPLE_PROJECTION -> l.linearRowwise(requireWidth("class_labels", labels, layout.classes()),
                    classTable, classBias);
            case NONE -> null;
        };
    }

    /// The pooled text, then the sinusoids of each size: [B, textTimeInput]
    private Tensor textAndSizes(Layers l, Inputs in, long b) {
        Tensor text = in.textEmbeds();
        Tensor ids = in.timeIds();
        long width = layout.textTimeDim();
        if (text == null || ids == null) {
            throw GatunException.invalid("%s are missing: this network is told pooled text and sizes",
                    text == null ? "text_embeds" : "time_ids");
        }
        if (text.rank() != 2 || ids.rank() != 2 || text.size(0) != b || ids.size(0) != b
                || text.size(1) + ids.size(1) * width != layout.textTimeInput()) {
            throw GatunException.invalid("text_embeds are %s and time_ids %s: expected [%d, P], [%d, n] with P + %d n"
                    + " = %d (projection_class_embeddings_input_dim)", Arrays.toString(text.shape()),
                    Arrays.toString(ids.shape()), b, b, width, layout.textTimeInput());
        }
        long n = ids.size(1);
        Tensor sizes = sinusoids(l, text.dtype(), b * n, width, ids.reshape(b * n), null);           // [B n, width]
        Tensor all = l.allocate(text.dtype(), b, layout.textTimeInput());
        l.copyInto(all.slice(1, 0, text.size(1)), text);                                             // [B, P]
        l.copyInto(all.slice(1, text.size(1), all.size(1)), sizes.reshape(b, n * width));            // [B, n width]
        return all;
    }

    private Tensor sinusoids(Layers l, DType dtype, long rows, long width, Tensor of, @Nullable Tensor counter) {
        return l.timestepEmbedding(dtype, rows, width, of, counter,
                layout.cosinesFirst() ? Sinusoids.COS_SIN : Sinusoids.SIN_COS, layout.shift());
    }

    private static Tensor requireWidth(String what, Tensor x, long width) {
        if (x.rank() != 2 || x.size(1) != width) {
            throw GatunException.invalid("%s are %s, expected [B, %d]", what, Arrays.toString(x.shape()), width);
        }
        return x;
    }
}
