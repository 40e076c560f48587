/// Generated bindings of libgatun and of the native libraries that the runtime drives. The only module that needs
/// native access: `--enable-native-access=io.gatun.bindings`.
@SuppressWarnings("module") // io.gatun.runtime, which alone may read this module, is compiled after it
@org.jspecify.annotations.NullMarked
module io.gatun.bindings {
    requires static org.jspecify;

    exports io.gatun.bindings to io.gatun.runtime;
    exports io.gatun.bindings.cublaslt to io.gatun.runtime;
    exports io.gatun.bindings.cudart to io.gatun.runtime;
    exports io.gatun.bindings.cudnn to io.gatun.runtime;
    exports io.gatun.bindings.gatun to io.gatun.runtime;
    exports io.gatun.bindings.onednn to io.gatun.runtime;
}
