/// How fast is Gatun on this machine, against what the machine can do? `gatun bench`.
@NullMarked
package io.gatun.bench;

import org.jspecify.annotations.NullMarked;
