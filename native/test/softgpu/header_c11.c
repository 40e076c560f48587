/* Can a strict C11 compiler, and with it jextract, read the control header alone? Compiled, not run. */
#include "softgpu/softgpu.h"
#include "softgpu/softgpu.h"

int softgpu_header_c11(void);
int softgpu_header_c11(void) { return SOFTGPU_NUM_COUNTERS; }
