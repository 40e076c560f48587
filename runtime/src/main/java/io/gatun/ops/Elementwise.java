package io.gatun.ops;

import io.gatun.bindings.gatun.Gatun;
import io.gatun.runtime.GatunException;
import io.gatun.runtime.Stream;
import io.gatun.runtime.Tensor;

/// Arithmetic, activations, gated units, their gradients, dropout, casts and copies. Operands have one shape and, where
/// nothing else is said, one float dtype; any strides; `y` may be an input itself. Arithmetic in f32, rounded once.
public final class Elementwise {
    private Elementwise() {}

    /// `y = a + b`.
    public static void add(Stream stream, Tensor y, Tensor a, Tensor b) {
        stream.enter("add");
        try {
            stream.check(Gatun.gt_add(stream.descriptor(), y.on(stream), a.on(stream), b.on(stream)));
        } finally {
            stream.exit();
        }
    }

    /// `y = a * b`.
    public static void mul(Stream stream, Tensor y, Tensor a, Tensor b) {
        stream.enter("mul");
        try {
            stream.check(Gatun.gt_mul(stream.descriptor(), y.on(stream), a.on(stream), b.on(stream)));
        } finally {
            stream.exit();
        }
    }

    /// `y = factor * x`.
    public static void scale(Stream stream, Tensor y, Tensor x, float factor) {
        stream.enter("scale");
        try {
            stream.check(Gatun.gt_scale(stream.descriptor(), y.on(stream), x.on(stream), factor));
        } finally {
            stream.exit();
        }
    }

    /// `y = x (1 + erf(x / sqrt 2)) / 2`: the exact GELU, `gelu` in config.json. Hendrycks and Gimpel 2016, arXiv
    /// 1606.08415.
    public static void geluErf(Stream stream, Tensor y, Tensor x) {
        stream.enter("gelu_erf");
        try {
            stream.check(Gatun.gt_gelu_erf(stream.descriptor(), y.on(stream), x.on(stream)));
        } finally {
            stream.exit();
        }
    }

    /// `y = x (1 + tanh(sqrt(2/pi) (x + 0.044715 x^3))) / 2`: `gelu_new`, `gelu_pytorch_tanh`.
    public static void geluTanh(Stream stream, Tensor y, Tensor x) {
        stream.enter("gelu_tanh");
        try {
            stream.check(Gatun.gt_gelu_tanh(stream.descriptor(), y.on(stream), x.on(stream)));
        } finally {
            stream.exit();
        }
    }

    /// `y = x sigmoid(1.702 x)`: `quick_gelu`.
    public static void quickGelu(Stream stream, Tensor y, Tensor x) {
        stream.enter("quick_gelu");
        try {
            stream.check(Gatun.gt_quick_gelu(stream.descriptor(), y.on(stream), x.on(stream)));
        } finally {
            stream.exit();
        }
    }

    /// `y = x sigmoid(x)`: `silu`, `swish`.
    public static void silu(Stream stream, Tensor y, Tensor x) {
        stream.enter("silu");
        try {
            stream.check(Gatun.gt_silu(stream.descriptor(), y.on(stream), x.on(stream)));
        } finally {
            stream.exit();
        }
    }

    /// `y = max(x, 0)`; NaN stays NaN.
    public static void relu(Stream stream, Tensor y, Tensor x) {
        stream.enter("relu");
        try {
            stream.check(Gatun.gt_relu(stream.descriptor(), y.on(stream), x.on(stream)));
        } finally {
            stream.exit();
        }
    }

    /// `y = x > 0 ? x : slope * x`.
    public static void leakyRelu(Stream stream, Tensor y, Tensor x, float slope) {
        stream.enter("leaky_relu");
        try {
            stream.check(Gatun.gt_leaky_relu(stream.descriptor(), y.on(stream), x.on(stream), slope));
        } finally {
            stream.exit();
        }
    }

    /// `y = tanh(x)`.
    public static void tanh(Stream stream, Tensor y, Tensor x) {
        stream.enter("tanh");
        try {
            stream.check(Gatun.gt_tanh(stream.descriptor(), y.on(stream), x.on(stream)));
        } finally {
            stream.exit();
        }
    }

    /// `y = 1 / (1 + exp(-x))`.
    public static void sigmoid(Stream stream, Tensor y, Tensor x) {
        stream.enter("sigmoid");
        try {
            stream.check(Gatun.gt_sigmoid(stream.descriptor(), y.on(stream), x.on(stream)));
        } finally {
            stream.exit();
        }
    }

    /// `y = silu(gate) * up`. Shazeer 2020, arXiv 2002.05202.
    public static void swiglu(Stream stream, Tensor y, Tensor gate, Tensor up) {
        stream.enter("swiglu");
        try {
            stream.check(Gatun.gt_swiglu(stream.descriptor(), y.on(stream), gate.on(stream), up.on(stream)));
        } finally {
            stream.exit();
        }
    }

    /// `y = geluErf(gate) * up`.
    public static void geglu(Stream stream, Tensor y, Tensor gate, Tensor up) {
        stream.enter("geglu");
        try {
            stream.check(Gatun.gt_geglu(stream.descriptor(), y.on(stream), gate.on(stream), up.on(stream)));
        } finally {
            stream.exit();
        }
    }

    /// `y = geluTanh(gate) * up`: T5's gated gelu_new.
    public static void gegluTanh(Stream stream, Tensor y, Tensor gate, Tensor up) {
        stream.enter("geglu_tanh");
        try {
            stream.check(Gatun.gt_geglu_tanh(stream.descriptor(), y.on(stream), gate.on(stream), up.on(stream)));
        } finally {
            stream.exit();
        }
    }

    /// `y = x * (1 + scale) + shift`: adaptive layer norm's modulation. Peebles and Xie 2022, arXiv 2212.09748.
    public static void modulate(Stream stream, Tensor y, Tensor x, Tensor scale, Tensor shift) {
        stream.enter("modulate");
        try {
            stream.check(Gatun.gt_modulate(stream.descriptor(), y.on(stream), x.on(stream), scale.on(stream),
                    shift.on(stream)));
        } finally {
            stream.exit();
        }
    }

    /// `y = x + gate * h`: a gated residual.
    public static void addGated(Stream stream, Tensor y, Tensor x, Tensor gate, Tensor h) {
        stream.enter("add_gated");
        try {
            stream.check(Gatun.gt_add_gated(stream.descriptor(), y.on(stream), x.on(stream), gate.on(stream),
                    h.on(stream)));
        } finally {
            stream.exit();
        }
    }

    /// `y = mean + exp(clamp(logvar, -30, 20) / 2) * eps`: a draw from a Gaussian, eps being one from the standard
    /// Gaussian. Kingma and Welling 2013, arXiv 1312.6114.
    public static void gaussian(Stream stream, Tensor y, Tensor mean, Tensor logvar, Tensor eps) {
        stream.enter("gaussian");
        try {
            stream.check(Gatun.gt_gaussian(stream.descriptor(), y.on(stream), mean.on(stream), logvar.on(stream),
                    eps.on(stream)));
        } finally {
            stream.exit();
        }
    }

    /// `dx = dy (Phi(x) + x phi(x))`, Phi and phi the normal distribution and its density. dx may be dy or x.
    public static void geluErfBackward(Stream stream, Tensor dx, Tensor dy, Tensor x) {
        stream.enter("gelu_erf_backward");
        try {
            stream.check(Gatun.gt_gelu_erf_backward(stream.descriptor(), dx.on(stream), dy.on(stream), x.on(stream)));
        } finally {
            stream.exit();
        }
    }

    /// `dx = dy f'(x)`, f [#geluTanh]. dx may be dy or x.
    public static void geluTanhBackward(Stream stream, Tensor dx, Tensor dy, Tensor x) {
        stream.enter("gelu_tanh_backward");
        try {
            stream.check(Gatun.gt_gelu_tanh_backward(stream.descriptor(), dx.on(stream), dy.on(stream), x.on(stream)));
        } finally {
            stream.exit();
        }
    }

    /// `dx = dy (s + 1.702 x s (1 - s))`, `s = sigmoid(1.702 x)`. dx may be dy or x.
    public static void quickGeluBackward(Stream stream, Tensor dx, Tensor dy, Tensor x) {
        stream.enter("quick_gelu_backward");
        try {
            stream.check(Gatun.gt_quick_gelu_backward(stream.descriptor(), dx.on(stream), dy.on(stream), x.on(stream)));
        } finally {
            stream.exit();
        }
    }

    /// `dx = dy (s + x s (1 - s))`, `s = sigmoid(x)`. dx may be dy or x.
    public static void siluBackward(Stream stream, Tensor dx, Tensor dy, Tensor x) {
        stream.enter("silu_backward");
        try {
            stream.check(Gatun.gt_silu_backward(stream.descriptor(), dx.on(stream), dy.on(stream), x.on(stream)));
        } finally {
            stream.exit();
        }
    }

    /// `dx = x <= 0 ? 0 : dy`. dx may be dy or x.
    public static void reluBackward(Stream stream, Tensor dx, Tensor dy, Tensor x) {
        stream.enter("relu_backward");
        try {
            stream.check(Gatun.gt_relu_backward(stream.descriptor(), dx.on(stream), dy.on(stream), x.on(stream)));
        } finally {
            stream.exit();
        }
    }

    /// `dx = x > 0 ? dy : slope * dy`. dx may be dy or x.
    public static void leakyReluBackward(Stream stream, Tensor dx, Tensor dy, Tensor x, float slope) {
        stream.enter("leaky_relu_backward");
        try {
            stream.check(Gatun.gt_leaky_relu_backward(stream.descriptor(), dx.on(stream), dy.on(stream),
                    x.on(stream), slope));
        } finally {
            stream.exit();
        }
    }

    /// `dx = dy (1 - y^2)`, y the result of [#tanh]. dx may be dy or y.
    public static void tanhBackward(Stream stream, Tensor dx, Tensor dy, Tensor y) {
        stream.enter("tanh_backward");
        try {
            stream.check(Gatun.gt_tanh_backward(stream.descriptor(), dx.on(stream), dy.on(stream), y.on(stream)));
        } finally {
            stream.exit();
        }
    }

    /// `dx = dy y (1 - y)`, y the result of [#sigmoid]. dx may be dy or y.
    public static void sigmoidBackward(Stream stream, Tensor dx, Tensor dy, Tensor y) {
        stream.enter("sigmoid_backward");
        try {
            stream.check(Gatun.gt_sigmoid_backward(stream.descriptor(), dx.on(stream), dy.on(stream), y.on(stream)));
        } finally {
            stream.exit();
        }
    }

    /// `dgate = dy up f'(gate)`, `dup = dy f(gate)`, f [#silu]. Each result may be any one input.
    public static void swigluBackward(Stream stream, Tensor dgate, Tensor dup, Tensor dy, Tensor gate, Tensor up) {
        stream.enter("swiglu_backward");
        try {
            stream.check(Gatun.gt_swiglu_backward(stream.descriptor(), dgate.on(stream), dup.on(stream),
                    dy.on(stream), gate.on(stream), up.on(stream)));
        } finally {
            stream.exit();
        }
    }

    /// `dgate = dy up f'(gate)`, `dup = dy f(gate)`, f [#geluErf]. Each result may be any one input.
    public static void gegluBackward(Stream stream, Tensor dgate, Tensor dup, Tensor dy, Tensor gate, Tensor up) {
        stream.enter("geglu_backward");
        try {
            stream.check(Gatun.gt_geglu_backward(stream.descriptor(), dgate.on(stream), dup.on(stream),
                    dy.on(stream), gate.on(stream), up.on(stream)));
        } finally {
            stream.exit();
        }
    }

    /// `dgate = dy up f'(gate)`, `dup = dy f(gate)`, f [#geluTanh]. Each result may be any one input.
    public static void gegluTanhBackward(Stream stream, Tensor dgate, Tensor dup, Tensor dy, Tensor gate, Tensor up) {
        stream.enter("geglu_tanh_backward");
        try {
            stream.check(Gatun.gt_geglu_tanh_backward(stream.descriptor(), dgate.on(stream), dup.on(stream),
                    dy.on(stream), gate.on(stream), up.on(stream)));
        } finally {
            stream.exit();
        }
    }

    /// `dlogvar = dy eps exp(logvar / 2) / 2`, 0 where [#gaussian] clamps logvar; the mean's gradient is dy itself.
    public static void gaussianBackward(Stream stream, Tensor dlogvar, Tensor dy, Tensor logvar, Tensor eps) {
        stream.enter("gaussian_backward");
        try {
            stream.check(Gatun.gt_gaussian_backward(stream.descriptor(), dlogvar.on(stream), dy.on(stream),
                    logvar.on(stream), eps.on(stream)));
        } finally {
            stream.exit();
        }
    }

    /// `y = min(max(x, low), high)`; NaN stays NaN.
    public static void clamp(Stream stream, Tensor y, Tensor x, float low, float high) {
        stream.enter("clamp");
        try {
            stream.check(Gatun.gt_clamp(stream.descriptor(), y.on(stream), x.on(stream), low, high));
        } finally {
            stream.exit();
        }
    }

    /// `y = x / (1 - probability)` where kept, else 0: an element is kept where the Philox uniform of its row-major
    /// index is above the probability. The same call on dy is the backward pass. Srivastava et al. 2014.
    ///
    /// @param y           contiguous, may be `x`
    /// @param probability in [0, 1]
    /// @param step        [1] i32, read on the device: which step of the training
    /// @param layer       tells apart the dropouts of a step
    public static void dropout(Stream stream, Tensor y, Tensor x, float probability, long seed, Tensor step,
            int layer) {
        stream.enter("dropout");
        try {
            stream.check(Gatun.gt_dropout(stream.descriptor(), y.on(stream), x.on(stream), probability, seed,
                    step.on(stream), layer));
        } finally {
            stream.exit();
        }
    }

    /// `y = x` in y's dtype; both floats, rounded to nearest even.
    public static void cast(Stream stream, Tensor y, Tensor x) {
        stream.enter("cast");
        try {
            stream.check(Gatun.gt_cast(stream.descriptor(), y.on(stream), x.on(stream)));
        } finally {
            stream.exit();
        }
    }

    /// `y = value` everywhere; any dtype, integers take the value truncated.
    public static void fill(Stream stream, Tensor y, double value) {
        stream.enter("fill");
        try {
            stream.check(Gatun.gt_fill(stream.descriptor(), y.on(stream), value));
        } finally {
            stream.exit();
        }
    }

    /// `y = x` for one shape and dtype, any strides: copies and, with [Tensor#permute], transposes.
    public static void copy(Stream stream, Tensor y, Tensor x) {
        stream.enter("copy");
        try {
            stream.check(Gatun.gt_copy(stream.descriptor(), y.on(stream), x.on(stream)));
        } finally {
            stream.exit();
        }
    }

    /// `count[0]` = how many elements of `x` are NaN or infinite; `count` is [1] i64.
    public static void countNonfinite(Stream stream, Tensor count, Tensor x) {
        stream.enter("count_nonfinite");
        try {
            stream.check(Gatun.gt_count_nonfinite(stream.descriptor(), count.on(stream), x.on(stream)));
        } finally {
            stream.exit();
        }
    }

    /// Puts tensors one after the other along a dimension of `y`.
    public static void concat(Stream stream, Tensor y, int dim, Tensor... parts) {
        long at = 0;
        for (Tensor part : parts) {
            copy(stream, y.slice(dim, at, at + part.size(dim)), part);
            at += part.size(dim);
        }
        if (at != y.size(dim)) {
            throw GatunException.invalid("concat: the parts have %d along dimension %d, y has %d", at, dim,
                    y.size(dim));
        }
    }
}
