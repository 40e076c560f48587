/// What does Java itself cost? JMH benchmarks of calls, views and decode steps that give the native side nothing to do.
@NullMarked
package io.gatun.bench.host;

import org.jspecify.annotations.NullMarked;
