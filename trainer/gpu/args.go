package gpu

import (
	"fmt"
	"reflect"
	"unsafe"
)

// The arguments of the kernels have the fields of kernels/args.h, which explains
// them. A pointer is a *buffer here; encode makes an address of it. A test compares
// the layouts.

type stepArgs struct {
	by      int32
	inverse uint32
}

// stepOf is for channels that lie by apart.
func stepOf(by int) stepArgs { return stepArgs{by: int32(by), inverse: uint32((1<<31 + by - 1) / by)} }

type convArgs struct {
	H, W, OH, OW         int32
	groups, ci, co       int32
	in, out              stepArgs
	transposed, turned   int32
	tiles, chunk         int32
	n, parts             int32
	kh, kw, stride, up   int32
	pixels               int32
	x, x2                *buffer
	scale, scale2, shift *buffer
	w, z, dz             *buffer
	mx, mscale, mshift   *buffer
	sums                 *buffer
	norm                 normArgs
	low, mlow            float32
}

type weightGradArgs struct {
	H, W, OH, OW         int32
	groups, ci, co       int32
	in, out              stepArgs
	n, rows              int32
	parts, tasks, across int32
	kh, kw, stride       int32
	x, scale, shift      *buffer
	g, z, ca, cb, cc     *buffer
	dw                   *buffer
	low                  float32
}

type normArgs struct {
	epsilon, factor         float32
	count, inverse          float64
	counters                *buffer
	weight, bias            *buffer
	runningMean, runningVar *buffer
	scale, shift            *buffer
	mean, istd, measured    *buffer
	state                   *buffer
	dweight, dbias          *buffer
	ca, cb, cc              *buffer
}

type affine struct{ weight, bias int32 }

type runningArgs struct {
	c              int32
	epsilon        float32
	affine, value  *buffer
	mean, variance *buffer
	scale, shift   *buffer
	state          *buffer
}

type measuredArgs struct {
	c                        int32
	measured, mean, variance *buffer
}

type unitArgs struct {
	c, h, w, n, parts int32
	z, scale, shift   *buffer
	x, xscale, xshift *buffer
	out, g, gx        *buffer
	sums, xsums       *buffer
	norm, xnorm       normArgs
	low               float32
}

type sumArgs struct {
	len      int64
	to, a, b *buffer
}

type batchArgs struct {
	c, h, w, batch, evaluating         int32
	pixels, labels, order, table, x, y *buffer
	state                              *buffer
}

type repackArgs struct {
	c, h, w, n int32
	from, x    *buffer
}

type headArgs struct {
	c, k, blocks            int32
	gain                    float32
	pool, weight, bias      *buffer
	logits, labels, dlogits *buffer
	loss, correct           *buffer
	dpool, dweight, dbias   *buffer
}

type updateArgs struct {
	momentum, decay float32
	segments, parts *buffer
	rates, state    *buffer
	value, velocity *buffer
	average, grad   *buffer
}

type exchangeArgs struct {
	len  int64
	a, b *buffer
}

type branchesArgs struct {
	len      int64
	branches int32
	from, to *buffer
}

type finishArgs struct {
	lanes, batch, evaluating int32
	loss, correct, state     *buffer
	losses, corrects         *buffer
}

// segment, show, affine and state lie in the device's memory.

type segment struct {
	from          int64
	len, decays   int32
	part          int64
	stride, parts int32
}

type show struct {
	picture           int32
	dy, dx, mirror, _ int8
}

type state struct {
	step, first, correct, total, odd int32
	loss                             float64
}

// buffer is a piece of the device's memory. It gets its place when all launches are
// known: buffers that are not needed at the same time share memory.
type buffer struct {
	name   string
	bytes  int
	of     *buffer // a part of another, offset bytes in; nil: not
	offset int

	kept        bool // it lasts longer than the launches
	first, last int  // the launches during which it is in use; first −1: none
	addr        uint64
}

// kept is memory that lasts as long as a model.
func kept(name string, bytes int) *buffer { return &buffer{name: name, bytes: bytes, kept: true} }

// at is the part of b with n elements of size bytes, from element i on.
func (b *buffer) at(i, n, size int) *buffer {
	return &buffer{name: b.name, of: b, offset: i * size, bytes: n * size}
}

func (b *buffer) root() *buffer {
	for b.of != nil {
		b = b.of
	}
	return b
}

func (b *buffer) address() uint64 {
	if b.of != nil {
		return b.of.address() + uint64(b.offset)
	}
	return b.addr
}

// visit calls f with every buffer of the arguments and its offset in them.
func visit(args any, f func(offset uintptr, b *buffer)) {
	v := reflect.ValueOf(args).Elem()
	visitStruct(v.Type(), v.Addr().UnsafePointer(), 0, func(offset uintptr, b **buffer) {
		if *b != nil {
			f(offset, *b)
		}
	})
}

// visitStruct calls f with every pointer to a buffer in a structure, also in the
// structures in it.
func visitStruct(t reflect.Type, at unsafe.Pointer, offset uintptr, f func(offset uintptr, b **buffer)) {
	for i := range t.NumField() {
		field := t.Field(i)
		place := offset + field.Offset
		switch {
		case field.Type == reflect.TypeFor[*buffer]():
			f(place, (**buffer)(unsafe.Add(at, place)))
		case field.Type.Kind() == reflect.Struct:
			visitStruct(field.Type, at, place, f)
		}
	}
}

// encode returns the arguments as the kernel reads them.
func encode(args any) []byte {
	v := reflect.ValueOf(args).Elem()
	raw := unsafe.Slice((*byte)(v.Addr().UnsafePointer()), v.Type().Size())
	out := append([]byte{}, raw...)
	visitStruct(v.Type(), v.Addr().UnsafePointer(), 0, func(offset uintptr, _ **buffer) { clear(out[offset : offset+8]) })
	visit(args, func(offset uintptr, b *buffer) {
		a := b.address()
		if a == 0 {
			panic(fmt.Sprintf("gpu: buffer %s has no place", b.name))
		}
		*(*uint64)(unsafe.Pointer(&out[offset])) = a
	})
	return out
}

// bytesOf is a slice's memory.
func bytesOf[T any](s []T) []byte {
	var zero T
	return unsafe.Slice((*byte)(unsafe.Pointer(unsafe.SliceData(s))), len(s)*int(unsafe.Sizeof(zero)))
}
