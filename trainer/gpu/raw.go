//go:build gpu

package gpu

// This file has the calls of the driver that package cu lacks: launches with a
// structure as argument, recorded graphs, pinned memory.

// #include <cuda.h>
import "C"

import (
	"fmt"
	"unsafe"

	"gorgonia.org/cu"
)

// The handles of package cu are structures of one field.

func rawStream(s cu.Stream) C.CUstream       { return *(*C.CUstream)(unsafe.Pointer(&s)) }
func rawFunction(f cu.Function) C.CUfunction { return *(*C.CUfunction)(unsafe.Pointer(&f)) }

// failed is the error of a call of the driver.
func failed(call string, code C.CUresult) error {
	if code == C.CUDA_SUCCESS {
		return nil
	}
	if code == C.CUDA_ERROR_OUT_OF_MEMORY {
		return fmt.Errorf("%w: %s", ErrMemory, call)
	}
	return callError{call, code}
}

// callError is an error of a call of the driver, other than that memory is too small.
type callError struct {
	call string
	code C.CUresult
}

func (e callError) Error() string { return e.call + ": " + nameOf(e.code) }

// nameOf is the name of an error's code, such as CUDA_ERROR_ILLEGAL_ADDRESS.
func nameOf(code C.CUresult) string {
	var name *C.char
	if C.cuGetErrorName(code, &name) != C.CUDA_SUCCESS || name == nil {
		return fmt.Sprintf("error %d", int(code))
	}
	return C.GoString(name)
}

// faultIn returns the name of the first error in err that says that the context, or the
// whole device, can no longer be used; "" if there is none. Every later call returns such
// an error too, so the call that returned it is of no interest.
func faultIn(err error) string {
	switch e := err.(type) {
	case callError:
		return faultName(e.code)
	case interface{ Unwrap() error }:
		return faultIn(e.Unwrap())
	case interface{ Unwrap() []error }:
		for _, one := range e.Unwrap() {
			if name := faultIn(one); name != "" {
				return name
			}
		}
	}
	if code, ok := like(cu.Success, err); ok { // an error of package cu
		return faultName(C.CUresult(code))
	}
	return ""
}

func faultName(code C.CUresult) string {
	if harmless(code) {
		return ""
	}
	return nameOf(code)
}

// like returns err as the type of an example, which need not be exported.
func like[T error](_ T, err error) (T, bool) {
	e, ok := err.(T)
	return e, ok
}

// harmless reports whether after this code other calls work as before: the caller asked
// for something that cannot be. All other codes, also those of later drivers, are faults.
func harmless(code C.CUresult) bool {
	switch code {
	case C.CUDA_SUCCESS, C.CUDA_ERROR_INVALID_VALUE, C.CUDA_ERROR_OUT_OF_MEMORY, C.CUDA_ERROR_INVALID_IMAGE,
		C.CUDA_ERROR_NO_BINARY_FOR_GPU, C.CUDA_ERROR_UNSUPPORTED_LIMIT, C.CUDA_ERROR_INVALID_PTX,
		C.CUDA_ERROR_JIT_COMPILER_NOT_FOUND, C.CUDA_ERROR_UNSUPPORTED_PTX_VERSION,
		C.CUDA_ERROR_JIT_COMPILATION_DISABLED, C.CUDA_ERROR_INVALID_HANDLE, C.CUDA_ERROR_ILLEGAL_STATE,
		C.CUDA_ERROR_NOT_FOUND, C.CUDA_ERROR_NOT_READY, C.CUDA_ERROR_LAUNCH_OUT_OF_RESOURCES,
		C.CUDA_ERROR_COOPERATIVE_LAUNCH_TOO_LARGE, C.CUDA_ERROR_NOT_PERMITTED, C.CUDA_ERROR_NOT_SUPPORTED:
		return true
	}
	return code >= C.CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED && code <= C.CUDA_ERROR_STREAM_CAPTURE_WRONG_THREAD
}

// launchRaw starts a kernel whose one argument is a structure.
func launchRaw(f cu.Function, grid, block [3]int, shared int, s cu.Stream, args []byte) error {
	// C may not read an array in Go's memory that holds pointers to Go's memory.
	params := (*unsafe.Pointer)(C.malloc(C.size_t(unsafe.Sizeof(uintptr(0)))))
	defer C.free(unsafe.Pointer(params))
	data := C.CBytes(args)
	defer C.free(data)
	*params = data
	return failed("cuLaunchKernel", C.cuLaunchKernel(rawFunction(f),
		C.uint(grid[0]), C.uint(grid[1]), C.uint(grid[2]), C.uint(block[0]), C.uint(block[1]), C.uint(block[2]),
		C.uint(shared), rawStream(s), params, nil))
}

// graphExec is a recorded list of launches.
type graphExec struct{ exec C.CUgraphExec }

// record returns the work that f puts into the stream, which is not done.
func record(s cu.Stream, f func() error) (g graphExec, err error) {
	if err := failed("cuStreamBeginCapture",
		C.cuStreamBeginCapture(rawStream(s), C.CU_STREAM_CAPTURE_MODE_RELAXED)); err != nil {
		return g, err
	}
	err = f()
	var graph C.CUgraph
	if e := failed("cuStreamEndCapture", C.cuStreamEndCapture(rawStream(s), &graph)); err == nil {
		err = e
	}
	if graph != nil {
		defer C.cuGraphDestroy(graph)
	}
	if err != nil {
		return g, err
	}
	return g, failed("cuGraphInstantiate", C.cuGraphInstantiateWithFlags(&g.exec, graph, 0))
}

func (g graphExec) launch(s cu.Stream) error {
	return failed("cuGraphLaunch", C.cuGraphLaunch(g.exec, rawStream(s)))
}

func (g graphExec) destroy() {
	if g.exec != nil {
		C.cuGraphExecDestroy(g.exec)
	}
}

// hostAlloc returns memory of the host from which the device can copy while the
// program does other work.
func hostAlloc(bytes int) (unsafe.Pointer, error) {
	var p unsafe.Pointer
	err := failed("cuMemHostAlloc", C.cuMemHostAlloc(&p, C.size_t(max(bytes, 1)), 0))
	return p, err
}
