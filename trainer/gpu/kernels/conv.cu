// 3×3 and 1×1 convolutions, for 1 to 8 output channels in a thread: one file of
// machine code for each number, so that a training loads only what it runs.
#include "conv.h"

// Rows and columns of pixels of a thread with CO output channels; chooseConv of
// ../conv.go has the same. A 3×3 kernel has at most 32 sums, so that 96 registers suffice
// it and 640 threads run at once; a 1×1 kernel has 64, since it has fewer products for
// each read.
__host__ __device__ constexpr int rows(int co) { return co <= 2 ? 4 : co <= 4 ? 2 : 1; }
__host__ __device__ constexpr int rows_gradient(int co) { return co <= 2 ? 2 : 1; }
__host__ __device__ constexpr int rows_s2(int co) { return co <= 2 ? 2 : 1; }
__host__ __device__ constexpr int rows_up(int co) { return co <= 2 ? 4 : 2; }
__host__ __device__ constexpr int columns1x1(int co) { return co <= 2 ? 16 : 8; }

#define CONV(CO) \
	KERNEL_FOR(conv3x3_plain_co##CO, igc_conv, 320, 640) { conv<3, 3, 1, false, PLAIN, CO, rows(CO), 4, CO == 1 ? 2 : 1>(a); } \
	KERNEL_FOR(conv3x3_normal_co##CO, igc_conv, 320, 640) { conv<3, 3, 1, false, NORMAL, CO, rows(CO), 4, CO == 1 ? 2 : 1>(a); } \
	KERNEL_FOR(conv3x3_gradient_co##CO, igc_conv, 256, 512) { conv<3, 3, 1, false, GRADIENT, CO, rows_gradient(CO), 4, 1>(a); } \
	KERNEL_FOR(conv3x3s2_normal_co##CO, igc_conv, 256, 512) { conv<3, 3, 2, false, NORMAL, CO, rows_s2(CO), 4, 1>(a); } \
	KERNEL_FOR(conv3x3s2_up_plain_co##CO, igc_conv, 256, 512) { conv<3, 3, 2, true, PLAIN, CO, rows_up(CO), 4, 1>(a); } \
	KERNEL_FOR(conv3x3s2_up_gradient_co##CO, igc_conv, 256, 512) { conv<3, 3, 2, true, GRADIENT, CO, rows_up(CO), 4, 1>(a); } \
	KERNEL_FOR(conv1x1_plain_co##CO, igc_conv, 256, 512) { conv<1, 1, 1, false, PLAIN, CO, 1, columns1x1(CO), 2>(a); } \
	KERNEL_FOR(conv1x1_normal_co##CO, igc_conv, 256, 512) { conv<1, 1, 1, false, NORMAL, CO, 1, columns1x1(CO), CO == 2 ? 1 : 2>(a); } \
	KERNEL_FOR(conv1x1_gradient_co##CO, igc_conv, 256, 512) { conv<1, 1, 1, false, GRADIENT, CO, 1, columns1x1(CO), 1>(a); }

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
