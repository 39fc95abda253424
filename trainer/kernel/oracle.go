package kernel

import "math"

// The oracle: what the kernels compute, in plain loops over PyTorch's layout
// (N, C, H, W), in float64. The tests hold every kernel to it.

// Oracle groups the reference functions.
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

// GroupConv is a k×k group convolution, stride 1, zero padding k/2.
// x (N, groups·ci, H, W), w (groups·co, ci, k, k) → (N, groups·co, H, W).
func (Oracle) GroupConv(x, w []float64, n, groups, ci, co, h, wd, k int) []float64 {
	y := make([]float64, n*groups*co*h*wd)
	eachTap(n, groups, ci, co, h, wd, k, func(xi, wi, yi int) { y[yi] += w[wi] * x[xi] })
	return y
}

// GroupConvGrad returns the gradients of GroupConv by x and w, given that by y.
func (Oracle) GroupConvGrad(x, w, dy []float64, n, groups, ci, co, h, wd, k int) (dx, dw []float64) {
	dx, dw = make([]float64, len(x)), make([]float64, len(w))
	eachTap(n, groups, ci, co, h, wd, k, func(xi, wi, yi int) {
		dx[xi] += w[wi] * dy[yi]
		dw[wi] += x[xi] * dy[yi]
	})
	return dx, dw
}

func eachTap(n, groups, ci, co, h, wd, k int, f func(xi, wi, yi int)) {
	for in := range n {
		for g := range groups {
			for o := range co {
				for i := range ci {
					for a := range h {
						for b := range wd {
							for kh := range k {
								for kw := range k {
									r, c := a+kh-k/2, b+kw-k/2
									if r < 0 || r >= h || c < 0 || c >= wd {
										continue
									}
									f(((in*groups*ci+g*ci+i)*h+r)*wd+c,
										(((g*co+o)*ci+i)*k+kh)*k+kw,
										((in*groups*co+g*co+o)*h+a)*wd+b)
								}
							}
						}
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
