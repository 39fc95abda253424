// 3×3 and 1×1 convolutions, for 1 to 8 output channels in a thread: one file of
// machine code for each number, so that a training loads only what it runs.
#include "conv.h"

// Rows of pixels of a thread: with 8 columns and CO channels at most 64 sums.
#define ROWS(CO) (CO <= 2 ? 4 : CO <= 4 ? 2 : 1)

#define CONV(CO) \
	KERNEL(conv3x3_plain_co##CO, igc_conv, 256) { conv<3, 3, 1, false, PLAIN, CO, ROWS(CO), 8>(a); } \
	KERNEL(conv3x3_normal_co##CO, igc_conv, 256) { conv<3, 3, 1, false, NORMAL, CO, ROWS(CO), 8>(a); } \
	KERNEL(conv3x3_gradient_co##CO, igc_conv, 256) { conv<3, 3, 1, false, GRADIENT, CO, ROWS(CO), 8>(a); } \
	KERNEL(conv3x3s2_normal_co##CO, igc_conv, 256) { conv<3, 3, 2, false, NORMAL, CO, ROWS(CO) == 4 ? 2 : ROWS(CO), 8>(a); } \
	KERNEL(conv3x3s2_up_plain_co##CO, igc_conv, 256) { conv<3, 3, 2, true, PLAIN, CO, 2, CO <= 4 ? 8 : 4>(a); } \
	KERNEL(conv3x3s2_up_gradient_co##CO, igc_conv, 256) { conv<3, 3, 2, true, GRADIENT, CO, 2, CO <= 4 ? 8 : 4>(a); } \
	KERNEL(conv1x1_plain_co##CO, igc_conv, 256) { conv<1, 1, 1, false, PLAIN, CO, ROWS(CO), 8>(a); } \
	KERNEL(conv1x1_normal_co##CO, igc_conv, 256) { conv<1, 1, 1, false, NORMAL, CO, ROWS(CO), 8>(a); } \
	KERNEL(conv1x1_gradient_co##CO, igc_conv, 256) { conv<1, 1, 1, false, GRADIENT, CO, ROWS(CO), 8>(a); }

#ifdef IGC_CO
#define CONV_OF(CO) CONV(CO)
CONV_OF(IGC_CO)
#else
CONV(1)
CONV(2)
CONV(3)
CONV(4)
CONV(5)
CONV(6)
CONV(7)
CONV(8)
#endif
