package kernel

import (
	"fmt"
	"math"
	"syscall"
	"unsafe"
)

// Arena holds memory outside the Go heap: C structures may point at it, and it can
// have large pages. The arena is not safe for concurrent use; its memory is.
type Arena struct {
	maps  [][]byte
	chunk []byte // the unused rest of the last shared map
}

const (
	alignBytes = 64
	chunkBytes = 2 << 20 // a huge page
)

// MemoryError is the panic of Floats and Doubles if the system gives no more memory.
// A function that fills an arena recovers it, so that not each of some hundred
// allocations needs a check.
type MemoryError struct {
	Bytes int
	Err   error
}

func (e MemoryError) Error() string {
	return fmt.Sprintf("no memory for %d MB more (%v): fewer workers or a smaller batch need less", e.Bytes>>20, e.Err)
}

func (e MemoryError) Unwrap() error { return e.Err }

// Floats returns n zeros, 64-byte aligned. It panics with a MemoryError.
func (a *Arena) Floats(n int) []float32 {
	if n == 0 {
		return nil
	}
	return unsafe.Slice((*float32)(a.alloc(4*n)), n)
}

// Doubles returns n zeros, 64-byte aligned.
func (a *Arena) Doubles(n int) []float64 {
	if n == 0 {
		return nil
	}
	return unsafe.Slice((*float64)(a.alloc(8*n)), n)
}

// Free gives all memory back. It may not be used afterwards.
func (a *Arena) Free() {
	for _, m := range a.maps {
		_ = syscall.Munmap(m)
	}
	*a = Arena{}
}

func (a *Arena) alloc(n int) unsafe.Pointer {
	n = (n + alignBytes - 1) &^ (alignBytes - 1)
	if n >= chunkBytes/2 {
		return unsafe.Pointer(unsafe.SliceData(a.mmap(n)))
	}
	if len(a.chunk) < n {
		a.chunk = a.mmap(chunkBytes)
	}
	p := unsafe.Pointer(unsafe.SliceData(a.chunk))
	a.chunk = a.chunk[n:]
	return p
}

func (a *Arena) mmap(n int) []byte {
	if n <= 0 { // a product of sizes that is too large for an int
		panic(MemoryError{math.MaxInt, syscall.ENOMEM})
	}
	m, err := syscall.Mmap(-1, 0, n, syscall.PROT_READ|syscall.PROT_WRITE, syscall.MAP_ANON|syscall.MAP_PRIVATE)
	if err != nil {
		panic(MemoryError{n, err})
	}
	_ = syscall.Madvise(m, 14 /* MADV_HUGEPAGE; a hint, absent on some systems */)
	a.maps = append(a.maps, m)
	return m
}
