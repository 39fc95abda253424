package kernel

import "math"

// The oracle computes the same as the kernels, in plain loops over PyTorch's layout
// (N, C, H, W) in float64. The tests compare every kernel with it.

// Oracle has the reference functions, apart from GroupConv.
type Oracle struct{}

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
	c.each(func(xi, wi, yi int) { y[yi] += w[wi] * x[xi] })
	return y
}

// Backward returns the gradients by x and w, given that by the output.
func (c GroupConv) Backward(x, w, dy []float64) (dx, dw []float64) {
	dx, dw = make([]float64, len(x)), make([]float64, len(w))
	c.each(func(xi, wi, yi int) {
		dx[xi] += w[wi] * dy[yi]
		dw[wi] += x[xi] * dy[yi]
	})
	return dx, dw
}

// each calls f for every multiply–add with the indices of its three numbers.
func (c GroupConv) each(f func(xi, wi, yi int)) {
	h, wd := c.Size()
	for yi := range c.N * c.Groups * c.Co * h * wd {
		col, row, ch, n := yi%wd, yi/wd%h, yi/wd/h%(c.Groups*c.Co), yi/wd/h/(c.Groups*c.Co)
		for i := range c.Ci {
			from := n*c.Groups*c.Ci + ch/c.Co*c.Ci + i
			for kh := range c.KH {
				for kw := range c.KW {
					a, b := row*c.Stride+kh-c.KH/2, col*c.Stride+kw-c.KW/2
					if a >= 0 && a < c.H && b >= 0 && b < c.W {
						f((from*c.H+a)*c.W+b, ((ch*c.Ci+i)*c.KH+kh)*c.KW+kw, yi)
					}
				}
			}
		}
	}
}

// Affine is a = max(0, scale·x + shift) for each channel of x (N, C, HW).
func (Oracle) Affine(x, scale, shift []float64, n, c, hw int) []float64 {
	a := make([]float64, len(x))
	for i := range a {
		ch := i / hw % c
		a[i] = math.Max(0, scale[ch]*x[i]+shift[ch])
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
