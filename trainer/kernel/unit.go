package kernel

// #include "igc.h"
import "C"

// Add is the end of a residual unit on one block:
//
//	Out = max(0, Scale·Z + Shift + B), B = X, XScale·X + XShift, or 0 without an X
//
// If it is Linear, there is no ReLU: Out = Scale·Z + Shift + B.
// Z and X are (H, C, W, 16) and the outputs of the branch and of the shortcut.
type Add struct {
	Precision Precision // of Z, X, Out, GX and, if it is not pooled, G
	H, W, C   int
	Linear    bool

	Z, Scale, Shift   []float32 // (H, C, W, 16), (C), (C)
	X, XScale, XShift []float32 // (H, C, W, 16), (C), (C); XScale nil: X as it is
	Out               []float32 // (H, C, W, 16)

	// For AddBackward.
	Pooled      bool      // G is (C, 16), the same at every position
	G           []float32 // (H, C, W, 16): gradient of Out
	GX          []float32 // (H, C, W, 16): G, masked by the ReLU if there is one: the gradient of both terms; may be G
	GSum, GZSum []float64 // (C): sums of GX and GX·Z
	GXSum       []float64 // (C): sum of GX·X, if there is an XScale
}

func (a *Add) len() int { return a.Precision.Floats(a.H * a.C * a.W * Lanes) }

func (a *Add) forward() C.igc_add {
	n := a.len()
	c := C.igc_add{H: C.long(a.H), W: C.long(a.W), C: C.long(a.C), linear: flag(a.Linear), bf16: a.Precision.c()}
	c.z, c.scale, c.shift = floats(a.Z, n), floats(a.Scale, a.C), floats(a.Shift, a.C)
	c.out = floats(a.Out, n)
	if a.X != nil {
		c.x = floats(a.X, n)
	}
	if a.XScale != nil {
		c.bscale, c.bshift = floats(a.XScale, a.C), floats(a.XShift, a.C)
	}
	return c
}

func (a *Add) backward() C.igc_add {
	c, n := a.forward(), a.len()
	if a.Pooled {
		c.pooled, c.g = 1, floats(a.G, a.C*Lanes)
	} else {
		c.g = floats(a.G, n)
	}
	c.gx, c.gsum, c.gzsum = floats(a.GX, n), doubles(a.GSum, a.C), doubles(a.GZSum, a.C)
	if a.XScale != nil {
		c.gxsum = doubles(a.GXSum, a.C)
	}
	return c
}

// Max is the largest of 3×3 positions of max(0, Scale·X + Shift), stride 2,
// padding 1, on one block.
type Max struct {
	Precision Precision // of X, Out, G and GX
	H, W, C   int       // of the input

	X, Scale, Shift []float32 // (H, C, W, 16), (C), (C)
	Out             []float32 // (⌈H/2⌉, C, ⌈W/2⌉, 16)

	// For MaxBackward.
	G           []float32 // as Out: its gradient
	GX          []float32 // as X: gradient of the ReLU's output, masked by it
	GSum, GXSum []float64 // (C): sums of GX and GX·X
}

func (m *Max) inLen() int { return m.Precision.Floats(m.H * m.C * m.W * Lanes) }

func (m *Max) outLen() int { return m.Precision.Floats((m.H + 1) / 2 * m.C * ((m.W + 1) / 2) * Lanes) }

func (m *Max) forward() C.igc_max {
	c := C.igc_max{H: C.long(m.H), W: C.long(m.W), C: C.long(m.C), bf16: m.Precision.c()}
	c.x, c.scale, c.shift = floats(m.X, m.inLen()), floats(m.Scale, m.C), floats(m.Shift, m.C)
	c.out = floats(m.Out, m.outLen())
	return c
}

func (m *Max) backward() C.igc_max {
	c := m.forward()
	c.g, c.gx = floats(m.G, m.outLen()), floats(m.GX, m.inLen())
	c.gsum, c.gxsum = doubles(m.GSum, m.C), doubles(m.GXSum, m.C)
	return c
}
