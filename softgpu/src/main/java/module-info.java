/// Controls for the stand-ins of CUDA: a test kit for programs that use Gatun on a GPU, on machines without one.
@org.jspecify.annotations.NullMarked
module io.gatun.softgpu {
    requires static org.jspecify;
    requires io.gatun.runtime;

    exports io.gatun.softgpu;
}
