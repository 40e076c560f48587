/* Can a strict C11 compiler read a public header alone? Compiled once per header, which GT_HEADER names, without a test
 * of its own: the build fails. Twice, for the include guard. */
#include GT_HEADER
#include GT_HEADER

/* No header of ours leaves a declaration open. */
int gt_header_c11(void);
int gt_header_c11(void) { return 0; }
