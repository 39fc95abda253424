#include "igc.h"
void BF16(igc_bf16_conv_forward)(const igc_conv *a) {}
void BF16(igc_bf16_conv_backward)(const igc_conv *a) {}
void BF16(igc_bf16_pool_forward)(const igc_head *a) {}
void BF16(igc_bf16_pool_backward)(const igc_head *a) {}
void BF16(igc_bf16_linear_forward)(const igc_head *a) {}
void BF16(igc_bf16_linear_backward)(const igc_head *a) {}
void BF16(igc_bf16_add_forward)(const igc_add *a) {}
void BF16(igc_bf16_add_backward)(const igc_add *a) {}
void BF16(igc_bf16_max_forward)(const igc_max *a) {}
void BF16(igc_bf16_max_backward)(const igc_max *a) {}
void BF16(igc_bf16_sum)(float *to, const float *from, long n) {}
void BF16(igc_bf16_row)(const igc_conv *a, int micro, long n) {}
void BF16(igc_bf16_probe)(igc_probe *p) {}
