// 1×1 convolutions by matrix units, which GPUs have from compute capability 8.0 on.
#include "conv_tc.h"

#define CONV_TF32(TILES) \
	KERNEL(conv_tf32_plain_x##TILES, igc_conv, 256) { conv_tf32<PLAIN, TILES>(a); } \
	KERNEL(conv_tf32_normal_x##TILES, igc_conv, 256) { conv_tf32<NORMAL, TILES>(a); } \
	KERNEL(conv_tf32_gradient_x##TILES, igc_conv, 256) { conv_tf32<GRADIENT, TILES>(a); }

CONV_TF32(1)
CONV_TF32(2)
CONV_TF32(3)
CONV_TF32(4)
CONV_TF32(5)
CONV_TF32(6)
CONV_TF32(7)
CONV_TF32(8)

#define WEIGHT_GRAD_TF32(OUT, IN) \
	KERNEL(weight_grad_tf32_##OUT##x##IN, igc_weight_grad, 256) { weight_grad_tf32<OUT, IN>(a); }

WEIGHT_GRAD_TF32(1, 2)
WEIGHT_GRAD_TF32(2, 3)
WEIGHT_GRAD_TF32(2, 4)
WEIGHT_GRAD_TF32(3, 3)
WEIGHT_GRAD_TF32(3, 5)
WEIGHT_GRAD_TF32(4, 4)
