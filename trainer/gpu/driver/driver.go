//go:build gpu

// Package driver says why there is no CUDA device. Its folder holds what stands between the program and the driver: the
// header with which everything is compiled (include/cuda.h) and the library that is linked in the driver's place and
// opens the real one when the program starts (shim.c, made by build.sh).
package driver

// #cgo LDFLAGS: -lcuda -ldl
// const char *igc_cuda_why(void);
import "C"

// Why is one line on why no device can be used, such as "libcuda.so.1: cannot open shared object file" or
// "cuInit: CUDA_ERROR_NO_DEVICE"; empty where there is one. It holds from the moment package cu is initialised.
func Why() string { return C.GoString(C.igc_cuda_why()) }
