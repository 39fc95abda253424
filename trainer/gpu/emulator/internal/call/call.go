//go:build gpu

// Package call has the calls of the CUDA driver that the emulator's tests need beyond package cu's.
package call

/*
#cgo LDFLAGS: -lcuda
#include <cuda.h>

static CUresult launch(CUfunction f, unsigned gx, unsigned gy, unsigned gz, unsigned bx, unsigned by, unsigned bz,
		unsigned shared, CUstream s, void *args) {
	void *params[] = {args};
	return cuLaunchKernel(f, gx, gy, gz, bx, by, bz, shared, s, params, 0);
}
*/
import "C"

import (
	"strconv"
	"unsafe"

	"gorgonia.org/cu"
)

// Error is a CUresult, not 0.
type Error int

func (e Error) Error() string {
	var text *C.char
	if C.cuGetErrorName(C.CUresult(e), &text) != 0 {
		return "CUDA error " + strconv.Itoa(int(e))
	}
	return C.GoString(text)
}

func result(r C.CUresult) error {
	if r == 0 {
		return nil
	}
	return Error(r)
}

// cu's handles are structures with one field.
func function(f cu.Function) C.CUfunction { return *(*C.CUfunction)(unsafe.Pointer(&f)) }
func stream(s cu.Stream) C.CUstream       { return *(*C.CUstream)(unsafe.Pointer(&s)) }

// Launch starts a kernel with one structure as its parameter.
func Launch(f cu.Function, grid, block [3]int, sharedBytes int, s cu.Stream, args unsafe.Pointer) error {
	return result(C.launch(function(f), C.uint(grid[0]), C.uint(grid[1]), C.uint(grid[2]),
		C.uint(block[0]), C.uint(block[1]), C.uint(block[2]), C.uint(sharedBytes), stream(s), args))
}

// AllowShared lets launches of f ask for more shared memory than 48 KiB.
func AllowShared(f cu.Function, bytes int) error {
	return result(C.cuFuncSetAttribute(function(f), C.CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES, C.int(bytes)))
}

// Graph is what was captured, ready to be launched.
type Graph struct{ exec C.CUgraphExec }

// Begin captures what is given to s from now on, in relaxed mode or in the strictest.
func Begin(s cu.Stream, relaxed bool) error {
	mode := C.CUstreamCaptureMode(C.CU_STREAM_CAPTURE_MODE_GLOBAL)
	if relaxed {
		mode = C.CU_STREAM_CAPTURE_MODE_RELAXED
	}
	return result(C.cuStreamBeginCapture(stream(s), mode))
}

// End ends the capture of s.
func End(s cu.Stream) (Graph, error) {
	var g C.CUgraph
	var exec C.CUgraphExec
	if err := result(C.cuStreamEndCapture(stream(s), &g)); err != nil {
		return Graph{}, err
	}
	if err := result(C.cuGraphInstantiateWithFlags(&exec, g, 0)); err != nil {
		return Graph{}, err
	}
	return Graph{exec}, result(C.cuGraphDestroy(g))
}

// Launch replays the graph.
func (g Graph) Launch(s cu.Stream) error { return result(C.cuGraphLaunch(g.exec, stream(s))) }

// Destroy frees it.
func (g Graph) Destroy() error { return result(C.cuGraphExecDestroy(g.exec)) }

// Clone calls a function that the emulated driver does not have.
func Clone() error {
	var g C.CUgraph
	return result(C.cuGraphClone(&g, nil))
}

// Pinned allocates memory of the host that the device reads and writes by itself.
func Pinned(bytes int) (unsafe.Pointer, error) {
	var p unsafe.Pointer
	err := result(C.cuMemHostAlloc(&p, C.size_t(bytes), 0))
	return p, err
}

// ToHost copies to memory of the host, in the order of the stream.
func ToHost(to unsafe.Pointer, from cu.DevicePtr, bytes int64, s cu.Stream) error {
	return result(C.cuMemcpyDtoHAsync(to, C.CUdeviceptr(from), C.size_t(bytes), stream(s)))
}
