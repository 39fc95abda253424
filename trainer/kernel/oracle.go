package kernel

import "math"

// The oracle computes the same as the kernels, in plain loops over PyTorch's layout
// (N, C, H, W). The tests compare every kernel with it. Its numbers are float64; with
// BF16 and AMX each is rounded as a kernel's is, so that no bit may differ but of the
// sums of a normalisation and, with BF16, the weights' gradients, which are near.

// Oracle has the reference functions, apart from those of GroupConv.
type Oracle struct{ Precision Precision }

// Permute moves channel l·M + m to m·L + l (Pᵀ of Eq. 2); Permute with L and M
// exchanged is its inverse. x is (N, L·M, HW).
func (Oracle) Permute(x []float64, n, l, m, hw int) []float64 {
	y := make([]float64, len(x))
	for i := range n {
		for a := range l {
			for b := range m {
				copy(y[((i*l*m)+b*l+a)*hw:][:hw], x[((i*l*m)+a*m+b)*hw:][:hw])
			}
		}
	}
	return y
}

// GroupConv is a group convolution with KH×KW kernels, both odd, and zero
// padding of half a kernel. x (N, Groups·Ci, H, W), w (Groups·Co, Ci, KH, KW) →
// (N, Groups·Co, ⌈H/Stride⌉, ⌈W/Stride⌉).
type GroupConv struct {
	Oracle
	N, Groups, Ci, Co    int
	H, W, KH, KW, Stride int
}

// Size returns the height and width of the output.
func (c GroupConv) Size() (h, w int) {
	return (c.H + c.Stride - 1) / c.Stride, (c.W + c.Stride - 1) / c.Stride
}

// Forward returns the output.
func (c GroupConv) Forward(x, w []float64) []float64 {
	h, wd := c.Size()
	y := make([]float64, c.N*c.Groups*c.Co*h*wd)
	for yi := range y {
		col, row, ch, n := yi%wd, yi/wd%h, yi/wd/h%(c.Groups*c.Co), yi/wd/h/(c.Groups*c.Co)
		first := n*c.Groups*c.Ci + ch/c.Co*c.Ci
		y[yi] = c.sum(ch/c.Co, c.Ci, c.Co, func(i, kh, kw int) (wi, xi int) {
			a, b := row*c.Stride+kh-c.KH/2, col*c.Stride+kw-c.KW/2
			if a < 0 || a >= c.H || b < 0 || b >= c.W {
				return -1, -1
			}
			return ((ch*c.Ci+i)*c.KH+kh)*c.KW + kw, ((first+i)*c.H+a)*c.W + b
		}, w, x)
	}
	return y
}

// Backward returns the gradients by x and w, given that by the output. The gradient
// by x is a convolution of dy with kernels turned by 180°. Where it multiplies dy by a
// weight, the gradient by that weight, which is not rounded, gets x times dy; with AMX
// these are added up in another order.
func (c GroupConv) Backward(x, w, dy []float64) (dx, dw []float64) {
	h, wd := c.Size()
	dx, dw = make([]float64, len(x)), make([]float64, len(w))
	for xi := range dx {
		col, row, ch, n := xi%c.W, xi/c.W%c.H, xi/c.W/c.H%(c.Groups*c.Ci), xi/c.W/c.H/(c.Groups*c.Ci)
		i, group := ch%c.Ci, ch/c.Ci
		dx[xi] = c.sum(group, c.Co, c.Ci, func(o, kh, kw int) (wi, yi int) {
			a, b := row+kh-c.KH/2, col+kw-c.KW/2
			if a < 0 || a%c.Stride != 0 || a/c.Stride >= h || b < 0 || b%c.Stride != 0 || b/c.Stride >= wd {
				return -1, -1
			}
			out := group*c.Co + o
			wi = ((out*c.Ci+i)*c.KH+c.KH-1-kh)*c.KW + c.KW - 1 - kw
			yi = ((n*c.Groups*c.Co+out)*h+a/c.Stride)*wd + b/c.Stride
			dw[wi] += x[xi] * dy[yi]
			return wi, yi
		}, w, dy)
	}
	if c.Precision == AMX {
		dw = c.weightSteps(x, dy)
	}
	return dx, dw
}

// weightSteps is the gradient by w in the order of AMX. A step, as in sumSteps, has the
// products of x and dy of a block of 16 pictures in two neighbouring columns, or with a
// stride in one. Pictures with even numbers and those with odd ones are added up apart.
func (c GroupConv) weightSteps(x, dy []float64) []float64 {
	h, wd := c.Size()
	columns := 3 - c.Stride
	dw := make([]float64, c.Groups*c.Co*c.Ci*c.KH*c.KW)
	for wi := range dw {
		kw, kh, i, out := wi%c.KW, wi/c.KW%c.KH, wi/c.KW/c.KH%c.Ci, wi/c.KW/c.KH/c.Ci
		in := out/c.Co*c.Ci + i
		for block := 0; block < c.N; block += Lanes {
			var sum float64
			for row := range h {
				a := row*c.Stride + kh - c.KH/2
				if a < 0 || a >= c.H {
					continue
				}
				for from := 0; from < wd; from += columns {
					var step [2]float64
					for col := from; col < min(from+columns, wd); col++ {
						b := col*c.Stride + kw - c.KW/2
						if b < 0 || b >= c.W {
							continue
						}
						for n := block; n < min(block+Lanes, c.N); n++ {
							xi, yi := ((n*c.Groups*c.Ci+in)*c.H+a)*c.W+b, ((n*c.Groups*c.Co+out)*h+row)*wd+col
							step[n%2] = c.FMA(x[xi], dy[yi], step[n%2])
						}
					}
					sum = c.FMA(1, c.FMA(1, step[0], step[1]), sum)
				}
			}
			dw[wi] = float64(float32(dw[wi] + sum)) // as SumBlocks
		}
	}
	return dw
}

// sum is the sum of w times x at the indices that at returns, which are negative at
// the padding: over the channels in that a partition reads to make each of out, and
// over the kernel, in the precision's order.
func (c GroupConv) sum(partition, in, out int, at func(channel, kh, kw int) (wi, xi int), w, x []float64) float64 {
	add := func(sum float64, channel, kh, kw int) float64 {
		if wi, xi := at(channel, kh, kw); wi >= 0 {
			sum = c.FMA(x[xi], w[wi], sum)
		}
		return sum
	}
	if c.Precision == AMX {
		return c.Round(c.sumSteps(partition, in, out, add))
	}
	return c.Round(c.sumPairs(in, add))
}

// sumPairs is the order of BF16: over pairs of the channels, the second of a pair first,
// and over the kernel. The last of an odd number of channels is added alone, and where the
// kernel has three rows and no stride, its first two rows in pairs.
func (c GroupConv) sumPairs(channels int, add func(sum float64, channel, kh, kw int) float64) (sum float64) {
	for i := 0; i < channels; i += 2 {
		inRows := i+1 == channels && c.KH == 3 && c.Stride == 1
		for kh := range c.KH {
			for kw := range c.KW {
				switch {
				case !inRows && i+1 < channels:
					sum = add(sum, i+1, kh, kw)
					sum = add(sum, i, kh, kw)
				case !inRows || kh == 2:
					sum = add(sum, i, kh, kw)
				case kh == 1:
					sum = add(sum, i, 1, kw)
					sum = add(sum, i, 0, kw)
				}
			}
		}
	}
	return sum
}

// sumSteps is the order of AMX. An instruction, here a step, adds up its products of
// channels with even numbers and those with odd ones apart, and adds the sum of both,
// rounded, to what the steps before left. It has room for 16 pairs, and a pair of channels takes one
// for each row of the kernel. So small partitions share their steps, as a group whose
// channels are numbered through, and many channels are split into blocks. What a step
// multiplies of other partitions is zero, and left out here.
func (c GroupConv) sumSteps(partition, in, out int, add func(sum float64, channel, kh, kw int) float64) (sum float64) {
	room := 16 / c.KH
	group := max(1, min(2*room/in, 16/out))
	pairs := (group*in + 1) / 2
	blocks := (pairs + room - 1) / room
	block := 2 * ((pairs + blocks - 1) / blocks) // channels
	first := partition % group * in
	for from := 0; from < group*in; from += block {
		for kw := range c.KW {
			var step [2]float64
			for kh := range c.KH {
				for ch := max(from, first); ch < min(from+block, first+in); ch++ {
					step[ch%2] = add(step[ch%2], ch-first, kh, kw)
				}
			}
			sum = c.FMA(1, c.FMA(1, step[0], step[1]), sum)
		}
	}
	return sum
}

// Affine is a = max(0, scale·x + shift) for each channel of x (N, C, HW), or without
// the maximum if it is linear.
func (o Oracle) Affine(x, scale, shift []float64, linear bool, c, hw int) []float64 {
	a := make([]float64, len(x))
	for i := range a {
		ch := i / hw % c
		a[i] = o.FMA(scale[ch], x[i], shift[ch])
		if !linear {
			a[i] = math.Max(0, a[i])
		}
		a[i] = o.Round(a[i])
	}
	return a
}

// Pack writes x (N, C, H, W) in the kernels' layout (B, H, C, W, 16), padding
// lanes zero; Unpack is its inverse.
func Pack(dst, x []float32, n, c, h, w int) {
	clear(dst)
	each(n, c, h, w, func(at, i int) { dst[at] = x[i] })
}

// Unpack writes the first n pictures of x (B, H, C, W, 16) as (N, C, H, W).
func Unpack(dst, x []float32, n, c, h, w int) {
	each(n, c, h, w, func(at, i int) { dst[i] = x[at] })
}

func each(n, c, h, w int, f func(at, i int)) {
	i := 0
	for p := range n {
		for ch := range c {
			for row := range h {
				for col := range w {
					f((((p/Lanes*h+row)*c+ch)*w+col)*Lanes+p%Lanes, i)
					i++
				}
			}
		}
	}
}
