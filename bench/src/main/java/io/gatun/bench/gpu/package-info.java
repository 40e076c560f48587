/// Does everything work on this GPU, and how fast? What `gpu-suite.sh` of the archive that `bench/bundle.sh` makes
/// runs.
@NullMarked
package io.gatun.bench.gpu;

import org.jspecify.annotations.NullMarked;
