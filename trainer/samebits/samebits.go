// Package samebits has functions of package math whose results have the same bits on
// every machine. Those of package math do not: some processors have assembly for
// them, and for others the compiler fuses a multiplication with the addition behind
// it, which rounds once and not twice. The conversions to float64 prevent that.
//
// On x86-64, built for GOAMD64=v1, the results are those of package math.
package samebits

import "math"

// Log returns the natural logarithm of x, which is normal and positive. It is
// FreeBSD's e_log.c, as in package math, and came with this notice:
//
// Copyright (C) 1993 by Sun Microsystems, Inc. All rights reserved. Permission to use,
// copy, modify, and distribute this software is freely granted, provided that this
// notice is preserved.
func Log(x float64) float64 {
	const (
		ln2Hi = 6.93147180369123816490e-01 // 3fe62e42 fee00000
		ln2Lo = 1.90821492927058770002e-10 // 3dea39ef 35793c76
		l1    = 6.666666666666735130e-01   // 3FE55555 55555593
		l2    = 3.999999999940941908e-01   // 3FD99999 9997FA04
		l3    = 2.857142874366239149e-01   // 3FD24924 94229359
		l4    = 2.222219843214978396e-01   // 3FCC71C5 1D8E78AF
		l5    = 1.818357216161805012e-01   // 3FC74664 96CB03DE
		l6    = 1.531383769920937332e-01   // 3FC39A09 D078C69F
		l7    = 1.479819860511658591e-01   // 3FC2F112 DF3E5244
	)
	f1, ki := math.Frexp(x)
	if f1 <= math.Sqrt2/2 {
		f1 *= 2
		ki--
	}
	f, k := float64(f1)-1, float64(ki)
	s := f / (2 + f)
	s2 := float64(s * s)
	s4 := float64(s2 * s2)
	t1 := s2 * polynomial(s4, l7, l5, l3, l1)
	t2 := s4 * polynomial(s4, l6, l4, l2)
	r := float64(t1) + float64(t2)
	hfsq := float64(0.5 * f * f)
	return float64(k*ln2Hi) - ((hfsq - (float64(s*(hfsq+r)) + float64(k*ln2Lo))) - f)
}

// Cos returns the cosine of x, from 0 to 2π. It is the one of the Cephes library by
// Stephen L. Moshier, as in package math.
func Cos(x float64) float64 {
	const (
		pi4A = 7.85398125648498535156e-1 // π/4 in three parts
		pi4B = 3.77489470793079817668e-8
		pi4C = 2.69515142907905952645e-15
	)
	octant := uint64(x * (4 / math.Pi))
	octant += octant & 1 // the nearest even multiple of π/4
	y := float64(octant)
	octant &= 7
	z := ((x - float64(y*pi4A)) - float64(y*pi4B)) - float64(y*pi4C)
	zz := float64(z * z)
	switch octant {
	case 0:
		return cosine(zz)
	case 2:
		return -sine(z, zz)
	case 4:
		return -cosine(zz)
	}
	return sine(z, zz)
}

// sine and cosine are those of z from −π/4 to π/4, and zz is z·z.
func sine(z, zz float64) float64 {
	p := polynomial(zz, 1.58962301576546568060e-10, -2.50507477628578072866e-8, 2.75573136213857245213e-6,
		-1.98412698295895385996e-4, 8.33333333332211858878e-3, -1.66666666666666307295e-1)
	return z + float64(z*zz*p)
}

func cosine(zz float64) float64 {
	p := polynomial(zz, -1.13585365213876817300e-11, 2.08757008419747316778e-9, -2.75573141792967388112e-7,
		2.48015872888517045348e-5, -1.38888888888730564116e-3, 4.16666666666665929218e-2)
	return 1 - float64(0.5*zz) + float64(zz*zz*p)
}

// polynomial adds up c[i]·xⁿ⁻ⁱ by Horner's method; the last coefficient is the constant.
func polynomial(x float64, c ...float64) float64 {
	sum := c[0]
	for _, next := range c[1:] {
		sum = float64(sum*x) + next
	}
	return sum
}

// Pow returns xⁿ, for x from 0 to 1 and n from 0 on.
func Pow(x float64, n int) float64 {
	power := 1.0
	for ; n > 0; n >>= 1 {
		if n&1 == 1 {
			power *= x
		}
		x *= x
	}
	return power
}
