package kernel

import (
	"math"
	"unsafe"
)

// The arithmetic of the oracle. Of BF16 and AMX it computes every bit of what the kernels
// store as bfloat16, by other means: no instruction of bfloat16, no mode of the processor.

// Round is v as it is stored: to the nearest bfloat16, of two the even one, and to a
// zero of the same sign below 2⁻¹²⁶. With F32, which the oracle computes in float64,
// it is v.
func (o Oracle) Round(v float64) float64 {
	if o.Precision == F32 {
		return v
	}
	return float64(expand(roundBF16(float32(v))))
}

// roundBF16 is the bits of the bfloat16 next to v.
func roundBF16(v float32) uint16 {
	bits := math.Float32bits(v)
	switch {
	case v != v:
		return uint16(bits>>16) | 1<<6
	case bits>>23&0xff == 0: // zero or denormal
		return uint16(bits>>16) & 0x8000
	}
	return uint16((bits + 0x7fff + bits>>16&1) >> 16)
}

// expand is the float32 with the bits of a bfloat16.
func expand(b uint16) float32 { return math.Float32frombits(uint32(b) << 16) }

// FMA is x·y + z. With BF16 and AMX the numbers and the result are float32, rounded once,
// and those below 2⁻¹²⁶ are zeros of the same sign.
func (o Oracle) FMA(x, y, z float64) float64 {
	if o.Precision == F32 {
		return x*y + z
	}
	x, y, z = flush(x), flush(y), flush(z)
	// The product is exact. The sum has an error, which two more sums find. An inexact
	// sum whose last bit is even gives way to its odd neighbour on the exact sum's side:
	// it then lies on no boundary between two float32, and rounding it again is right.
	product := float64(x * y)
	sum := product + z
	back := sum - product
	if err := (product - (sum - back)) + (z - back); err != 0 && math.Float64bits(sum)&1 == 0 {
		sum = math.Nextafter(sum, math.Copysign(math.Inf(1), err))
	}
	// x86-64 asks after rounding whether a number is below 2⁻¹²⁶, as if there
	// were no denormals: times 2⁶⁴, there are none.
	if math.Abs(float64(float32(sum*0x1p64))) < 0x1p-62 {
		return math.Copysign(0, sum)
	}
	return float64(float32(sum))
}

// flush is v, and zero if v is a denormal float32.
func flush(v float64) float64 {
	if math.Abs(v) < 0x1p-126 {
		return math.Copysign(0, v)
	}
	return v
}

// Pack writes x (N, C, H, W), which holds numbers of the precision, in the kernels'
// layout (B, H, C, W, 16), padding lanes zero. Unpack is its inverse.
func (p Precision) Pack(dst, x []float32, n, c, h, w int) {
	if p == F32 {
		Pack(dst, x, n, c, h, w)
		return
	}
	to := halves(dst)
	clear(to)
	each(n, c, h, w, func(at, i int) { to[at] = roundBF16(x[i]) })
}

// Unpack writes the first n pictures of x (B, H, C, W, 16) as (N, C, H, W).
func (p Precision) Unpack(dst, x []float32, n, c, h, w int) {
	if p == F32 {
		Unpack(dst, x, n, c, h, w)
		return
	}
	from := halves(x)
	each(n, c, h, w, func(at, i int) { dst[i] = expand(from[at]) })
}

// halves are the bfloat16 that lie in s, two in each float.
func halves(s []float32) []uint16 {
	return unsafe.Slice((*uint16)(unsafe.Pointer(unsafe.SliceData(s))), 2*len(s))
}
