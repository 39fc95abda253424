//go:build gpu

// Package driver says why there is no CUDA device. Its folder has the header for the
// compiler (include/cuda.h), and a library that is linked in place of the driver and
// opens the real driver when the program starts (shim.c, built by build.sh).
package driver

// #cgo LDFLAGS: -lcuda -ldl
// const char *igc_cuda_why(void);
import "C"

// Why says on one line why no device can be used, such as "libcuda.so.1: cannot open
// shared object file" or "cuInit: CUDA_ERROR_NO_DEVICE"; "" if one can. It is valid
// after package cu is initialised.
func Why() string { return C.GoString(C.igc_cuda_why()) }
